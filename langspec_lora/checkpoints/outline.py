"""The outline of a checkpoint: names, shapes and arguments, read without running anything and without its tensors."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langspec_lora.adapters.checks import check_dtypes
from langspec_lora.adapters.entries import is_adapter_entry
from langspec_lora.checkpoints.safe_pickle import TensorStub, read_pickle
from langspec_lora.checkpoints.zip_records import check_sums
from langspec_lora.errors import UserError


@dataclass(frozen=True)
class Outline:
    """The outline of a fairseq checkpoint.

    Attributes:
        path: the file.
        shapes: shape of every entry of the model's state, by its name.
        model_args: the arguments that the model was built from; None if the file holds no legacy arguments.
        epoch: the training epoch in which the file was saved; None if it does not say.
        history: what fairseq saved about the optimizer besides its moments: the class names of optimizer and criterion,
            the state of the schedule, and ``options`` (betas, …); None if the file holds no optimizer.
        processes: how many processes trained; None if the file does not say.
        optimizer: shapes of the tensors of the optimizer's state, by the number of the parameter and their name; None
            if the file holds no such state.
    """

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    model_args: Namespace | None
    epoch: int | None
    history: Mapping[str, Any] | None = None
    processes: int | None = None
    optimizer: Mapping[int, Mapping[str, tuple[int, ...]]] | None = None

    def stack_sizes(self, stack: str) -> dict[str, int]:
        """The sizes of a stack, as its weights show them, by the ending of fairseq's argument.

        Args:
            stack: ``encoder`` or ``decoder``.

        Returns:
            ``layers``, and if known ``embed_dim`` and ``ffn_embed_dim``.
        """
        layers = {int(match[1]) for name in self.shapes if (match := re.match(rf"{stack}\.layers\.(\d+)\.", name))}
        sizes = {"layers": len(layers)}
        fc1 = self.shapes.get(f"{stack}.layers.{min(layers, default=0)}.fc1.weight", ())
        if len(fc1) == 2:
            sizes |= {"embed_dim": fc1[1], "ffn_embed_dim": fc1[0]}
        return sizes


def read_outline(path: str | Path) -> Outline:
    """Reads the outline of a checkpoint.

    Args:
        path: a file written by ``torch.save``, in its current or its old (before torch 1.6) format.

    The checksums of what the file says, and of its adapters, are compared; those of the base by
    :func:`~langspec_lora.checkpoints.zip_records.check_sums`, which takes as long as reading it.

    Returns:
        Names and shapes of the model's state and the arguments it was built from.

    Raises:
        UserError: the file is missing, damaged or not a fairseq checkpoint, or names functions no checkpoint needs.
    """
    path = Path(path)
    state = read_pickle(path)
    if not isinstance(state, dict) or not isinstance(state.get("model"), dict):
        raise UserError(
            f"checkpoint {path} is not from fairseq: it holds no model; give a file written by fairseq-train"
        )
    tensors = {name: value for name, value in state["model"].items() if isinstance(value, TensorStub)}
    if not all(isinstance(name, str) for name in state["model"]):
        raise UserError(f"checkpoint {path} is damaged: an entry of its model has no name; download it again")
    check_sums(path, {value.storage for name, value in tensors.items() if is_adapter_entry(name)})
    check_dtypes({name: value.dtype for name, value in tensors.items()}, f"checkpoint {path}")
    shapes = {name: value.shape for name, value in tensors.items()}
    args = _model_args(state)
    if args is not None and not all(isinstance(name, str) for name in vars(args)):
        raise UserError(f"checkpoint {path} is damaged: an argument of its model has no name; download it again")
    return Outline(path, shapes, args, _epoch(state), _history(state), _processes(state), _optimizer(state))


def _model_args(state: dict) -> Namespace | None:
    if isinstance(state.get("args"), Namespace):
        return state["args"]
    settings = state.get("cfg")
    model = settings.get("model") if isinstance(settings, dict) else None
    return model if isinstance(model, Namespace) else None


def _epoch(state: dict) -> int | None:
    extra = state.get("extra_state")
    iterator = extra.get("train_iterator") if isinstance(extra, dict) else None
    epoch = iterator.get("epoch") if isinstance(iterator, dict) else None
    return epoch if isinstance(epoch, int) else None


def _history(state: dict) -> Mapping[str, Any] | None:
    history, optimizer = state.get("optimizer_history"), state.get("last_optimizer_state")
    last = history[-1] if isinstance(history, list) and history else None
    if not isinstance(last, dict) or not isinstance(optimizer, dict):
        return None
    groups = optimizer.get("param_groups")
    first = groups[0] if isinstance(groups, list) and groups else None
    return {**last, "options": first if isinstance(first, dict) else {}}


def _optimizer(state: dict) -> Mapping[int, Mapping[str, tuple[int, ...]]] | None:
    optimizer = state.get("last_optimizer_state")
    held = optimizer.get("state") if isinstance(optimizer, dict) else None
    if not isinstance(held, dict) or not all(isinstance(number, int) for number in held):
        return None
    return {
        number: {str(name): value.shape for name, value in values.items() if isinstance(value, TensorStub)}
        for number, values in held.items()
        if isinstance(values, dict)
    }


def _processes(state: dict) -> int | None:
    settings = state.get("cfg")
    distributed = settings.get("distributed_training") if isinstance(settings, dict) else None
    count = distributed.get("distributed_world_size") if isinstance(distributed, dict) else None
    return count if isinstance(count, int) and count > 0 else None
