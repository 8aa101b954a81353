"""Ranks for a budget of trainable parameters, so that different adapters can be compared at equal size."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langspec_lora.config import AdapterConfig
from langspec_lora.errors import UserError
from langspec_lora.keys import keys_of
from langspec_lora.languages import LEVELS
from langspec_lora.sites import SHARED, linear_size


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
        return {name: max(1, math.floor(scale * part + 1e-9)) for name, part in proportions.items()}

    def cost(scale: float) -> int:
        return count_parameters(Namespace(**{**vars(own), **ranks_of(scale)}))

    if (least := cost(0)) > budget:
        return Fit(variant, {}, least)
    low, high = 0.0, budget / min(proportions.values())
    while high - low > 1e-3 / max(proportions.values()):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(middle) <= budget else (low, middle)
    # A rank grows where its scale is a whole number, which halving only comes near to.
    steps = [math.ceil(low * part) / part for part in proportions.values()]
    best = max(scale for scale in (low, *steps) if cost(scale) <= budget)
    return Fit(variant, ranks_of(best), cost(best))
