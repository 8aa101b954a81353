"""How large a subspace each language needs, read from one or more checkpoints, and what follows for a next training."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from langspec_lora.adapters.counts import Cell
from langspec_lora.adapters.packed import Adapters
from langspec_lora.adapters.subspaces import Subspaces, measure
from langspec_lora.adapters.suggestions import (
    PART_LAYERS,
    PART_POSITIONS,
    SURVIVAL,
    Measure,
    Suggestion,
    densest_parts,
    owners,
    sites_in,
    suggest_ranks,
)
from langspec_lora.errors import UserError, collect_errors
from langspec_lora.keys import keys_of
from langspec_lora.naming import some_of
from langspec_lora.report.checkpoint_seeds import (
    MOST_DIFFERENCE,
    SeedCheckpoint,
    check_one_configuration,
    read_checkpoint,
    seed_remarks,
)
from langspec_lora.report.inspection import trained_keys
from langspec_lora.report.rank_correlation import kendall, spearman
from langspec_lora.sites import SHARED

KEYS, LAYERS, POSITIONS, KEYS_BY_LAYER = "keys", "layers", "positions", "keys × layers"
COMPARED = (KEYS, LAYERS, POSITIONS, KEYS_BY_LAYER)
"""What is compared with each other: languages (or groups, or directions), layers, positions, languages by layer."""


@dataclass(frozen=True)
class Agreement:
    """How alike several checkpoints rank the same things.

    Attributes:
        over: one of :data:`COMPARED`.
        count: the number of things.
        by: what they are ranked by.
        spearman: Spearman's rho of each two checkpoints; None where all figures of one are equal.
        kendall: Kendall's tau-b, likewise.
    """

    over: str
    count: int
    by: str
    spearman: Sequence[float | None]
    kendall: Sequence[float | None]


@dataclass(frozen=True)
class Estimate:
    """What one or more checkpoints say of subspaces.

    Attributes:
        paths: the checkpoints or adapter folders.
        adapters: those of the first.
        subspaces: the subspaces in each.
        scope: ``--pruning-scope`` of the training; None if it is not known.
        measures: what each of :data:`COMPARED` is compared by.
        remarks: what the reader has to know of the figures.
        agreements: how alike the checkpoints are; empty for one.
        budget: parameters that the suggested ranks may have.
        suggestions: flags for a next training.
    """

    paths: Sequence[Path]
    adapters: Adapters
    subspaces: Subspaces
    scope: str | None
    measures: Mapping[str, Measure]
    remarks: Sequence[str]
    agreements: Sequence[Agreement]
    budget: int
    suggestions: Sequence[Suggestion] = field(default=())

    @property
    def is_pruned(self) -> bool:
        """Whether an entry of B is pruned."""
        return bool((self.subspaces.living < self.subspaces.prunable).any())

    def survival_tells(self, compared: str) -> bool:
        """Whether what survives tells these things apart, rather than the rule of pruning."""
        return self.measures[compared].name == SURVIVAL


def estimate(paths: Sequence[Path], budget: int | None = None, keep: float = 0.8) -> Estimate:
    """Reads checkpoints and measures the subspaces of their adapters.

    Args:
        paths: checkpoints or adapter folders of one configuration.
        budget: parameters that the suggested ranks may have; None for as many as the checkpoint's adapters have.
        keep: share of what is used that the suggested positions, or layers, hold.

    Raises:
        UserError: a file is missing or damaged or holds no adapters, the checkpoints are not of one configuration, or
            the budget does not allow all ranks 1.
    """
    read = []
    with collect_errors() as errors:
        for path in paths:
            with errors.check():
                read.append(read_checkpoint(path))
        errors.raise_found()
        check_one_configuration(read)
    first = read[0]
    untrained = _untrained(first)
    subspaces = measure([one.adapters for one in read], untrained)
    scope = first.pruning["scope"] if first.pruning else None
    measures = _measures(first.adapters, subspaces, scope)
    found = Estimate(
        list(paths),
        first.adapters,
        subspaces,
        scope,
        measures,
        (),
        _agreements(subspaces, measures),
        budget or sum(a.numel() + b.numel() for a, b, _ in first.adapters.packed.values()),
    )
    remarks = [*_remarks(found, first.pruning, sorted({name for _, name in untrained})), *seed_remarks(read)]
    return replace(found, remarks=remarks, suggestions=_suggestions(found, keep))


def _untrained(checkpoint: SeedCheckpoint) -> set[tuple[str, str]]:
    """The keys that its training did not train, and so did not prune, each with the side of its layers."""
    if checkpoint.args is None:
        return set()
    adapters = checkpoint.adapters
    keys = {(side, name) for side in adapters.used_sides for name in keys_of(adapters.languages, side).names}
    untrained = keys - trained_keys(adapters, checkpoint.args)
    if untrained == keys:
        raise UserError(
            f"{checkpoint.name} trained no whole adapter (--train-languages), so nothing can be compared; give a "
            "checkpoint of a training of all languages"
        )
    return untrained


def _measures(adapters: Adapters, subspaces: Subspaces, scope: str | None) -> dict[str, Measure]:
    """What languages, layers, positions, and languages in layers are compared by.

    What survives compares only what competed in pruning: where the same share is pruned of each, by rule, it would tell
    nothing. The flags say so, and where they are not known or checkpoints were edited, the figures.
    """

    def owner(cell: Cell) -> Hashable:
        return owners(adapters.languages, adapters.side(cell.site), cell.key)

    groups: dict[str, Callable[[Cell], Hashable]] = {
        KEYS: owner,
        LAYERS: lambda cell: cell.site[:2],
        POSITIONS: lambda cell: (cell.site.stack, cell.site.position),
        KEYS_BY_LAYER: lambda cell: (owner(cell), cell.site[:2]),
    }
    by_rule = {"language": {KEYS}, "layer": {LAYERS}, "matrix": set(COMPARED)}.get(scope or "", set())
    survival, effective = Measure.survival(subspaces), Measure.effective_rank(subspaces)
    return {
        what: effective if what in by_rule or subspaces.is_equal_by_rule(key) else survival
        for what, key in groups.items()
    }


def _agreements(subspaces: Subspaces, measures: Mapping[str, Measure]) -> list[Agreement]:
    found = []
    groups: dict[str, Mapping[Any, list[int]]] = {
        KEYS: subspaces.groups(lambda cell: cell.key),
        KEYS_BY_LAYER: subspaces.groups(lambda cell: (cell.key, cell.site[:2])),
        LAYERS: subspaces.groups(lambda cell: cell.site[:2]),
        POSITIONS: subspaces.groups(lambda cell: (cell.site.stack, cell.site.position)),
    }
    for over, members in groups.items():
        by = measures[over]
        if len(subspaces) < 2 or len(members) < 2:
            continue
        if by.name == SURVIVAL:
            columns = np.stack([subspaces.surviving(cells) for cells in members.values()])  # (items, S)
        else:
            columns = np.stack([subspaces.effective[:, cells].mean(1) for cells in members.values()])
        pairs = list(combinations(columns.T, 2))
        found.append(
            Agreement(
                over,
                len(members),
                by.name,
                [spearman(one, two) for one, two in pairs],
                [kendall(one, two) for one, two in pairs],
            )
        )
    return found


def _suggestions(found: Estimate, keep: float) -> list[Suggestion]:
    adapters, subspaces, by = found.adapters, found.subspaces, found.measures[KEYS]
    suggestions = [suggest_ranks(adapters, subspaces, by, found.budget, list(adapters.packed))]
    for name, part, compared in ((PART_POSITIONS, "position", POSITIONS), (PART_LAYERS, "layer", LAYERS)):
        sites_by = found.measures[compared]
        kept, left_out = densest_parts(subspaces, sites_by, part, keep)
        if left_out:
            sites, words = sites_in(adapters, part, kept), [" ".join(each) for each in left_out]
            suggestions.append(suggest_ranks(adapters, subspaces, by, found.budget, sites, name, words, sites_by))
    return suggestions


def _remarks(found: Estimate, pruning: Mapping[str, Any] | None, untrained: Sequence[str]) -> list[str]:
    """What the reader has to know of the figures."""
    remarks, subspaces = [], found.subspaces
    competed = {
        "layer": "the entries of a layer competed in pruning (--pruning-scope layer): what survives compares languages "
        "and positions; of each layer the same share survives, so layers are compared by effective rank",
        "language": "the entries of a language competed in pruning (--pruning-scope language): what survives compares "
        "layers and positions; of each language the same share survives, whatever it needs, so languages are compared "
        "by effective rank; train with --pruning-scope layer to see what they need",
        "matrix": "the entries of each B competed among themselves (--pruning-scope matrix), so the same share of each "
        "survives, whatever it needs; effective ranks are compared; train with --pruning-scope layer to see what "
        "languages need",
    }
    if not found.is_pruned:
        remarks.append(
            "nothing of B is pruned, so what survives shows nothing and effective ranks are compared; train with "
            "--pruning True --pruning-scope layer to see what languages need"
        )
    elif found.scope:
        remarks.append(competed[found.scope])
    elif not found.survival_tells(KEYS):
        remarks.append(
            "of each language the same share of B survives, as pruning gave it, whatever it needs, so languages are "
            "compared by effective rank; train with --pruning-scope layer to see what they need"
        )
    surviving = float(subspaces.surviving().mean())
    if found.is_pruned and pruning and surviving > 1 - pruning["target"] + MOST_DIFFERENCE:
        remarks.append(
            f"pruning was not complete: {100 * surviving:.1f} % of B survives, and the target is "
            f"{100 * (1 - pruning['target']):g} %; a checkpoint of a later epoch tells more"
        )
    sides = [found.adapters.side(cell.site) for cell in subspaces.cells]
    ranks = sorted({rank for rank, side in zip(subspaces.ranks.tolist(), sides, strict=True) if side != SHARED})
    if len(ranks) > 1:
        how = "in the file of groups" if found.adapters.languages.groups else "--high-rank 8 --med-rank 8 --low-rank 8"
        remarks.append(
            f"the adapters were trained with ranks {ranks[0]:.0f} to {ranks[-1]:.0f}, which limits their effective "
            f"ranks and changes how large the entries of B become; equal ranks ({how}) compare best"
        )
    if untrained:
        remarks.append(
            f"left out, as they did not train (--train-languages): {some_of(untrained)}; they keep their rank"
        )
    members = subspaces.groups(lambda cell: cell.key)
    empty = [key for key, cells in members.items() if not subspaces.effective[:, cells].any()]
    if empty:
        remarks.append(f"B is zero everywhere for {some_of(empty)}: no direction trained it, or pruning took all of it")
    return remarks
