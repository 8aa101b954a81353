"""Keeps the adapters of some keys unchanged, bit for bit, while those of others train."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import partial

import torch
from torch import Tensor

from langspec_lora.hooks import TrainingHook
from langspec_lora.keys import PackedLayout
from langspec_lora.lora.linear import LanguageSpecificLinear


class FrozenKeys(TrainingHook):
    """Keeps the adapters of some keys unchanged, bit for bit.

    Their gradient is set to zero, so that it affects neither the gradient norm nor the optimizer's state. Their values
    are restored after each update, because weight decay changes them even then.

    Args:
        linears: the adapted linears of one model.
        trained: the keys that train, by side.
    """

    def __init__(self, linears: Iterable[LanguageSpecificLinear], trained: Mapping[str, Collection[int]]) -> None:
        self._rows: dict[str, Tensor] = {}
        self._sides: dict[Tensor, str] = {}
        self._kept: dict[Tensor, Tensor] = {}
        for linear in linears:
            if linear.side not in self._rows:
                self._rows[linear.side] = _rows_of_others(linear.layout, trained[linear.side])
            for parameter in (linear.lora_A, linear.lora_B):
                self._sides[parameter] = linear.side
                parameter.register_hook(partial(self._clear, linear.side))

    def _clear(self, side: str, gradient: Tensor) -> Tensor:
        return gradient.index_fill(0, self._rows_on(side, gradient.device), 0)

    def _rows_on(self, side: str, device: torch.device) -> Tensor:
        self._rows[side] = self._rows[side].to(device)
        return self._rows[side]

    def begin_epoch(self, epoch: int) -> None:
        """Copies the values to keep."""
        for parameter, side in self._sides.items():
            self._kept[parameter] = parameter.detach()[self._rows_on(side, parameter.device)]

    @torch.no_grad()
    def end_update(self) -> None:
        """Restores the values, in place."""
        for parameter, side in self._sides.items():
            parameter.index_copy_(0, self._rows_on(side, parameter.device), self._kept[parameter])


def _rows_of_others(layout: PackedLayout, trained: Collection[int]) -> Tensor:
    rows = torch.arange(layout.rows)
    return torch.cat([rows[:0], *(rows[layout.slice(key)] for key in range(len(layout.ranks)) if key not in trained)])
