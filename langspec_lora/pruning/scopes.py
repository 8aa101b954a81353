"""Which entries of B compete in pruning."""

from __future__ import annotations

from collections.abc import Hashable

from langspec_lora.sites import Site

SCOPES = {
    "language": lambda site, language: language,
    "layer": lambda site, language: (site.stack, site.layer),
    "matrix": lambda site, language: (site, language),
}
"""The key of a group of competing B matrices, by the name of the scope: all B of a language, over all layers and
positions; all B of a layer of the encoder or decoder, over all positions and languages; or a single B."""


def group_key(scope: str, site: Site, language: int) -> Hashable:
    """The key of the group in which a language's B matrix at a site competes."""
    return SCOPES[scope](site, language)
