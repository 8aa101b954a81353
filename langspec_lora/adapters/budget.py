"""Ranks for a budget of trainable parameters, so that different adapters can be compared at equal size."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from langspec_lora.config import AdapterConfig
from langspec_lora.errors import UserError
from langspec_lora.keys import keys_of
from langspec_lora.languages import LEVELS
from langspec_lora.sites import SHARED, linear_size

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Variant:
    """Adapters to find the ranks of.

    Attributes:
        name: what to call them.
        flags: what differs from the command's own flags, by the names of their attributes.
    """

    name: str
    flags: Mapping[str, Any]


@dataclass(frozen=True)
class Fit:
    """The ranks of a variant.

    Attributes:
        variant: the variant.
        ranks: the flags of the ranks, by the names of their attributes; empty if the budget is too small.
        parameters: how many parameters its adapters have with these ranks, or at least.
    """

    variant: Variant
    ranks: Mapping[str, int]
    parameters: int


def count_parameters(args: Namespace) -> int:
    """The number of entries of all A and B.

    Args:
        args: fairseq's arguments of a training, with the sizes of the model.

    Raises:
        UserError: a flag has a wrong value.
    """
    config = AdapterConfig.from_args(args)
    rows = {side: sum(keys_of(config.languages, side).ranks) for side in config.sides}
    return sum(
        rows[config.side(site)] * sum(config.dim or width for width in linear_size(args, site)) for site in config.sites
    )


def fit_ranks(args: Namespace, variants: Sequence[Variant], budget: int) -> list[Fit]:
    """Finds the largest ranks of each variant that a budget allows.

    The ranks of the levels keep their proportions, as far as whole numbers of at least 1 can.

    Args:
        args: fairseq's arguments of a training, with the sizes of the model; the ranks are the proportions.
        variants: the variants.
        budget: number of trainable parameters.

    Raises:
        UserError: a flag has a wrong value, or no variant fits even with rank 1.
    """
    fits = [_fit(args, variant, budget) for variant in variants]
    if not any(fit.ranks for fit in fits):
        least = min(fit.parameters for fit in fits)
        raise UserError(
            f"--budget {budget:,} is below rank 1: the smallest adapters of this model have {least:,} parameters; "
            "give a larger budget, fewer layers or positions"
        )
    return fits


def _fit(args: Namespace, variant: Variant, budget: int) -> Fit:
    own = Namespace(**{**vars(args), "shared_rank": None, **variant.flags})
    proportions = {f"{level}_rank": getattr(args, f"{level}_rank") for level in LEVELS}
    if AdapterConfig.from_args(own).sides == {SHARED}:
        proportions = {"shared_rank": 1}

    def ranks_of(scale: float) -> dict[str, int]:
        return scaled(proportions, scale)

    def cost(ranks: Mapping[str, int]) -> int:
        return count_parameters(Namespace(**{**vars(own), **ranks}))

    if (least := cost(ranks_of(0))) > budget:
        return Fit(variant, {}, least)
    ranks = ranks_of(largest_scale(proportions, cost, budget))
    return Fit(variant, ranks, cost(ranks))


def scaled(proportions: Mapping[Key, float], scale: float, most: int | None = None) -> dict[Key, int]:
    """Ranks in some proportions, whole numbers of at least 1.

    Args:
        proportions: what each rank is proportional to.
        scale: what to multiply with before rounding down.
        most: the largest rank; None for any.
    """
    ranks = {name: max(1, math.floor(scale * part + 1e-9)) for name, part in proportions.items()}
    return ranks if most is None else {name: min(most, rank) for name, rank in ranks.items()}


def largest_scale(
    proportions: Mapping[Key, float], cost: Callable[[Mapping[Key, int]], int], budget: int, most: int | None = None
) -> float:
    """The largest scale of :func:`scaled` whose ranks a budget allows.

    Args:
        proportions: what each rank is proportional to; at least one is above 0.
        cost: the number of parameters of some ranks, which grows with each rank.
        budget: number of trainable parameters; all ranks 1 have at most as many.
        most: the largest rank; None for any.
    """

    def fits(scale: float) -> bool:
        return cost(scaled(proportions, scale, most)) <= budget

    parts = [part for part in proportions.values() if part > 0]
    low, high = 0.0, (budget if most is None else min(budget, most)) / min(parts)
    while high - low > 1e-3 / max(parts):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    # A rank grows where its scale is a whole number, which halving only comes near to.
    steps = [math.ceil(low * part) / part for part in parts]
    return max(scale for scale in (low, *steps) if fits(scale))


def proportional_ranks(
    proportions: Mapping[Key, float],
    cost: Callable[[Mapping[Key, int]], int],
    budget: int,
    most: int,
) -> dict[Key, int]:
    """Ranks in some proportions that use as much of a budget as whole numbers can.

    What is left after rounding down goes to the ranks that rounding has cut most (the method of largest remainders).

    Args:
        proportions: what each rank is proportional to; where all are 0, the ranks are equal.
        cost: the number of parameters of some ranks, which grows with each rank.
        budget: number of trainable parameters.
        most: the largest rank.

    Raises:
        UserError: the budget does not allow all ranks 1.
    """
    if (least := cost(dict.fromkeys(proportions, 1))) > budget:
        raise UserError(
            f"--budget {budget:,} is below rank 1: the smallest adapters of these layers and positions have {least:,} "
            "parameters; give a larger budget"
        )
    if not any(part > 0 for part in proportions.values()):
        proportions = dict.fromkeys(proportions, 1.0)
    scale = largest_scale(proportions, cost, budget, most)
    ranks = scaled(proportions, scale, most)
    cut = {name: scale * part - ranks[name] for name, part in proportions.items() if part > 0}
    for name in sorted(cut, key=cut.__getitem__, reverse=True):
        larger = {**ranks, name: min(most, ranks[name] + 1)}
        if cut[name] > 0 and cost(larger) <= budget:
            ranks = larger
    return ranks
