"""Rank correlations of two lists of numbers: Spearman's rho and Kendall's tau-b, both with ties."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

NOT_DEFINED = "—"
"""In place of a correlation with a list whose numbers are all equal."""

_ALL_PAIRS = 64  # numbers up to which all pairs are compared at once


def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Spearman's rho: the correlation of the ranks; equal numbers share the mean of their ranks.

    Args:
        x: numbers.
        y: as many numbers.

    Returns:
        A number from -1 to 1, or None if all numbers of a list are equal.
    """
    ranks = [_mean_ranks(values) for values in (x, y)]
    centred = [own - own.mean() for own in ranks]
    norm = np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum())
    return float(np.clip((centred[0] * centred[1]).sum() / norm, -1, 1)) if norm else None


def kendall(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Kendall's tau-b: the pairs in the same order less those in opposite order, over those that are not tied.

    By Knight's method ("A computer method for calculating Kendall's tau with ungrouped data", 1966), in n log n steps.

    Args:
        x: numbers.
        y: as many numbers.

    Returns:
        A number from -1 to 1, or None if all numbers of a list are equal.
    """
    first, second = (np.unique(np.asarray(values), return_inverse=True)[1] for values in (x, y))
    order = np.lexsort((second, first))
    first, second = first[order], second[order]
    pairs = len(first) * (len(first) - 1) // 2
    tied = [_tied_pairs(own) for own in (first, second, first * len(second) + second)]
    free = (pairs - tied[0]) * (pairs - tied[1])
    if not free:
        return None
    agreeing = pairs - tied[0] - tied[1] + tied[2] - 2 * _inversions(second)[0]
    return float(np.clip(agreeing / np.sqrt(float(free)), -1, 1))


def _mean_ranks(values: Sequence[float]) -> NDArray[np.float64]:
    _, places, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]


def _tied_pairs(values: NDArray[Any]) -> int:
    counts = np.unique(values, return_counts=True)[1]
    return int((counts * (counts - 1) // 2).sum())


def _inversions(values: NDArray[Any]) -> tuple[int, NDArray[Any]]:
    """How many pairs are in falling order, and the numbers sorted."""
    if len(values) <= _ALL_PAIRS:
        return int(np.triu(values[:, None] > values).sum()), np.sort(values)
    middle = len(values) // 2
    (left, low), (right, high) = _inversions(values[:middle]), _inversions(values[middle:])
    between = len(low) * len(high) - int(np.searchsorted(low, high, side="right").sum())
    return left + right + between, np.sort(values, kind="stable")
