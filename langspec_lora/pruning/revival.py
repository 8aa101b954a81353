"""Draws components anew that can no longer train, because pruning has left neither their row of A nor that of B."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from langspec_lora.lora import LanguageSpecificLinear, draw_a
from langspec_lora.pruning.criteria import seed_of
from langspec_lora.sites import Site

logger = logging.getLogger(__name__)


@torch.no_grad()
def revive(
    linears: Mapping[Site, LanguageSpecificLinear], keys: Mapping[str, Sequence[int]], init: str, seed: int
) -> None:
    """Draws the row of A where all of it and all of the same row of B are zero, in place.

    The gradient of each is a product with the other, so both would stay zero in all further training. As B is zero, the
    model computes the same as before. Which numbers are drawn depends only on the seed, the site and the key.

    Args:
        linears: the adapted linears of a model by their site.
        keys: the keys that train, by side.
        init: how A is drawn, see :func:`~langspec_lora.lora.linear.draw_a`.
        seed: the training's seed.
    """
    count = 0
    for (site, linear), dead in zip(linears.items(), _dead_rows(linears.values()), strict=True):
        if not dead.any():
            continue
        for key in keys[linear.side]:
            rows = linear.layout.slice(key)
            if own := int(dead[rows].sum()):
                drawn = torch.empty(linear.lora_A[rows].shape)
                draw_a(drawn, init, torch.Generator().manual_seed(seed_of(seed, site, key)))
                linear.lora_A[rows][dead[rows]] = drawn[dead[rows]].to(linear.lora_A)
                count += own
    if count:
        logger.info("pruning | %d components have no entry left in A and B; their A is drawn anew", count)


def _dead_rows(linears: Collection[LanguageSpecificLinear]) -> Sequence[Tensor]:
    """The packed rows of each linear of which A and B are zero, bool ``(R,)`` on the CPU."""
    dead = [~((linear.lora_A != 0).any(1) | (linear.lora_B != 0).any(1)) for linear in linears]
    return torch.cat(dead).cpu().split([len(rows) for rows in dead])  # waits for a GPU once
