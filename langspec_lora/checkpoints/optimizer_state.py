"""Whether the optimizer's state in a checkpoint is one that a training can continue with.

fairseq and torch load numbers of any shape: the first update after that fails in its middle, or spoils the adapters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from langspec_lora.adapters.entries import MATRIX_ENTRY, MIXTURE_LOGITS
from langspec_lora.checkpoints.loading import is_mapped, load_checkpoint
from langspec_lora.checkpoints.outline import Outline
from langspec_lora.errors import UserError

_SQUARES = ("exp_avg_sq", "exp_avg_sq_row", "exp_avg_sq_col", "max_exp_avg_sq", "square_avg")
_AS_THE_PARAMETER = (
    *("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "momentum_buffer"),
    *("square_avg", "acc_delta", "sum"),
)
"""Parts of torch's and fairseq's optimizers that have the shape of their parameter; Adafactor's have others."""

_REMEDY = "resume from an earlier checkpoint, or start with a new state with --reset-optimizer"


def check_optimizer_state(outline: Outline, frozen: bool) -> None:
    """Checks shapes and numbers of the optimizer's state.

    Args:
        outline: the checkpoint.
        frozen: whether only the adapters were trained.

    Raises:
        UserError: a number is infinite or NaN, or a tensor does not have the shape of its parameter.
    """
    label = f"checkpoint {outline.path}"
    if outline.optimizer:
        trained = [
            shape
            for name, shape in outline.shapes.items()
            if name == MIXTURE_LOGITS or ((match := MATRIX_ENTRY.search(name)) and match[1] in ("A", "B"))
        ]
        if frozen:
            _check_shapes(outline.optimizer, trained, label)
        if is_mapped(outline.path):  # else the whole file would be loaded one more time
            for name, value in _tensors(load_checkpoint(outline.path)["last_optimizer_state"]["state"]):
                _check_numbers(name, value, label)


def _check_shapes(
    held: Mapping[int, Mapping[str, tuple[int, ...]]], trained: Sequence[tuple[int, ...]], label: str
) -> None:
    """Compares the state with the adapters' matrices, in their order; half precision has all of them in one."""
    total = sum(map(math.prod, trained))
    for number, shapes in held.items():
        for name in filter(shapes.__contains__, _AS_THE_PARAMETER):
            own = trained[number] if 0 <= number < len(trained) else None
            if shapes[name] != own and not (set(held) == {0} and shapes[name] == (total,)):
                raise UserError(
                    f"{label} has {name} of shape {shapes[name]} for parameter {number} of its optimizer, which does "
                    f"not fit its {len(trained)} matrices of adapters; {_REMEDY}"
                )


def _tensors(state: Mapping[Any, Any]) -> Iterator[tuple[str, Tensor]]:
    for values in state.values():
        for name, value in values.items() if isinstance(values, Mapping) else ():
            if isinstance(value, Tensor):
                yield str(name), value


def _check_numbers(name: str, value: Tensor, label: str) -> None:
    if value.is_complex() or not torch.isfinite(value).all():
        raise UserError(f"{label} has infinite numbers or NaN in {name} of its optimizer; {_REMEDY}")
    if name in (*_SQUARES, "step", "rested") and (value < 0).any():
        raise UserError(f"{label} has negative numbers in {name} of its optimizer, where none can be; {_REMEDY}")
