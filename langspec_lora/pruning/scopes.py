"""Which entries of B compete in pruning."""

from __future__ import annotations

from collections.abc import Hashable

from langspec_lora.sites import LEARNED, SOURCE, TARGET, Site

SCOPES = {
    "language": lambda site, owner: owner,
    "layer": lambda site, owner: (site.stack, site.layer),
    "matrix": lambda site, owner: (site, owner),
}
"""The key of a group of competing B matrices, by the name of the scope: all B of a language (or of whatever else an
adapter belongs to), over all layers and positions; all B of a layer of the encoder or decoder, over all positions and
languages; or a single B."""


def group_key(scope: str, site: Site, side: str, key: int) -> Hashable:
    """The key of the group in which the B matrix of an adapter's key competes.

    Args:
        scope: the name of the scope.
        site: the adapted linear.
        side: what selects its adapters.
        key: the adapter's key.
    """
    # A language has one adapter, whether its sentences select it as their source or as their target.
    return SCOPES[scope](site, (SOURCE if side in (TARGET, LEARNED) else side, key))
