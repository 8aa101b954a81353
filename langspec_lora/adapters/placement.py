"""Which sites are adapted, which features, and what selects each adapter.

The entries of a checkpoint show which layers and positions are adapted, but not what selects the adapter of a layer,
nor which features it covers: with another ``--encoder-activation-direction`` the entries still fit, but each adapter
then serves another language.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from langspec_lora.adapters.packed import Adapters
from langspec_lora.config import AdapterConfig
from langspec_lora.errors import UserError
from langspec_lora.sites import DIRECTION, LEARNED, SHARED, SOURCE, TARGET, Site

_SELECTED_BY = {
    SOURCE: "the source language",
    TARGET: "the target language",
    DIRECTION: "the direction",
    SHARED: "nothing",
    LEARNED: "a learned mixture of source and target",
}


@dataclass(frozen=True)
class Placement:
    """The sites, sides and features of a model's adapters.

    Attributes:
        sides: what selects the adapter at each adapted site.
        dim: number of adapted features; 0 for all.
        start: first of these features.
    """

    sides: Mapping[Site, str]
    dim: int
    start: int

    @classmethod
    def of_config(cls, config: AdapterConfig) -> Placement:
        """The placement that a command's flags or a checkpoint's arguments describe."""
        sides = {site: config.side(site) for site in config.sites}
        return cls(sides, config.dim, config.start)

    @classmethod
    def of_adapters(cls, adapters: Adapters) -> Placement:
        """The placement of given adapters."""
        return cls({site: adapters.side(site) for site in adapters.packed}, adapters.dim, adapters.start)


def check_same_placement(one: Placement, other: Placement, one_name: str, other_name: str, remedy: str) -> None:
    """Checks that two placements are the same, so that adapters mean the same in both.

    Args:
        one: the first placement.
        other: the second placement.
        one_name: name of the first, for messages.
        other_name: name of the second.
        remedy: what the user can do if they differ, for messages.

    Raises:
        UserError: they differ; the message names the first difference.
    """
    for flag, first, second in (("--dim", one.dim, other.dim), ("--start-idx", one.start, other.start)):
        if first != second:
            raise UserError(f"{one_name} has {flag} {first}, but {other_name} has {second}; {remedy}")
    for site in sorted(one.sides.keys() ^ other.sides.keys()):
        lacking, having = (other_name, one_name) if site in one.sides else (one_name, other_name)
        raise UserError(f"{lacking} has no adapters at {site}, but {having} has some; {remedy}")
    for site, side in one.sides.items():
        if other.sides[site] != side:
            here, there = (_SELECTED_BY[name] for name in (side, other.sides[site]))
            raise UserError(
                f"{here} selects the adapters of {site.stack} layer {site.layer} in {one_name}, but {there} does in "
                f"{other_name} (--adapter-key, --weight-learning, --{site.stack}-activation-direction); {remedy}"
            )
