"""Which entries are pruned: those of the smallest scores, by default magnitudes, among the entries that compete."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from langspec_lora.lora import LanguageSpecificLinear
from langspec_lora.pruning.blocks import Block
from langspec_lora.pruning.choices import ENTRY, RANK
from langspec_lora.pruning.criteria import Known, magnitude


def prune_smallest(
    blocks: Sequence[Block],
    ratio: float,
    score: Callable[[Block, Known], Tensor] = magnitude,
    known: Known | None = None,
) -> None:
    """Sets the masks so that the given share of the entries, or of the components, is pruned: those of smallest score.

    Entries that are already pruned come first, so they stay pruned as long as the ratio grows. Ties are broken by the
    order of the sites, so that all processes of a distributed run choose the same entries.

    Args:
        blocks: the matrices whose entries compete.
        ratio: share of entries to prune, in [0, 1]; the count is rounded to the nearest whole number.
        score: gives a block's entries their scores, ``(r_l, f)``, none of them negative; or its components, ``(r_l,
            1)``, whose rows are then pruned as a whole.
        known: what the function of the scores may use besides the block.
    """
    known = known or Known()
    scores = [_ranking(block, score(block, known)) for block in blocks]
    flat = torch.cat([part.flatten() for part in scores])
    count = round(ratio * flat.numel())
    keep = torch.ones_like(flat)
    keep[torch.argsort(flat, stable=True)[:count]] = 0
    for block, part, own in zip(blocks, keep.split([part.numel() for part in scores]), scores, strict=True):
        block.mask.copy_(part.view_as(own))  # a component's for its whole row


def _ranking(block: Block, scores: Tensor) -> Tensor:
    pruned = block.mask == 0
    return scores.masked_fill(pruned if scores.shape == pruned.shape else pruned.all(1, keepdim=True), -1)


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


def pruned_in_rows(linears: Iterable[LanguageSpecificLinear], unit: str = ENTRY) -> dict[str, Tensor]:
    """How much of each packed row of B is pruned and exactly zero, by side, int64 ``(R,)`` on the CPU.

    The numbers of all linears of a side are added up. Entries that are zero only because they are not trained yet do
    not count.

    Args:
        linears: the adapted linears.
        unit: ``entry`` counts entries; ``rank`` counts the linears in which the whole row is pruned.
    """
    counts: dict[str, Tensor] = {}
    for linear in linears:
        pruned = (linear.lora_B.data == 0) & (linear.lora_mask == 0)
        own = pruned.all(1).long() if unit == RANK else pruned.sum(1)
        counts[linear.side] = counts[linear.side] + own if linear.side in counts else own
    parts = torch.cat(list(counts.values())).cpu().split([len(own) for own in counts.values()])  # waits for a GPU once
    return dict(zip(counts, parts, strict=True))


def pruned_share(blocks: Iterable[Block]) -> float:
    """The share of entries in one or more matrices that are pruned and exactly zero."""
    counts, total = [], 0
    for block in blocks:
        counts.append(((block.values == 0) & (block.mask == 0)).sum())
        total += block.values.numel()
    return int(torch.stack(counts).sum()) / total  # waits for a GPU once, not for each block
