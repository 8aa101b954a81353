"""Intervals and similarities from losses that are made up."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from langspec_lora.ablation.effects import UNKNOWN, Effects, similarity
from langspec_lora.data.directions import Direction

ONE, OTHER = Direction("a", "b"), Direction("b", "a")
ALL = frozenset({("site", "source")})
PART = frozenset({("other", "source")})


def effects(full, base, part, tokens=None) -> Effects:
    """Losses in bits of each sentence of two directions, of ten tokens each."""
    plan = SimpleNamespace(directions=(ONE, OTHER), everything=ALL)
    tokens = tokens or {d: np.full(len(own), 10) for d, own in full.items()}
    nats = [{d: np.asarray(own, float) * math.log(2) for d, own in losses.items()} for losses in (full, base, part)]
    return Effects(plan, tokens, dict(zip((frozenset(), ALL, PART), nats, strict=True)), {})


def test_change_is_a_mean_over_directions_of_bits_per_token_however_long_they_are() -> None:
    tokens = {ONE: np.array([10, 30]), OTHER: np.array([2, 2])}
    found = effects(
        {ONE: [40, 40], OTHER: [4, 4]}, {ONE: [80, 80], OTHER: [12, 12]}, {ONE: [60, 20], OTHER: [8, 8]}, tokens
    )
    assert found.loss(frozenset()).value == pytest.approx((80 / 40 + 8 / 4) / 2)
    assert found.change([(PART, ONE), (PART, OTHER)]).value == pytest.approx((0 + 2) / 2)
    assert found.change([]) == UNKNOWN


def test_interval_is_that_of_the_normal_distribution_where_sentences_are_many() -> None:
    draw = np.random.default_rng(5)
    spread, count = 3.0, 900
    full = {d: np.full(count, 20.0) for d in (ONE, OTHER)}
    grown = {d: full[d] + draw.normal(5, spread, count) for d in full}  # the same sentences, but each its own noise
    found = effects(full, grown, grown)
    change = found.change((PART, direction) for direction in full)
    half = 1.96 * spread / 10 / math.sqrt(count) / math.sqrt(2)
    assert (change.high - change.low) / 2 == pytest.approx(half, rel=0.1)
    assert change.low < change.value < change.high


def test_directions_that_share_sentences_share_their_luck() -> None:
    """The same noise in both directions does not cancel out."""
    draw = np.random.default_rng(5)
    spread, count = 3.0, 900
    noise = draw.normal(5, spread, count)
    full = {d: np.full(count, 20.0) for d in (ONE, OTHER)}
    found = effects(full, full, {d: full[d] + noise for d in full})
    change = found.change((PART, direction) for direction in full)
    assert (change.high - change.low) / 2 == pytest.approx(1.96 * spread / 10 / math.sqrt(count), rel=0.1)


def test_share_of_the_gain_and_its_interval() -> None:
    full, base = {ONE: [10.0] * 4, OTHER: [20.0] * 4}, {ONE: [30.0] * 4, OTHER: [40.0] * 4}
    part = {ONE: [15.0] * 4, OTHER: [25.0] * 4}
    share = effects(full, base, part).share(PART, frozenset())
    assert share == pytest.approx((0.25, 0.25, 0.25))
    assert effects(base, full, part).share(PART, frozenset()) == UNKNOWN


def test_numbers_of_sentences_that_differ_leave_no_interval() -> None:
    found = effects({ONE: [1.0, 2], OTHER: [1.0]}, {ONE: [1.0, 2], OTHER: [1.0]}, {ONE: [1.0, 3], OTHER: [1.0]})
    assert found.change([(PART, ONE)]).low is None


def test_similarity_is_one_as_good_as_oneself_and_zero_as_bad_as_nothing() -> None:
    assert similarity((0.0, 2.0), (0.0, 1.0)) == 1
    assert similarity((2.0, 2.0), (1.0, 1.0)) == 0
    assert similarity((4.0, 2.0), (2.0, 1.0)) == -1
    assert similarity((1.0, -2.0), (1.0, 1.0)) is None
