"""Keeps a training with ``--fp16`` or ``--amp`` exact: single-precision copies, and what fairseq does not save."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from fairseq.optim import FairseqOptimizer
from fairseq.optim.dynamic_loss_scaler import DynamicLossScaler
from torch import Tensor

from langspec_lora.hooks import TrainingHook
from langspec_lora.lora import LanguageSpecificLinear
from langspec_lora.pruning.blocks import a_mask


class Copy(NamedTuple):
    """Where a half-precision parameter has its single-precision copy, which is the optimizer's parameter.

    Attributes:
        half: the model's parameter.
        single: the copy, or a flat tensor of the copies of many parameters.
        start: index of the copy's first element in the flattened ``single``.
    """

    half: Tensor
    single: Tensor
    start: int

    def part(self, whole: Tensor) -> Tensor:
        """This parameter's part of a tensor of the shape of ``single``, as a view of the shape of ``half``."""
        return whole.detach().view(-1)[self.start : self.start + self.half.numel()].view_as(self.half)


def single_precision_copies(optimizer: Any) -> Iterator[Copy]:
    """The copies that fairseq's FP16Optimizer keeps, in its order; none for any other optimizer."""
    if not hasattr(optimizer, "fp32_params"):
        return
    if not optimizer.has_flat_params:
        for half, single in zip(optimizer.fp16_params, optimizer.fp32_params, strict=True):
            yield Copy(half, single, 0)
        return
    starts: dict[Any, int] = defaultdict(int)
    for half in optimizer.fp16_params:  # in the order of FP16Optimizer.build_fp32_params
        device = half.device.index
        yield Copy(half, optimizer.fp32_params[device], starts[device])
        starts[device] += half.numel()


class HalfPrecision(TrainingHook):
    """Makes half precision lose nothing that single precision would keep.

    * What other hooks change in a parameter, such as pruned entries, is also changed in its single-precision copy.
    * fairseq saves neither the copies nor all that its loss scaler has counted, so a resumed run would start from
      rounded weights and another scale. Both are added to the optimizer's state, and taken from there again.

    Args:
        linears: the adapted linears, whose parameters other hooks change.
    """

    WEIGHT = "weight"
    """The entry of a parameter's state with its single-precision copy; it is the parameter itself, not a second one."""

    SCALER = "loss_scaler"
    """The entry of the first parameter's state with the numbers of the loss scaler."""

    def __init__(self, linears: Iterable[LanguageSpecificLinear]) -> None:
        self._linears: dict[Tensor, LanguageSpecificLinear] = {
            parameter: linear for linear in linears for parameter in (linear.lora_A, linear.lora_B)
        }
        self._optimizer: Any = None
        self._copies: list[Copy] = []

    def begin_batch(self, optimizer: Any) -> None:
        """Continues where the saved state was, when it sees an optimizer for the first time."""
        if optimizer is self._optimizer or not isinstance(optimizer, FairseqOptimizer):
            return
        self._optimizer, self._copies = optimizer, list(single_precision_copies(optimizer))
        states = _states(optimizer)
        with torch.no_grad():
            for copy in self._copies:
                saved = states.get(copy.single, {}).get(self.WEIGHT)
                if saved is None or saved.shape != copy.single.shape:
                    saved = copy.single
                # Where it does not round to the parameter, the parameter was changed after it was saved, or copied.
                _replace(copy.part(copy.single), copy.part(saved.to(copy.single)), copy.half)
        first = _first(optimizer)
        saved_scaler = states.get(first, {}).get(self.SCALER) if first is not None else None
        if saved_scaler:
            _restore_scaler(optimizer.scaler, saved_scaler)
        self._save()

    def end_update(self) -> None:
        """Changes the copies as other hooks have changed the parameters, and keeps the state complete."""
        with torch.no_grad():
            for copy in self._copies:
                linear = self._linears.get(copy.half)
                if linear is not None:
                    single = copy.part(copy.single)
                    _replace(single, single, copy.half)
                    mask = linear.lora_mask if copy.half is linear.lora_B else a_mask(linear)
                    if mask is not None:  # what is too small for half precision is not pruned by itself
                        single.masked_fill_((mask == 0) & (copy.half == 0), 0)
        self._save()

    def _save(self) -> None:
        """Refers to the copies and the scaler in the optimizer's state, once it has one."""
        states = _states(self._optimizer)
        for single in {id(copy.single): copy.single for copy in self._copies}.values():
            if states.get(single):
                states[single][self.WEIGHT] = single.data
        first, numbers = _first(self._optimizer), _scaler_numbers(getattr(self._optimizer, "scaler", None))
        if first is not None and states.get(first) and numbers:
            states[first][self.SCALER] = numbers


def _replace(single: Tensor, source: Tensor, half: Tensor) -> None:
    """Sets ``single`` to ``source`` where that rounds to ``half``, else to ``half``; all of one shape."""
    single.copy_(torch.where(source.to(half.dtype) == half, source, half.to(source.dtype)))


def _states(optimizer: Any) -> Any:
    return getattr(getattr(optimizer, "optimizer", None), "state", {})


def _first(optimizer: Any) -> Tensor | None:
    groups = getattr(getattr(optimizer, "optimizer", None), "param_groups", ())
    return next((parameter for group in groups for parameter in group["params"]), None)


def _scaler_numbers(scaler: Any) -> dict[str, Any]:
    """The numbers of a loss scaler, as objects that follow it, so that an update need not ask a GPU for them."""
    if isinstance(scaler, DynamicLossScaler):
        return vars(scaler)
    tensors = {"scale": getattr(scaler, "_scale", None), "growth_tracker": getattr(scaler, "_growth_tracker", None)}
    return {} if any(value is None for value in tensors.values()) else tensors


_COUNTS = ("loss_scale", "_iter", "_last_overflow_iter", "_last_rescale_iter", "_overflows_since_rescale")


def _restore_scaler(scaler: Any, saved: dict[str, Any]) -> None:
    """Sets the numbers that change in a training; the settings stay those of the command."""
    if isinstance(scaler, DynamicLossScaler):
        vars(scaler).update({name: saved[name] for name in _COUNTS if name in saved})
    elif hasattr(scaler, "is_enabled") and scaler.is_enabled() and "growth_tracker" in saved:  # torch's
        numbers = {"scale": float(saved["scale"]), "_growth_tracker": int(saved["growth_tracker"])}
        scaler.load_state_dict({**scaler.state_dict(), **numbers})
