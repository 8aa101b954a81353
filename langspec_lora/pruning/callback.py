"""When pruning happens: the masks are chosen at the start of an epoch and stay the same until the next."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from langspec_lora.hooks import TrainingHook
from langspec_lora.languages import LEVELS, LanguageTable
from langspec_lora.lora import LanguageSpecificLinear
from langspec_lora.naming import some_of
from langspec_lora.pruning.magnitude import apply_masks, group_blocks, prune_smallest, pruned_in_rows
from langspec_lora.pruning.schedule import PruningSchedule
from langspec_lora.sites import Site

logger = logging.getLogger(__name__)


class HasMaskEpoch(Protocol):
    """A module that stores in which epoch the pruning masks were chosen."""

    mask_epoch: Tensor
    """The epoch, or 0 if there are no masks, int64 ``(1,)``."""


class GradualPruning(TrainingHook):
    """Prunes the B matrices of a model gradually while it trains (Cao et al., EMNLP 2024, section 3.3).

    The masks and the epoch in which they were chosen are buffers of the model, so a run that stops within an epoch
    continues with the same masks. Pruned entries get no gradient. They are set to zero after each update, because the
    optimizer's momentum changes them even then.

    Args:
        linears: the adapted linears of the model by their site.
        languages: names, levels and ranks.
        schedule: how much is pruned by which epoch.
        scope: which entries compete, see :func:`~langspec_lora.pruning.magnitude.group_blocks`.
        state: the module of the model that has the buffer ``mask_epoch``.
        trained: ids of the languages that train; the masks of others stay as they are. None for all.
    """

    def __init__(
        self,
        linears: Mapping[Site, LanguageSpecificLinear],
        languages: LanguageTable,
        schedule: PruningSchedule,
        scope: str,
        state: HasMaskEpoch,
        trained: Sequence[int] | None = None,
    ) -> None:
        self.linears = linears
        self.languages = languages
        self.schedule = schedule
        self.state = state
        self._forget = False
        self._metrics: dict[str, float] = {}
        self._by_language: dict[str, float] = {}
        self._rows = None if trained is None else _rows_of(trained, languages.ranks)
        self._trained = range(len(languages)) if trained is None else trained
        self._groups = group_blocks(linears, self._trained, scope)
        for linear in linears.values():
            linear.lora_B.register_hook(_MaskGradient(linear))

    def forget_masks_at_first_epoch(self) -> None:
        """Makes the first epoch of a new run choose its own masks, even if the run starts from a pruned checkpoint."""
        self._forget = True

    def begin_epoch(self, epoch: int) -> None:
        """Chooses the masks of an epoch, unless the model was restored within this epoch and already has them.

        Args:
            epoch: fairseq's epoch, counted from 1.
        """
        ratio = self.schedule.ratio(epoch)
        if self._forget or int(self.state.mask_epoch) != epoch:
            for blocks in self._groups:
                prune_smallest(blocks, ratio)
            self.state.mask_epoch.fill_(epoch)
            self._forget = False
        self._apply()
        shares = some_of(f"{name} {share:.4f}" for name, share in self._measure(ratio).items())
        logger.info("pruning | epoch %d | target %.4f | pruned %s", epoch, ratio, shares)

    def end_update(self) -> None:
        """Sets pruned entries back to zero after an optimizer step."""
        self._apply()

    def _apply(self) -> None:
        if self._rows is not None:  # copied to a GPU once, not in every update
            self._rows = self._rows.to(self.state.mask_epoch.device)
        apply_masks(self.linears.values(), self._rows)

    def metrics(self) -> dict[str, float]:
        """The share that the schedule asks for, and the shares that are pruned, over all and by level."""
        return self._metrics

    def metrics_by_language(self) -> dict[str, dict[str, float]]:
        """The share that is pruned of each language that trains."""
        return {"sparsity": self._by_language}

    def _measure(self, ratio: float) -> dict[str, float]:
        """Measures what is pruned, for the metrics of the epoch; gives the shares, over all and by level."""
        linears = list(self.linears.values())
        layout, width = linears[0].routing.layout, sum(linear.lora_B.size(1) for linear in linears)
        in_rows = pruned_in_rows(linears)
        pruned = {i: int(in_rows[layout.slice(i)].sum()) for i in self._trained}
        entries = {i: self.languages.ranks[i] * width for i in self._trained}
        members = {"all": list(self._trained)}
        for level in LEVELS:
            members[level] = [i for i in self._trained if self.languages.levels[i] == level]
        shares = {
            name: sum(pruned[i] for i in ids) / sum(entries[i] for i in ids) for name, ids in members.items() if ids
        }
        self._by_language = {self.languages.names[i]: pruned[i] / entries[i] for i in self._trained}
        self._metrics = {"target_sparsity": ratio, "sparsity": shares["all"]}
        self._metrics |= {f"sparsity_{level}": share for level, share in shares.items() if level in LEVELS}
        return shares


def _rows_of(trained: Sequence[int], ranks: Sequence[int]) -> Tensor:
    """Which packed rows belong to the languages that train, bool ``(R, 1)``."""
    trains = torch.tensor([language in trained for language in range(len(ranks))])
    return trains.repeat_interleave(torch.tensor(ranks)).unsqueeze(1)


class DenseTraining(TrainingHook):
    """Training without pruning, instead of :class:`GradualPruning`.

    Entries that an earlier training pruned train again, so the masks must no longer mark them as pruned.

    Args:
        linears: the adapted linears of the model.
        languages: the model's languages.
        state: the module of the model that has the buffer ``mask_epoch``.
        trained: ids of the languages that train; the masks of others stay as they are. None for all.
    """

    def __init__(
        self,
        linears: Mapping[Site, LanguageSpecificLinear],
        languages: LanguageTable,
        state: HasMaskEpoch,
        trained: Sequence[int] | None = None,
    ) -> None:
        self.linears = linears
        self.state = state
        self._all = trained is None
        self._trained = range(len(languages)) if trained is None else trained

    def begin_epoch(self, epoch: int) -> None:
        """Sets all masks to 1.

        Args:
            epoch: fairseq's epoch.
        """
        for linear in self.linears.values():
            for language in self._trained:
                linear.lora_mask[linear.routing.layout.slice(language)] = 1
        if self._all:
            self.state.mask_epoch.zero_()


class _MaskGradient:
    """Sets the gradient of pruned entries to zero, so that it affects neither the norm nor the optimizer's state."""

    def __init__(self, linear: LanguageSpecificLinear) -> None:
        self.linear = linear

    def __call__(self, gradient: Tensor) -> Tensor:
        return gradient.masked_fill(self.linear.lora_mask == 0, 0)
