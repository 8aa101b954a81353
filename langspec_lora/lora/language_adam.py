"""Adam for packed adapters that leaves languages unchanged if they are absent from an update.

torch's optimizers update a parameter as a whole. A packed parameter holds the rows of all languages, so momentum and
weight decay would also change languages that have no sentence in the update. If the rows of each language were a
separate parameter, an absent language would have no gradient, and Adam would leave its rows, moments and step count
unchanged. This module does the same with packed parameters, without a loop over languages. Where an adapter belongs to
a group or a direction, the same holds for these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from langspec_lora.keys import KeyLayout
from langspec_lora.lora.linear import LanguageSpecificLinear
from langspec_lora.sites import SHARED


class Packed(NamedTuple):
    """The position of packed rows in a parameter of the optimizer, which may be a flat copy of many parameters.

    Attributes:
        start: index of the first element in the flattened parameter.
        shape: ``(R, features)``.
        side: what selects the rows, see :data:`~langspec_lora.sites.SIDES`.
    """

    start: int
    shape: tuple[int, int]
    side: str


class _Tensors(NamedTuple):
    """A parameter or a part of it, with everything that a step reads and writes; all have the same shape.

    Attributes:
        weight: the parameter, in single precision.
        gradient: its gradient, likewise.
        mean: the first moment.
        square: the second moment.
    """

    weight: Tensor
    gradient: Tensor
    mean: Tensor
    square: Tensor

    def part(self, start: int | None, end: int | None, shape: tuple[int, ...] = (-1,)) -> _Tensors:
        """A range of elements of flat tensors, as views."""
        return _Tensors(*(tensor[start:end].view(shape) for tensor in self))


class _Rates(NamedTuple):
    """How much a step changes each row, ``(R, 1)``; it does not change rows of absent keys.

    Attributes:
        keep_mean: factor of the first moment: β₁, or 1 at rest.
        keep_square: factor of the second moment: β₂, or 1 at rest.
        size: step size with bias correction, or 0 at rest.
        decay: factor of the weight that weight decay adds, or 0 at rest.
        spans: the rows that are not at rest, if it is faster to leave out the others; None for all rows.
    """

    keep_mean: Tensor
    keep_square: Tensor
    size: Tensor
    decay: Tensor
    spans: Sequence[slice] | None = None

    def of(self, rows: slice) -> _Rates:
        """The rates of some rows."""
        return _Rates(self.keep_mean[rows], self.keep_square[rows], self.size[rows], self.decay[rows])


class LanguageAdam(torch.optim.Optimizer):
    """fairseq's Adam (decoupled weight decay), except that absent languages rest.

    :meth:`convert` turns an optimizer of fairseq into one. Parameters without packed rows are updated as before. As
    long as every language is in every update, so are all parameters, to the last bit. Rows of absent languages need a
    gradient of exactly zero, which :class:`~langspec_lora.lora.linear.LanguageSpecificLinear` gives them.

    The state of each parameter is fairseq's: ``step``, ``exp_avg``, ``exp_avg_sq``. The state of the first parameter
    also contains :attr:`RESTED`.
    """

    RESTED = "rested"
    """The entry of the state with the number of steps in which each key rested, int64, ``(keys,)``, side after side.

    It counts the steps that a key missed, so that the steps of a stock Adam count as steps of every key. Versions that
    only had adapters of languages stored it as ``(2, languages)``.
    """

    packed: Mapping[Tensor, Sequence[Packed]]
    layout: KeyLayout
    present: dict[str, Tensor]
    """Whether a key is in the update, by side, bool ``(keys,)``; a shared adapter always is."""

    @classmethod
    def convert(
        cls, optimizer: torch.optim.Optimizer, packed: Mapping[Tensor, Sequence[Packed]], layout: KeyLayout
    ) -> LanguageAdam:
        """Converts fairseq's Adam, or apex's fused one, to this class, in place; it keeps its state.

        Args:
            optimizer: the optimizer.
            packed: the packed rows in each parameter that contains some, in ascending order.
            layout: which rows belong to which key.
        """
        optimizer.__class__ = cls
        converted = cast(LanguageAdam, optimizer)
        converted.packed, converted.layout = packed, layout
        converted.present = all_present(layout, True)
        for group in converted.param_groups:
            steps = group.pop("step", 0)  # where apex counts them
            for parameter in group["params"]:
                if converted.state.get(parameter):
                    converted.state[parameter].setdefault("step", steps)
        return converted

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates the parameters once.

        Args:
            closure: computes the loss again and returns it; see torch.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        steps, rested = self._count()
        for group in self.param_groups:
            rates = self._rates(steps, rested, group)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step_parameter(parameter, group, rates)
        return loss

    def _count(self) -> tuple[int, Tensor]:
        """The number of steps including this one, and in how many of them each key rested, as in the state."""
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        steps = 1 + max(self.state[parameter].get("step", 0) for parameter in parameters)
        state = self.state[parameters[0]]
        absent = ~torch.cat(list(self.present.values()))
        rested = state.get(self.RESTED, torch.zeros(len(absent)))
        # A state that was loaded is of its parameter's type, on its device.
        state[self.RESTED] = rested.to("cpu", torch.int64).view(-1) + absent.long()
        return steps, state[self.RESTED]

    def _rates(self, steps: int, rested: Tensor, group: dict) -> dict[str, _Rates | None]:
        """The rates of each row, by side; None if no key has ever rested, so that all rows have the same rates."""
        found: dict[str, _Rates | None] = dict.fromkeys(self.layout.packed)
        (beta1, beta2), rate = group["betas"], group["lr"]
        parts = rested.split([len(present) for present in self.present.values()])
        for (side, present), sat_out in zip(self.present.items(), parts, strict=True):
            if not any(sat_out.tolist()):
                continue
            ranks = torch.tensor(self.layout.packed[side].ranks)
            taken = (steps - sat_out).double()  # at least 1 for a key that is present
            size = rate * (1 - beta2**taken).sqrt() / (1 - beta1**taken)
            by_key = (
                torch.where(present, beta1, 1.0),
                torch.where(present, beta2, 1.0),
                torch.where(present, size, 0.0),
                torch.where(present, -group["weight_decay"] * rate, 0.0),
            )
            rows = torch.stack([column.double().repeat_interleave(ranks) for column in by_key])
            parameter = group["params"][0]
            spans = _spans(present.repeat_interleave(ranks)) if _leaves_out_rows(parameter.device) else None
            rows = rows.to(_single(parameter.data).dtype).unsqueeze(-1)
            mean, square, step, decay = rows.to(parameter.device, non_blocking=True)  # does not wait for a GPU
            found[side] = _Rates(mean, square, step, decay, spans)
        return found

    def _step_parameter(self, parameter: Tensor, group: dict, rates: Mapping[str, _Rates | None]) -> None:
        assert parameter.grad is not None
        state = self.state[parameter]
        weight, gradient = _single(parameter.data), _single(parameter.grad.data)
        if "exp_avg" not in state:
            state["step"] = 0
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
        state["exp_avg"], state["exp_avg_sq"] = state["exp_avg"].to(weight), state["exp_avg_sq"].to(weight)
        state["step"] += 1
        step_size = _step_size(state["step"], group)
        tensors = _Tensors(weight, gradient, state["exp_avg"], state["exp_avg_sq"])
        packed = [(rows, rates[rows.side]) for rows in self.packed.get(parameter, ())]
        apart = [(rows, rate) for rows, rate in packed if rate is not None]
        if not apart:
            _step_alike(tensors, group, step_size)
        elif apart[0][0].shape == weight.shape:
            _step_rows(tensors, group, apart[0][1])
        else:  # a flat copy of many parameters
            end = 0
            for rows, rate in apart:
                _step_alike(tensors.part(end, rows.start), group, step_size)
                end = rows.start + math.prod(rows.shape)
                _step_rows(tensors.part(rows.start, end, rows.shape), group, rate)
            _step_alike(tensors.part(end, None), group, step_size)
        if weight.dtype != parameter.dtype:
            parameter.data.copy_(weight)


def _single(tensor: Tensor) -> Tensor:
    """The tensor, in single precision if it is in half precision."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _step_size(steps: int, group: dict) -> float:
    beta1, beta2 = group["betas"]
    return group["lr"] * math.sqrt(1 - beta2**steps) / (1 - beta1**steps)


