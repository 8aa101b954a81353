"""Which entries of B compete in pruning."""

from __future__ import annotations

from collections.abc import Hashable

from langspec_lora.sites import Site

SCOPES = {
    "language": lambda site, language: language,
    "layer": lambda site, language: (site.stack, site.layer),
    "matrix": lambda site, language: (site, language),
}
"""What the B matrices of a group have in common, by the name of the scope: all B of a language, over all layers and
positions; all B of a layer, over all its positions and languages, encoder and decoder apart; or each B by itself."""


def group_key(scope: str, site: Site, language: int) -> Hashable:
    """What a language's B matrix at a site has in common with those that it competes with."""
    return SCOPES[scope](site, language)
