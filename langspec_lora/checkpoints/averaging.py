"""The mean of several checkpoints of one training, as fairseq's ``average_checkpoints.py`` takes it of whole ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from langspec_lora.checkpoints.adapters import Adapters, PackedPairs
from langspec_lora.checkpoints.membership import check_alike
from langspec_lora.errors import UserError


def average(sets: Sequence[Adapters], names: Sequence[str]) -> Adapters:
    """Averages adapters entry by entry; what is pruned in one of them is pruned in the average.

    Args:
        sets: adapters of the same languages at the same places.
        names: how to call each in a message.

    Raises:
        UserError: they differ in more than their values.
    """
    first = sets[0]
    for other, name in zip(sets[1:], names[1:], strict=True):
        check_alike(first, other, names[0], name)
        if (other.languages.names, other.languages.ranks) != (first.languages.names, first.languages.ranks):
            raise UserError(
                f"{name} has pairs for {', '.join(other.languages.names)} of ranks {_ranks(other)}, and {names[0]} for "
                f"{', '.join(first.languages.names)} of ranks {_ranks(first)}; average checkpoints of one training"
            )
    pairs = {}
    for place in first.pairs:
        parts = [adapters.pairs[place] for adapters in sets]
        mask = torch.stack([own.mask for own in parts]).amin(0)
        b = _mean([own.b for own in parts]).masked_fill(mask == 0, 0)
        pairs[place] = PackedPairs(_mean([own.a for own in parts]), b, mask)
    return replace(first, pairs=pairs, mask_epoch=max(adapters.mask_epoch for adapters in sets))


def _mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack([value.double() for value in values]).mean(0).to(values[0].dtype)


def _ranks(adapters: Adapters) -> str:
    return "/".join(map(str, adapters.languages.ranks))
