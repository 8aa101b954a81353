"""The mean of several sets of adapters of one training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from langspec_lora.adapters.edit import check_alike
from langspec_lora.adapters.packed import Adapters, PackedMatrices
from langspec_lora.errors import UserError
from langspec_lora.naming import unlike

_ALIKE = ("names", "ranks", "groups", "group_ranks", "direction_ranks", "shared_rank")


def average(sets: Sequence[Adapters], names: Sequence[str]) -> Adapters:
    """Averages adapters entry by entry; an entry that is pruned in one of them is pruned in the average.

    Pruned entries of A are those that are zero.

    Args:
        sets: adapters of the same languages at the same sites.
        names: a name for each, for messages.

    Raises:
        UserError: they differ in more than their values.
    """
    first = sets[0]
    for other, name in zip(sets[1:], names[1:], strict=True):
        check_alike(first, other, names[0], name)
        check_same_keys(first, other, names[0], name, "average checkpoints of one training")
    packed = {}
    for site in first.packed:
        parts = [adapters.packed[site] for adapters in sets]
        mask = torch.stack([part.mask for part in parts]).amin(0)
        b = _mean([part.b for part in parts]).masked_fill(mask == 0, 0)
        lacking = torch.stack([part.a == 0 for part in parts]).any(0)
        packed[site] = PackedMatrices(_mean([part.a for part in parts]).masked_fill(lacking, 0), b, mask)
    mixture = {layer: _mean([adapters.mixture[layer] for adapters in sets]) for layer in first.mixture}
    epoch = max(adapters.mask_epoch for adapters in sets)
    return replace(first, packed=packed, mask_epoch=epoch, mixture=mixture)


def check_same_keys(first: Adapters, other: Adapters, first_name: str, name: str, remedy: str) -> None:
    """Checks that two sets of adapters belong to the same languages, groups or directions, with the same ranks.

    Args:
        first: one set.
        other: the other.
        first_name: name of the first, for messages.
        name: name of the other.
        remedy: what the user can do if they differ, for messages.

    Raises:
        UserError: they differ.
    """
    if any(getattr(other.languages, what) != getattr(first.languages, what) for what in _ALIKE):
        (mine, its), (mine_ranks, its_ranks) = (
            unlike(getattr(first.languages, what), getattr(other.languages, what), between)
            for what, between in (("names", ", "), ("ranks", "/"))
        )
        raise UserError(
            f"{name} has adapters for {its} of ranks {its_ranks}, and {first_name} for {mine} of ranks {mine_ranks}; "
            f"{remedy}"
        )


def _mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack([value.double() for value in values]).mean(0).to(values[0].dtype)
