"""Ranks, layers and positions for a next training, from what the adapters of an earlier one use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from langspec_lora.adapters.budget import proportional_ranks
from langspec_lora.adapters.packed import Adapters
from langspec_lora.adapters.subspaces import Subspaces, Values
from langspec_lora.keys import GROUP, LANGUAGE, keys_of
from langspec_lora.languages import LanguageTable
from langspec_lora.sites import DIRECTION, LEARNED, POSITIONS, SHARED, STACKS, Site, in_model_order

RANKS, PART_POSITIONS, PART_LAYERS = "ranks", "positions", "layers"
"""The names of suggestions."""

SURVIVAL, EFFECTIVE_RANK = "what survives", "effective rank"
"""The names of measures."""


class Owner(NamedTuple):
    """What a rank can be given to.

    Attributes:
        kind: ``language``, ``group`` or ``shared``.
        name: its name.
    """

    kind: str
    name: str


@dataclass(frozen=True)
class Measure:
    """What N adapters at sites are compared by.

    Attributes:
        name: ``what survives`` or ``effective rank``.
        used: how much each uses: living entries of B, or the effective rank, ``(N,)``.
        room: how much it could use at most, ``(N,)``.
        rank: how much is one unit of rank, ``(N,)``.
    """

    name: str
    used: Values
    room: Values
    rank: Values

    @classmethod
    def survival(cls, subspaces: Subspaces) -> Measure:
        """The entries of B that survive, mean over the sets."""
        prunable = subspaces.prunable
        return cls(SURVIVAL, subspaces.living.mean(0), prunable, prunable / subspaces.ranks)

    @classmethod
    def effective_rank(cls, subspaces: Subspaces) -> Measure:
        """The effective rank of B A, mean over the sets."""
        return cls(EFFECTIVE_RANK, subspaces.effective.mean(0), subspaces.largest, np.ones(len(subspaces.ranks)))


@dataclass(frozen=True)
class Suggestion:
    """Flags of a next training.

    Attributes:
        name: ``ranks`` for the same sites, ``positions`` or ``layers`` where some are left out.
        sites: the sites to adapt.
        flags: the flags of layers and positions, by the names of their attributes; empty for the same sites.
        ranks: the rank of each language, group or shared adapter.
        parameters: how many parameters its adapters have.
        held: share of what is measured that its sites hold.
        room: share of what could be used that its sites have.
        by: what the ranks are in proportion to.
        sites_by: what ``held`` and ``room`` are shares of.
        left_out: the parts that are left out, such as ``encoder q``.
    """

    name: str
    sites: Sequence[Site]
    flags: Mapping[str, str]
    ranks: Mapping[Owner, int]
    parameters: int
    held: float
    room: float
    by: str
    sites_by: str
    left_out: Sequence[str] = ()


def owners(languages: LanguageTable, side: str, key: str) -> tuple[Owner, ...]:
    """What decides about the rank of a key: of a direction, its two languages, of which the larger rank counts.

    Args:
        languages: the languages of the model, and what its adapters belong to.
        side: the side of the layer.
        key: the key.
    """
    if side == SHARED:
        return (Owner(SHARED, key),)
    if side == DIRECTION:
        return tuple(Owner(LANGUAGE, name) for name in key.split("-"))
    name = key.split(" ")[0] if side == LEARNED else key  # "en as source"
    return (Owner(GROUP if languages.groups else LANGUAGE, name),)


class Cost:
    """The number of parameters of adapters at some sites, as a function of the ranks.

    Args:
        adapters: adapters of the same keys and widths.
        sites: the sites, some of those of the adapters.
    """

    def __init__(self, adapters: Adapters, sites: Sequence[Site]) -> None:
        self._widths: dict[str, int] = {}
        for site in sites:
            a, b, _ = adapters.packed[site]
            side = adapters.side(site)
            self._widths[side] = self._widths.get(side, 0) + a.size(1) + b.size(1)
        owned = {
            side: [owners(adapters.languages, side, key) for key in keys_of(adapters.languages, side).names]
            for side in self._widths
        }
        self.owners = list(dict.fromkeys(owner for keys in owned.values() for own in keys for owner in own))
        place = {owner: number for number, owner in enumerate(self.owners)}
        self._owned = {
            side: np.array([[place[owner] for owner in own] for own in keys]) for side, keys in owned.items()
        }

    def __call__(self, ranks: Mapping[Owner, int]) -> int:
        """The entries of all A and B.

        Args:
            ranks: a rank for each of the owners.
        """
        own = np.array([ranks[owner] for owner in self.owners])
        return sum(int(own[self._owned[side]].max(1).sum()) * width for side, width in self._widths.items())


def suggest_ranks(
    adapters: Adapters,
    subspaces: Subspaces,
    by: Measure,
    budget: int,
    sites: Sequence[Site],
    name: str = RANKS,
    left_out: Sequence[str] = (),
    sites_by: Measure | None = None,
) -> Suggestion:
    """Ranks in proportion to what each language, group or shared adapter uses, within a budget.

    What has no measure (a language that did not train) keeps its rank.

    Args:
        adapters: the adapters that were measured, or one of their sets.
        subspaces: their subspaces.
        by: what the ranks are in proportion to.
        budget: number of trainable parameters.
        sites: the sites to adapt.
        name: the name of the suggestion.
        left_out: the parts that are left out.
        sites_by: what the sites were chosen by; None if it is what the ranks are in proportion to.

    Raises:
        UserError: the budget does not allow all ranks 1.
    """
    cost, chosen = Cost(adapters, sites), set(sites)
    used = dict.fromkeys(cost.owners, 0.0)
    unit = dict.fromkeys(cost.owners, 0.0)
    inside = np.zeros(len(subspaces.cells), dtype=bool)
    for number, cell in enumerate(subspaces.cells):
        if cell.site in chosen:
            inside[number] = True
            for owner in owners(adapters.languages, adapters.side(cell.site), cell.key):
                used[owner] += by.used[number]
                unit[owner] += by.rank[number]
    fixed = {owner: _present_rank(adapters.languages, owner) for owner in cost.owners if not unit[owner]}
    parts = {owner: used[owner] / unit[owner] for owner in cost.owners if owner not in fixed}
    widest = max(
        width for site in sites for width in (adapters.packed[site].a.size(1), adapters.packed[site].b.size(1))
    )
    ranks = proportional_ranks(parts, lambda own: cost({**fixed, **own}), budget, widest)
    ranks = {owner: {**fixed, **ranks}[owner] for owner in cost.owners}
    measured = sites_by or by
    held, room = (float(values[inside].sum() / (values.sum() or 1)) for values in (measured.used, measured.room))
    flags = {} if name == RANKS else site_flags(sites)
    return Suggestion(name, list(sites), flags, ranks, cost(ranks), held, room, by.name, measured.name, left_out)


def _present_rank(languages: LanguageTable, owner: Owner) -> int:
    if owner.kind == SHARED:
        return languages.shared_rank
    return languages.group_ranks[owner.name] if owner.kind == GROUP else languages.ranks[languages.id(owner.name)]


def densest_parts(
    subspaces: Subspaces, by: Measure, part: str, keep: float
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The positions, or layers, that use most of their room and together hold a share of all that is used.

    Args:
        subspaces: the subspaces.
        by: what the parts are compared by.
        part: ``position`` or ``layer``.
        keep: the share that they hold at least; none could be left out without holding less.

    Returns:
        Stack and position (or layer) of each part to keep and of each to leave out.
    """
    groups = subspaces.groups(lambda cell: (cell.site.stack, str(getattr(cell.site, part))))
    used = {name: by.used[cells].sum() for name, cells in groups.items()}
    order = sorted(groups, key=lambda name: used[name] / by.room[groups[name]].sum(), reverse=True)
    total, held = sum(used.values()), 0.0
    for number, name in enumerate(order, start=1):
        held += used[name]
        if held >= keep * total * (1 - 1e-12):
            return order[:number], [name for name in groups if name not in order[:number]]
    return order, []


def sites_in(adapters: Adapters, part: str, kept: Sequence[tuple[str, str]]) -> list[Site]:
    """The adapted sites in some positions, or layers."""
    return [site for site in adapters.packed if (site.stack, str(getattr(site, part))) in kept]


def site_flags(sites: Sequence[Site]) -> dict[str, str]:
    """The flags that adapt some sites, by the names of their attributes.

    Args:
        sites: in each stack, all combinations of some layers and positions.
    """
    flags = {}
    for stack in STACKS:
        own = sorted((site for site in sites if site.stack == stack), key=in_model_order)
        layers = dict.fromkeys(str(site.layer) for site in own)
        flags[f"{stack}_lora_layer"] = "_".join(layers) or "none"
        if own:
            positions = {site.position for site in own}
            flags[f"{stack}_lora_position"] = "_".join(name for name in POSITIONS[stack] if name in positions)
    return flags
