"""Which adapters are left out or replaced, in which directions: a plan of forward passes, made without a model.

A part is a site together with the role of the adapters there. Where the source language selects the adapter, its role
is to adapt a source; in a direction, all sentences have the same source. So to leave out a part as a whole tells for
each language what its own adapter does there: in the directions from that language, no other adapter acts in this role.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from langspec_lora.ablation.options import FC, LANGUAGE, LAYER, POSITION, SWAP
from langspec_lora.config import AdapterConfig
from langspec_lora.data.directions import Direction
from langspec_lora.keys import KEY_LEVELS, SHARED_NAME, keys_of
from langspec_lora.sites import DIRECTION, LEARNED, SHARED, SOURCE, TARGET, Site, in_model_order

AS_SOURCE, AS_TARGET = "source", "target"
ROLES_OF: Mapping[str, tuple[str, ...]] = {
    SOURCE: (AS_SOURCE,),
    TARGET: (AS_TARGET,),
    LEARNED: (AS_SOURCE, AS_TARGET),
    DIRECTION: (DIRECTION,),
    SHARED: (SHARED,),
}
"""The roles of the adapters in layers of each side."""

_SIDE_OF = {AS_SOURCE: SOURCE, AS_TARGET: TARGET, DIRECTION: DIRECTION, SHARED: SHARED}

FEED_FORWARD = ("fc1", "fc2")
ATTENTION = "attention"

Parts = frozenset[tuple[Site, str]]
"""Sites, each with the role of the adapters there."""

NOTHING: Parts = frozenset()


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        config: which adapters the model has.
        directions: the directions to measure.
        by: what to leave out, see :data:`~langspec_lora.ablation.options.BY`.
    """

    config: AdapterConfig
    directions: tuple[Direction, ...]
    by: tuple[str, ...]

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """The adapted sites, in the order of the model."""
        return tuple(sorted(self.config.sites, key=in_model_order))

    @cached_property
    def everything(self) -> Parts:
        """All parts; without them, the model is the base."""
        return self.at(self.sites)

    @cached_property
    def roles(self) -> tuple[str, ...]:
        """The roles of the model's adapters."""
        used = {role for _, role in self.everything}
        return tuple(role for role in _SIDE_OF if role in used)

    def at(self, sites: Iterable[Site]) -> Parts:
        """All parts at some sites."""
        return frozenset((site, role) for site in sites for role in ROLES_OF[self.config.side(site)])

    @cached_property
    def groups(self) -> dict[str, dict[tuple[str, str], Parts]]:
        """What is left out together, by ``--by`` and then by stack and layer, or stack and position."""
        layers: dict[tuple[str, str], list[Site]] = {}
        positions: dict[tuple[str, str], list[Site]] = {}
        for site in self.sites:
            layers.setdefault((site.stack, str(site.layer)), []).append(site)
            positions.setdefault((site.stack, site.position), []).append(site)
        in_order = sorted(positions, key=lambda name: in_model_order(Site(name[0], 0, name[1])))
        return {
            LAYER: {name: self.at(found) for name, found in layers.items()},
            POSITION: {name: self.at(positions[name]) for name in in_order},
        }

    @cached_property
    def kinds(self) -> dict[str, Parts]:
        """The parts of feed-forward layers (``fc``) and of attention."""
        fc = [site for site in self.sites if site.position in FEED_FORWARD]
        return {FC: self.at(fc), ATTENTION: self.everything - self.at(fc)}

    def owner(self, role: str, direction: Direction) -> str:
        """Whose adapter acts in this role in a direction: a language, a group, the direction, or all languages."""
        if role == SHARED:
            return SHARED_NAME
        if role == DIRECTION:
            return str(direction)
        languages = self.config.languages
        name = direction.source if role == AS_SOURCE else direction.target
        return languages.groups[languages.id(name)] if languages.groups else name

    @cached_property
    def owners(self) -> dict[str, tuple[str, ...]]:
        """The owners of the adapters that act in the directions, by role, from high to low resource."""
        acting = {role: {self.owner(role, direction) for direction in self.directions} for role in self.roles}
        return {role: tuple(name for name in self.levels if name in acting[role]) for role in self.roles}

    @cached_property
    def acting(self) -> Mapping[tuple[str, str], tuple[Direction, ...]]:
        """The directions in which an owner's adapter acts in a role."""
        found: dict[tuple[str, str], list[Direction]] = {
            (role, name): [] for role in self.roles for name in self.levels
        }
        for role in self.roles:
            for direction in self.directions:
                found[role, self.owner(role, direction)].append(direction)
        return {key: tuple(directions) for key, directions in found.items()}

    @cached_property
    def levels(self) -> dict[str, str]:
        """The level of each owner in any role, from high to low."""
        found: dict[str, str] = {}
        for role in self.roles:
            keys = keys_of(self.config.languages, _SIDE_OF[role])
            found |= dict(zip(keys.names, keys.levels, strict=True))
        return dict(sorted(found.items(), key=lambda entry: KEY_LEVELS.index(entry[1])))

    def of_role(self, parts: Parts, role: str) -> Parts:
        """Those of the parts that have a role."""
        return frozenset(part for part in parts if part[1] == role)

    @cached_property
    def left_out(self) -> tuple[Parts, ...]:
        """What each forward pass over all directions leaves out: first nothing, then everything."""
        found = [NOTHING, self.everything]
        # By role alone too, so that the effect of each owner is known.
        for parts in (
            *([self.everything] if {LANGUAGE, SWAP} & set(self.by) else []),
            *(parts for kind in (LAYER, POSITION) if kind in self.by for parts in self.groups[kind].values()),
        ):
            found += [parts, *(self.of_role(parts, role) for role in self.roles)]
        found += self.kinds.values() if FC in self.by else []
        return tuple(dict.fromkeys(found))

    @cached_property
    def swaps(self) -> tuple[tuple[str, str], ...]:
        """Roles with an owner whose adapter replaces those of all other owners."""
        if SWAP not in self.by:
            return ()
        return tuple((role, other) for role in self.roles for other in self.owners[role] if len(self.owners[role]) > 1)

    def replaced(self, role: str, other: str) -> tuple[Direction, ...]:
        """The directions in which an adapter is replaced by that of another owner."""
        return tuple(direction for direction in self.directions if self.owner(role, direction) != other)

    def routed(self, role: str, other: str, direction: Direction) -> Direction:
        """Languages that select the adapter of another owner in one role, and those of a direction in all others."""
        if role == DIRECTION:
            return Direction.parse(other)
        example = self._examples[role, other]
        if role == AS_SOURCE:
            return Direction(example.source, direction.target)
        return Direction(direction.source, example.target)

    @cached_property
    def _examples(self) -> dict[tuple[str, str], Direction]:
        """A direction for each role and owner."""
        return {(role, self.owner(role, found)): found for role in self.roles for found in self.directions}

    @cached_property
    def passes(self) -> int:
        """The number of times that the sentences of some direction go through the model."""
        swapped = sum(len(self.replaced(role, other)) for role, other in self.swaps)
        return len(self.left_out) * len(self.directions) + swapped
