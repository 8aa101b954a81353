"""Where adapters stand and which side selects them: what decides what their numbers mean.

The entries of a checkpoint say which layers and positions are adapted and how wide, but not which side selects the
adapter of a layer nor which features it covers: with another ``--encoder-activation-direction`` they fit all the same,
and each adapter serves another language.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from langspec_lora.adapters.packed import Adapters
from langspec_lora.config import AdapterConfig
from langspec_lora.errors import UserError
from langspec_lora.sites import SOURCE, Site


@dataclass(frozen=True)
class Placement:
    """Where the adapters of a model stand.

    Attributes:
        sides: for each adapted site ``src`` or ``tgt``: whose language selects the adapter.
        dim: width of the slice of features, 0 for whole layers.
        start: first feature of that slice.
    """

    sides: Mapping[Site, str]
    dim: int
    start: int

    @classmethod
    def of_config(cls, config: AdapterConfig) -> Placement:
        """Of the flags of a command, or of the arguments of a checkpoint."""
        sides = {site: config.side(site) for site in config.sites}
        return cls(sides, config.dim, config.start)

    @classmethod
    def of_adapters(cls, adapters: Adapters) -> Placement:
        """Of adapters as plain data."""
        return cls({site: adapters.side(site) for site in adapters.packed}, adapters.dim, adapters.start)


def check_same_placement(one: Placement, other: Placement, one_name: str, other_name: str, remedy: str) -> None:
    """Makes sure that adapters stand alike, so that the numbers of one mean the same in the other.

    Args:
        one: where the first stand.
        other: where the others stand.
        one_name: how to call the first in a message.
        other_name: how to call the others.
        remedy: what to do where they do not.

    Raises:
        UserError: they do not; the first difference is named.
    """
    for flag, first, second in (("--dim", one.dim, other.dim), ("--start-idx", one.start, other.start)):
        if first != second:
            raise UserError(f"{one_name} has {flag} {first} and {other_name} {second}; {remedy}")
    for site in sorted(one.sides.keys() ^ other.sides.keys()):
        lacking, having = (other_name, one_name) if site in one.sides else (one_name, other_name)
        raise UserError(f"{lacking} has no adapters at {site}, where {having} has some; {remedy}")
    for site, side in one.sides.items():
        if other.sides[site] != side:
            here, there = ("source" if name == SOURCE else "target" for name in (side, other.sides[site]))
            raise UserError(
                f"the {here} language selects the adapters of {site.stack} layer {site.layer} in {one_name}, the "
                f"{there} language in {other_name} (--{site.stack}-activation-direction); {remedy}"
            )
