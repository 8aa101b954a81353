"""Keeps the adapters of some languages unchanged, bit for bit, while those of others train."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch
from torch import Tensor

from langspec_lora.hooks import TrainingHook
from langspec_lora.lora.linear import LanguageSpecificLinear
from langspec_lora.lora.routing import PackedLayout


class FrozenLanguages(TrainingHook):
    """Keeps the adapters of some languages unchanged, bit for bit.

    Their gradient is set to zero, so that it affects neither the gradient norm nor the optimizer's state. Their values
    are restored after each update, because weight decay changes them even then.

    Args:
        linears: the adapted linears of one model.
        layout: which rows belong to which language.
        trained: ids of the languages that train.
    """

    def __init__(
        self, linears: Iterable[LanguageSpecificLinear], layout: PackedLayout, trained: Collection[int]
    ) -> None:
        frozen = [language for language in range(len(layout.ranks)) if language not in trained]
        rows = torch.cat([torch.arange(layout.rows)[layout.slice(language)] for language in frozen])
        self._parameters = [parameter for linear in linears for parameter in (linear.lora_A, linear.lora_B)]
        self._rows = rows
        self._kept: list[Tensor] = []
        for parameter in self._parameters:
            parameter.register_hook(self._clear)

    def _clear(self, gradient: Tensor) -> Tensor:
        return gradient.index_fill(0, self._rows_on(gradient.device), 0)

    def _rows_on(self, device: torch.device) -> Tensor:
        self._rows = self._rows.to(device)
        return self._rows

    def begin_epoch(self, epoch: int) -> None:
        """Copies the values to keep."""
        self._kept = [parameter.detach()[self._rows_on(parameter.device)] for parameter in self._parameters]

    @torch.no_grad()
    def end_update(self) -> None:
        """Restores the values, in place."""
        for parameter, kept in zip(self._parameters, self._kept, strict=True):
            parameter.index_copy_(0, self._rows_on(parameter.device), kept)
