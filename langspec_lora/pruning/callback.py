"""When pruning happens: the masks are chosen at the start of an epoch and stay the same until the next."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from langspec_lora.hooks import TrainingHook
from langspec_lora.keys import KEY_LEVELS, keys_of
from langspec_lora.languages import LanguageTable
from langspec_lora.lora import LanguageSpecificLinear
from langspec_lora.naming import some_of
from langspec_lora.pruning.magnitude import Block, all_keys, apply_masks, group_blocks, prune_smallest, pruned_share
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
        logger.info("pruning | epoch %d | target %.4f | %s", epoch, ratio, self._summary())

    def end_update(self) -> None:
        """Sets pruned entries back to zero after an optimizer step."""
        self._apply()

    def _apply(self) -> None:
        if self._rows is not None:  # copied to a GPU once, not in every update
            self._rows = {side: rows.to(self.state.mask_epoch.device) for side, rows in self._rows.items()}
        apply_masks(self.linears.values(), self._rows)

    def _summary(self) -> str:
        shares = {"all": pruned_share(self._blocks(self._trained))}
        levels_of = {side: keys_of(self.languages, side).levels for side in self._trained}
        for level in KEY_LEVELS:
            keys = {side: [key for key in own if levels_of[side][key] == level] for side, own in self._trained.items()}
            if blocks := self._blocks(keys):
                shares[level] = pruned_share(blocks)
        return "pruned " + some_of(f"{name} {share:.4f}" for name, share in shares.items())

    def _blocks(self, keys: Mapping[str, Sequence[int]]) -> list[Block]:
        return [block for group in group_blocks(self.linears, keys, "language") for block in group]


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
