"""Rank correlations against their definitions, pair by pair, and against SciPy where it is installed."""

from __future__ import annotations

from itertools import combinations
from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langspec_lora.report.rank_correlation import kendall, spearman
from tests.properties import examples


def plain_kendall(x, y) -> float | None:
    """Pairs in the same order less those in opposite order, over the pairs that are tied in neither list."""
    agreeing = free_x = free_y = 0
    for i, j in combinations(range(len(x)), 2):
        one, other = np.sign(x[i] - x[j]), np.sign(y[i] - y[j])
        agreeing += one * other
        free_x += one != 0
        free_y += other != 0
    return agreeing / sqrt(free_x * free_y) if free_x and free_y else None


def plain_ranks(values) -> list[float]:
    """1 for the smallest; equal values share the mean of their ranks."""
    return [
        1 + sum(other < value for other in values) + (sum(other == value for other in values) - 1) / 2
        for value in values
    ]


def plain_spearman(x, y) -> float | None:
    if len(set(x)) < 2 or len(set(y)) < 2:
        return None
    return float(np.corrcoef(plain_ranks(x), plain_ranks(y))[0, 1])


VALUES = st.integers(2, 30).flatmap(
    lambda count: st.tuples(*[st.lists(st.integers(0, 12), min_size=count, max_size=count)] * 2)
)


@examples(60)
@given(VALUES)
def test_they_are_those_of_the_definitions(lists) -> None:
    x, y = lists
    for found, expected in ((spearman(x, y), plain_spearman(x, y)), (kendall(x, y), plain_kendall(x, y))):
        assert (found is None) == (expected is None)
        assert found is None or found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("count", [2, 64, 65, 129, 700])
def test_long_lists_are_divided_without_a_trace(count) -> None:
    random = np.random.default_rng(count)
    x, y = random.integers(0, count // 2 + 2, (2, count))
    assert kendall(x, y) == pytest.approx(plain_kendall(x, y), abs=1e-12)


def test_known_values() -> None:
    assert (spearman([1, 2, 3], [10, 20, 30]), kendall([1, 2, 3], [10, 20, 30])) == (1, 1)
    assert (spearman([1, 2, 3], [3, 2, 1]), kendall([1, 2, 3], [3, 2, 1])) == (-1, -1)
    assert kendall([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(4 / 6)
    assert spearman([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert spearman([0.1, 0.1], [1, 2]) is kendall([1, 2], [5, 5]) is None


def test_they_are_scipy_s() -> None:
    stats = pytest.importorskip("scipy.stats", reason="SciPy is not installed; the definitions are tested without it")
    random = np.random.default_rng(3)
    for spread in (5, 1000):
        x, y = random.integers(0, spread, (2, 300)) / 7
        assert kendall(x, y) == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)
        assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_a_hundred_thousand_numbers_take_no_time() -> None:
    random = np.random.default_rng(4)
    x = random.permutation(100_000)
    assert abs(kendall(x, random.permutation(100_000))) < 0.01
    assert kendall(x, -x) == -1