def _step_alike(tensors: _Tensors, group: dict, size: float) -> None:
    """fairseq's step, with its order of operations."""
    weight, gradient, mean, square = tensors
    if not weight.numel():
        return
    beta1, beta2 = group["betas"]
    mean.mul_(beta1).add_(gradient, alpha=1 - beta1)
    square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    if group["weight_decay"]:
        weight.add_(weight, alpha=-group["weight_decay"] * group["lr"])
    weight.addcdiv_(mean, square.sqrt().add_(group["eps"]), value=-size)


def _step_rows(tensors: _Tensors, group: dict, rates: _Rates) -> None:
    """The same step for ``(R, features)``, with rates for each row; the gradient of rows at rest is zero."""
    if rates.spans is not None:
        for rows in rates.spans:
            _step_rows(_Tensors(*(tensor[rows] for tensor in tensors)), group, rates.of(rows))
        return
    weight, gradient, mean, square = tensors
    beta1, beta2 = group["betas"]
    mean.mul_(rates.keep_mean).add_(gradient, alpha=1 - beta1)
    square.mul_(rates.keep_square).addcmul_(gradient, gradient, value=1 - beta2)
    if group["weight_decay"]:
        weight.addcmul_(weight, rates.decay)
    weight.addcdiv_(mean * rates.size, square.sqrt().add_(group["eps"]), value=-1)


def _leaves_out_rows(device: torch.device) -> bool:
    """Whether it is faster to step only the rows that are not at rest.

    On a CPU, a step takes as long as reading its memory. On a GPU, starting many small kernels takes longer.
    """
    return device.type == "cpu"


def _spans(chosen: Tensor) -> list[slice]:
    """The spans of rows that are chosen, from bool ``(R,)``."""
    edges = torch.diff(chosen.int(), prepend=torch.zeros(1, dtype=torch.int), append=torch.zeros(1, dtype=torch.int))
    return [slice(*span) for span in edges.nonzero().view(-1, 2).tolist()]


def all_present(layout: KeyLayout, value: bool) -> dict[str, Tensor]:
    """The same for every key, by side, bool ``(keys,)``; a shared adapter is left out, since it never rests."""
    packed = {side: packed for side, packed in layout.packed.items() if side != SHARED}
    return {side: torch.full((len(rows.ranks),), value) for side, rows in packed.items()}


def packed_parameters(linears: Iterable[LanguageSpecificLinear]) -> dict[Tensor, str]:
    """The packed parameters of the adapted linears, each with the side that selects its rows."""
    return {parameter: linear.side for linear in linears for parameter in (linear.lora_A, linear.lora_B)}
