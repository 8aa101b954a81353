"""When pruning happens: the masks are chosen at the start of an epoch and stay the same until the next."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from langspec_lora.hooks import TrainingHook
from langspec_lora.keys import KEY_LEVELS, keys_of
from langspec_lora.languages import LEVELS, LanguageTable
from langspec_lora.lora import LanguageSpecificLinear
from langspec_lora.naming import some_of
from langspec_lora.pruning.blocks import (
    a_mask,
    add_a_masks,
    all_keys,
    apply_a_masks,
    group_blocks,
    read_a_masks,
)
from langspec_lora.pruning.choices import FIRST_ORDER, MAGNITUDE, RANK, PruningSettings
from langspec_lora.pruning.criteria import SCORES, Known
from langspec_lora.pruning.magnitude import apply_masks, prune_smallest, pruned_in_rows, pruned_share
from langspec_lora.pruning.revival import revive
from langspec_lora.sites import Site

logger = logging.getLogger(__name__)


class HasMaskEpoch(Protocol):
    """A module that stores in which epoch the pruning masks were chosen."""

    mask_epoch: Tensor
    """The epoch, or 0 if there are no masks, int64 ``(1,)``."""


Squares = Callable[[Any], "Mapping[Tensor, Tensor] | None"]
"""Gives the mean square of each entry's gradient, ``(R, f)``, by parameter, from fairseq's optimizer; or None if it has
not made an update yet."""


class GradualPruning(TrainingHook):
    """Prunes the adapters of a model gradually while it trains (Cao et al., EMNLP 2024, section 3.3).

    The masks and the epoch in which they were chosen are buffers of the model, so a run that stops within an epoch
    continues with the same masks. Pruned entries get no gradient. They are set to zero after each update, because the
    optimizer's momentum changes them even then. Where A is pruned too, its masks are not saved, as its zeros tell them.

    Args:
        linears: the adapted linears of the model by their site.
        languages: names, levels and ranks.
        settings: how much is pruned by which epoch, and what.
        state: the module of the model that has the buffer ``mask_epoch``.
        trained: the keys that train, by side; the masks of others stay as they are. None for all.
        squares: for the criterion ``first-order``.
        seed: the training's seed.
        init: how a component is drawn that could not train any more, see :func:`~langspec_lora.lora.linear.draw_a`.
    """

    def __init__(
        self,
        linears: Mapping[Site, LanguageSpecificLinear],
        languages: LanguageTable,
        settings: PruningSettings,
        state: HasMaskEpoch,
        trained: Mapping[str, Sequence[int]] | None = None,
        squares: Squares | None = None,
        seed: int = 1,
        init: str = "rank",
    ) -> None:
        self.linears = linears
        self.languages = languages
        self.settings = settings
        self.state = state
        self._squares, self._seed, self._init = squares, seed, init
        self._forget = False
        self._pending: int | None = None
        self._metrics: dict[str, float] = {}
        self._by_key: dict[str, float] = {}
        self._rows = None if trained is None else _rows_of(linears.values(), trained)
        self._trained = all_keys(linears.values()) if trained is None else trained
        parts = "BA" if settings.prunes_a else "B"
        self._groups = [group for part in parts for group in group_blocks(linears, self._trained, settings.scope, part)]
        if settings.prunes_a:
            add_a_masks(linears.values())
        for linear in linears.values():
            linear.lora_B.register_hook(_MaskGradient(linear))
            if settings.prunes_a:
                linear.lora_A.register_hook(_MaskGradientOfA(linear))

    def forget_masks_at_first_epoch(self) -> None:
        """Makes the first epoch of a new run choose its own masks, even if the run starts from a pruned checkpoint."""
        self._forget = True

    def begin_epoch(self, epoch: int) -> None:
        """Chooses the masks of an epoch, unless the model was restored within this epoch and already has them.

        Args:
            epoch: fairseq's epoch, counted from 1.
        """
        if self._forget:
            revive(self.linears, self._trained, self._init, self._seed)
        if self.settings.prunes_a:
            read_a_masks(self.linears.values())
        if not (self._forget or int(self.state.mask_epoch) != epoch):
            self._apply_and_tell(epoch)
        elif self.settings.criterion == FIRST_ORDER:
            self._pending = epoch  # the optimizer is only known with the first batch
        else:
            self._choose(epoch, self.settings.criterion, {})

    def begin_batch(self, optimizer: Any) -> None:
        """Chooses the masks if that needs the optimizer.

        Args:
            optimizer: the trainer's fairseq optimizer.
        """
        if self._pending is None:
            return
        epoch, self._pending = self._pending, None
        squares = None if self._squares is None else self._squares(optimizer)
        if squares is None and self.settings.schedule.ratio(epoch) > 0:
            logger.info("pruning | epoch %d | no gradients are known before the first update: by magnitude", epoch)
        self._choose(epoch, MAGNITUDE if squares is None else FIRST_ORDER, squares or {})

    def _choose(self, epoch: int, criterion: str, squares: Mapping[Tensor, Tensor]) -> None:
        names = {side: keys_of(self.languages, side).names for side in self._trained}
        known = Known(self._seed, names, squares)
        for blocks in self._groups:
            prune_smallest(blocks, self.settings.schedule.ratio(epoch), SCORES[self.settings.unit][criterion], known)
        self.state.mask_epoch.fill_(epoch)
        self._forget = False
        self._apply_and_tell(epoch)

    def end_update(self) -> None:
        """Sets pruned entries back to zero after an optimizer step."""
        self._apply()

    def _apply_and_tell(self, epoch: int) -> None:
        self._apply()
        ratio = self.settings.schedule.ratio(epoch)
        words = some_of(f"{name} {share:.4f}" for name, share in self._measure(ratio).items())
        what = " of components" if self.settings.unit == RANK else ""
        logger.info("pruning | epoch %d | target %.4f | pruned %s%s", epoch, ratio, words, what)

    def _apply(self) -> None:
        if self._rows is not None:  # copied to a GPU once, not in every update
            self._rows = {side: rows.to(self.state.mask_epoch.device) for side, rows in self._rows.items()}
        apply_masks(self.linears.values(), self._rows)
        if self.settings.prunes_a:
            apply_a_masks(self.linears.values(), self._rows)

    def metrics(self) -> dict[str, float]:
        """The share that the schedule asks for, and the shares that are pruned, over all and by level."""
        return self._metrics

    def detailed_metrics(self) -> dict[str, dict[str, float]]:
        """The share that is pruned of each language, or other key, that trains."""
        return {"sparsity_by_language": self._by_key}

    def _measure(self, ratio: float) -> dict[str, float]:
        """Measures what is pruned, for the metrics; gives the shares of B, over all and by level, and of A."""
        unit = self.settings.unit
        pruned: Counter[tuple[str, str]] = Counter()  # by level and key
        everything: Counter[tuple[str, str]] = Counter()
        for side, in_rows in pruned_in_rows(self.linears.values(), unit).items():
            linears = [linear for linear in self.linears.values() if linear.side == side]
            layout, keys = linears[0].layout, keys_of(self.languages, side)
            in_a_row = len(linears) if unit == RANK else sum(linear.lora_B.size(1) for linear in linears)
            for key in self._trained[side]:
                owner = keys.levels[key], keys.names[key].split(" as ")[0]
                pruned[owner] += int(in_rows[layout.slice(key)].sum())
                everything[owner] += layout.ranks[key] * in_a_row
        shares = {"all": sum(pruned.values()) / sum(everything.values())}
        for level in KEY_LEVELS:
            if owners := [owner for owner in everything if owner[0] == level]:
                shares[level] = sum(pruned[owner] for owner in owners) / sum(everything[owner] for owner in owners)
        self._by_key = {key: pruned[level, key] / total for (level, key), total in everything.items()}
        self._metrics = {"target_sparsity": ratio, "sparsity": shares["all"]}
        self._metrics |= {f"sparsity_{level}": share for level, share in shares.items() if level in LEVELS}
        if self.settings.prunes_a:
            groups = group_blocks(self.linears, self._trained, "language", "A")
            shares["of A"] = pruned_share(block for group in groups for block in group)
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
        seed: the training's seed.
        init: how a component is drawn that could not train any more, see :func:`~langspec_lora.lora.linear.draw_a`.
    """

    def __init__(
        self,
        linears: Mapping[Site, LanguageSpecificLinear],
        state: HasMaskEpoch,
        trained: Mapping[str, Sequence[int]] | None = None,
        seed: int = 1,
        init: str = "rank",
    ) -> None:
        self.linears = linears
        self.state = state
        self._seed, self._init = seed, init
        self._all = trained is None
        self._trained = all_keys(linears.values()) if trained is None else trained

    def begin_epoch(self, epoch: int) -> None:
        """Sets all masks to 1, so that what was pruned trains.

        Args:
            epoch: fairseq's epoch.
        """
        revive(self.linears, self._trained, self._init, self._seed)
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


class _MaskGradientOfA(_MaskGradient):
    """The same for A."""

    def __call__(self, gradient: Tensor) -> Tensor:
        mask = a_mask(self.linear)
        assert mask is not None
        return gradient.masked_fill(mask == 0, 0)
