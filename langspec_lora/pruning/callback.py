"""When pruning happens: the masks are chosen at the start of an epoch and stay the same until the next."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from langspec_lora.hooks import TrainingHook
from langspec_lora.keys import KEY_LEVELS, keys_of
from langspec_lora.languages import LEVELS, LanguageTable
from langspec_lora.lora import LanguageSpecificLinear
from langspec_lora.naming import some_of
from langspec_lora.pruning.magnitude import all_keys, apply_masks, group_blocks, prune_smallest, pruned_in_rows
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
        trained: the keys that train, by side; the masks of others stay as they are. None for all.
    """

    def __init__(
        self,
        linears: Mapping[Site, LanguageSpecificLinear],
        languages: LanguageTable,
        schedule: PruningSchedule,
        scope: str,
        state: HasMaskEpoch,
        trained: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self.linears = linears
        self.languages = languages
        self.schedule = schedule
        self.state = state
        self._forget = False
        self._metrics: dict[str, float] = {}
        self._by_key: dict[str, float] = {}
        self._rows = None if trained is None else _rows_of(linears.values(), trained)
        self._trained = all_keys(linears.values()) if trained is None else trained
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
            self._rows = {side: rows.to(self.state.mask_epoch.device) for side, rows in self._rows.items()}
        apply_masks(self.linears.values(), self._rows)

    def metrics(self) -> dict[str, float]:
        """The share that the schedule asks for, and the shares that are pruned, over all and by level."""
        return self._metrics

    def detailed_metrics(self) -> dict[str, dict[str, float]]:
        """The share that is pruned of each language, or other key, that trains."""
        return {"sparsity_by_language": self._by_key}

    def _measure(self, ratio: float) -> dict[str, float]:
        """Measures what is pruned, for the metrics of the epoch; gives the shares, over all and by level."""
        pruned: Counter[tuple[str, str]] = Counter()  # by level and key
        entries: Counter[tuple[str, str]] = Counter()
        for side, in_rows in pruned_in_rows(self.linears.values()).items():
            linears = [linear for linear in self.linears.values() if linear.side == side]
            layout, keys = linears[0].layout, keys_of(self.languages, side)
            width = sum(linear.lora_B.size(1) for linear in linears)
            for key in self._trained[side]:
                owner = keys.levels[key], keys.names[key].split(" as ")[0]
                pruned[owner] += int(in_rows[layout.slice(key)].sum())
                entries[owner] += layout.ranks[key] * width
        shares = {"all": sum(pruned.values()) / sum(entries.values())}
        for level in KEY_LEVELS:
            if owners := [owner for owner in entries if owner[0] == level]:
                shares[level] = sum(pruned[owner] for owner in owners) / sum(entries[owner] for owner in owners)
        self._by_key = {key: pruned[level, key] / total for (level, key), total in entries.items()}
        self._metrics = {"target_sparsity": ratio, "sparsity": shares["all"]}
        self._metrics |= {f"sparsity_{level}": share for level, share in shares.items() if level in LEVELS}
        return shares


def _rows_of(linears: Iterable[LanguageSpecificLinear], trained: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Which packed rows belong to the keys that train, by side, bool ``(R, 1)``."""
    rows = {}
    for side, layout in {linear.side: linear.layout for linear in linears}.items():
        trains = torch.zeros(len(layout.ranks), dtype=torch.bool)
        trains[list(trained[side])] = True
        rows[side] = trains.repeat_interleave(torch.tensor(layout.ranks)).unsqueeze(1)
    return rows


class DenseTraining(TrainingHook):
    """Training without pruning, instead of :class:`GradualPruning`.

    Entries that an earlier training pruned train again, so the masks must no longer mark them as pruned.

    Args:
        linears: the adapted linears of the model.
        state: the module of the model that has the buffer ``mask_epoch``.
        trained: the keys that train, by side; the masks of others stay as they are. None for all.
    """

    def __init__(
        self,
        linears: Mapping[Site, LanguageSpecificLinear],
        state: HasMaskEpoch,
        trained: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self.linears = linears
        self.state = state
        self._all = trained is None
        self._trained = all_keys(linears.values()) if trained is None else trained

    def begin_epoch(self, epoch: int) -> None:
        """Sets all masks to 1.

        Args:
            epoch: fairseq's epoch.
        """
        for linear in self.linears.values():
            for key in self._trained[linear.side]:
                linear.lora_mask[linear.layout.slice(key)] = 1
        if self._all:
            self.state.mask_epoch.zero_()


class _MaskGradient:
    """Sets the gradient of pruned entries to zero, so that it affects neither the norm nor the optimizer's state."""

    def __init__(self, linear: LanguageSpecificLinear) -> None:
        self.linear = linear

    def __call__(self, gradient: Tensor) -> Tensor:
        return gradient.masked_fill(self.linear.lora_mask == 0, 0)
