"""Which entries of B are pruned: those of the smallest magnitude among the entries that compete."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from langspec_lora.lora import LanguageSpecificLinear
from langspec_lora.pruning.scopes import group_key
from langspec_lora.sites import LEARNED, Site


class Block(NamedTuple):
    """One key's B matrix at one site: rows of a packed tensor.

    Attributes:
        linear: the adapted linear.
        rows: the key's rows of its ``lora_B`` and ``lora_mask``.
    """

    linear: LanguageSpecificLinear
    rows: slice

    @property
    def values(self) -> Tensor:
        """The entries, ``(r_l, d_out)``, a view."""
        return self.linear.lora_B.data[self.rows]

    @property
    def mask(self) -> Tensor:
        """1 for entries that are kept, 0 for pruned entries, ``(r_l, d_out)``, a view."""
        return self.linear.lora_mask[self.rows]


def group_blocks(
    linears: Mapping[Site, LanguageSpecificLinear], keys: Mapping[str, Sequence[int]], scope: str
) -> list[list[Block]]:
    """Groups all B matrices by the entries that compete with each other.

    Args:
        linears: the adapted linears of a model by their site.
        keys: the keys that take part, by side.
        scope: one of :data:`~langspec_lora.pruning.scopes.SCOPES`.

    Returns:
        One list of blocks for each group.
    """
    groups: dict[Hashable, list[Block]] = defaultdict(list)
    for site, linear in linears.items():
        for key in keys[linear.side]:
            # The adapters of a language as a source and as a target compete with each other.
            owner = key % linear.routing.layout.keys_as_source if linear.side == LEARNED else key
            groups[group_key(scope, site, linear.side, owner)].append(Block(linear, linear.layout.slice(key)))
    return list(groups.values())


def all_keys(linears: Iterable[LanguageSpecificLinear]) -> dict[str, Sequence[int]]:
    """Every key of the linears, by side."""
    return {linear.side: range(len(linear.layout.ranks)) for linear in linears}


def prune_smallest(blocks: Sequence[Block], ratio: float) -> None:
    """Sets the masks so that the given share of the entries, those of the smallest magnitude, is pruned.

    Entries that are already pruned come first, so they stay pruned as long as the ratio grows. Ties are broken by the
    order of the sites, so that all processes of a distributed run choose the same entries.

    Args:
        blocks: the B matrices whose entries compete.
        ratio: share of entries to prune, in [0, 1]; the count is rounded to the nearest whole number.
    """
    magnitude = torch.cat([_ranking(block) for block in blocks])
    count = round(ratio * magnitude.numel())
    keep = torch.ones_like(magnitude)
    keep[torch.argsort(magnitude, stable=True)[:count]] = 0
    for block, part in zip(blocks, keep.split([block.mask.numel() for block in blocks]), strict=True):
        block.mask.copy_(part.view_as(block.mask))


def _ranking(block: Block) -> Tensor:
    return block.values.float().abs().masked_fill(block.mask == 0, -1).flatten()


@torch.no_grad()
def apply_masks(linears: Iterable[LanguageSpecificLinear], rows: Mapping[str, Tensor] | None = None) -> None:
    """Sets every pruned entry of B to exactly zero, in place.

    Args:
        linears: the adapted linears of a model.
        rows: by side, True for the packed rows to change, bool ``(R, 1)``; None for all.
    """
    for linear in linears:
        pruned = linear.lora_mask == 0
        if rows is not None:
            pruned &= rows[linear.side].to(pruned.device)
        linear.lora_B.masked_fill_(pruned, 0)


def pruned_in_rows(linears: Iterable[LanguageSpecificLinear]) -> dict[str, Tensor]:
    """How many entries of each packed row of B are pruned and exactly zero, by side, int64 ``(R,)`` on the CPU.

    The entries of all linears of a side are added up. Those that are zero only because they are not trained yet do not
    count.
    """
    counts: dict[str, Tensor] = {}
    for linear in linears:
        own = ((linear.lora_B.data == 0) & (linear.lora_mask == 0)).sum(1)
        counts[linear.side] = counts[linear.side] + own if linear.side in counts else own
    parts = torch.cat(list(counts.values())).cpu().split([len(own) for own in counts.values()])  # waits for a GPU once
    return dict(zip(counts, parts, strict=True))
