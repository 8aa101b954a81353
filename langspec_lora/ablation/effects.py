"""From losses to effects: what is lost without some adapters or with another's, in bits per token, with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from langspec_lora.ablation.plan import NOTHING, Parts, Plan
from langspec_lora.data.directions import Direction

RESAMPLES = 1000
SEED = 1

Swap = tuple[str, str]
"""A role, and the owner whose adapter replaces those of all others."""


class Estimate(NamedTuple):
    """A value with its 95 % interval; None where there is too little text for one, or where it is not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None


UNKNOWN = Estimate(None)


class Effects:
    """Losses of directions, and differences between them.

    A loss is a mean over directions of bits per target token. For intervals, sentences are drawn again, the same
    places in all directions, since the directions of multi-parallel text share their sentences.

    Args:
        plan: what was measured.
        tokens: target tokens of each sentence of each direction.
        left_out: for what was left out, the loss of each sentence in nats, by direction.
        swapped: likewise, where adapters were replaced.

    Attributes:
        plan: what was measured.
        tokens: see above.
    """

    def __init__(
        self,
        plan: Plan,
        tokens: Mapping[Direction, np.ndarray],
        left_out: Mapping[Parts, Mapping[Direction, np.ndarray]],
        swapped: Mapping[Swap, Mapping[Direction, np.ndarray]],
    ) -> None:
        self.plan, self.tokens = plan, tokens
        self._losses: dict[Parts | Swap, Mapping[Direction, np.ndarray]] = dict(left_out.items())
        self._losses |= dict(swapped.items())

    @cached_property
    def _weights(self) -> np.ndarray | None:
        """How often each place is drawn, ``(resamples, sentences)``; None if directions differ in number, or have one.

        With fewer than two sentences, nothing can be said of their spread.
        """
        counts = {len(found) for found in self.tokens.values()}
        if len(counts) > 1 or min(counts) < 2:
            return None
        (count,) = counts
        return np.random.default_rng(SEED).multinomial(count, [1 / count] * count, RESAMPLES).astype(float)

    def bits(self, key: Parts | Swap, direction: Direction) -> float:
        """The loss of one direction in bits per token."""
        return float(self._losses[key][direction].sum() / self.tokens[direction].sum() / math.log(2))

    def _drawn(self, key: Parts | Swap, direction: Direction) -> np.ndarray:
        """The same in each resample, ``(resamples,)``."""
        assert self._weights is not None
        nats, tokens = self._weights @ self._losses[key][direction], self._weights @ self.tokens[direction]
        return nats / tokens / math.log(2)

    def loss(self, left_out: Parts, directions: Sequence[Direction] | None = None) -> Estimate:
        """The mean loss without some adapters, over some directions or all."""
        return self._estimate([(left_out, direction) for direction in directions or self.plan.directions])

    def change(self, measured: Iterable[tuple[Parts | Swap, Direction]]) -> Estimate:
        """How much the loss grows, on the mean over what was measured in directions; :data:`UNKNOWN` over none."""
        return self._estimate(list(measured), NOTHING)

    def _estimate(self, measured: Sequence[tuple[Parts | Swap, Direction]], less: Parts | None = None) -> Estimate:
        if not measured:
            return UNKNOWN
        value = float(np.mean([self.bits(key, d) - (0 if less is None else self.bits(less, d)) for key, d in measured]))
        if self._weights is None:
            return Estimate(value)
        total = np.zeros(RESAMPLES)
        for key, direction in measured:
            total += self._drawn(key, direction) - (0 if less is None else self._drawn(less, direction))
        return Estimate(value, *_interval(total / len(measured)))

    def share(self, of: Parts, less: Parts) -> Estimate:
        """The difference of two mean losses as a share of what all adapters gain; not defined if they gain nothing."""
        directions, everything = self.plan.directions, self.plan.everything

        def mean(key: Parts) -> float:
            return float(np.mean([self.bits(key, direction) for direction in directions]))

        gain = mean(everything) - mean(NOTHING)
        if gain <= 0:
            return UNKNOWN
        value = (mean(of) - mean(less)) / gain
        if self._weights is None:
            return Estimate(value)

        def drawn(key: Parts) -> np.ndarray:
            return np.mean([self._drawn(key, direction) for direction in directions], axis=0)

        gains = drawn(everything) - drawn(NOTHING)
        if gains.min() <= 0:
            return Estimate(value)  # the gain itself is not certain, so its parts are not
        return Estimate(value, *_interval((drawn(of) - drawn(less)) / gains))

    def of_owner(self, parts: Parts, owner: str, roles: Iterable[str] | None = None) -> Estimate:
        """How much the loss grows if one owner's adapter is left out at some sites, where it acts.

        Args:
            parts: the sites with all their roles.
            owner: a language, a group, …
            roles: the roles in which it is left out; by default all.
        """
        measured = []
        for role in roles or self.plan.roles:
            if own := self.plan.of_role(parts, role):
                measured += [(own, direction) for direction in self.plan.acting[role, owner]]
        return self.change(measured)

    def of_swap(self, owner: str, other: str, roles: Iterable[str]) -> Estimate:
        """How much the loss grows if another's adapter replaces an owner's, where that acts."""
        measured: list[tuple[Parts | Swap, Direction]] = []
        for role in roles:
            if (role, other) in self._losses and owner != other:
                measured += [((role, other), direction) for direction in self.plan.acting[role, owner]]
        return self.change(measured)


def similarity(one: tuple[float, float], other: tuple[float, float]) -> float | None:
    """How well two adapters replace each other: 1 is as well as each itself, 0 as nothing does, below 0 is worse.

    Args:
        one: how much the loss grows with the other's adapter, and without any.
        other: the same of the other.

    Returns:
        The mean of both, weighted by what each loses without its own; None if they lose nothing.
    """
    missing = one[1] + other[1]
    return 1 - (one[0] + other[0]) / missing if missing > 0 else None


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
