"""Means over groups of directions: their intervals, and whether they differ, by resamples that the directions share.

Directions of a multi-parallel test set have the same sentences, so that their scores vary together. A resample draws
sentences once for all of them, and gives every direction a score and every group a mean. The 2.5th and the 97.5th
percentile of a mean over the resamples are its interval (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
chapter 13). Two runs are compared on the same resamples (Koehn, EMNLP 2004).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from langspec_lora.data.directions import Direction
from langspec_lora.report.seeds import combine
from langspec_lora.report.significance import p_value, randomized_p_value

Interval = tuple[float, float]

Group = tuple[str, str]
"""What a mean is taken over: ``group`` and its label, or ``from`` or ``into`` and a language."""

LEVEL = 95
"""Per cent of the resamples that an interval holds."""

FLOOR = 1.0
"""The lowest score that a relative mean knows: smoothing makes the scores below it, and ratios of them say nothing."""


@dataclass(frozen=True)
class MeanFigures:
    """What resamples say of one run's mean over a group.

    Attributes:
        interval: of the mean.
        difference: interval of the mean less the first run's; None for the first run.
        p: of this difference, not corrected for the number of groups.
        relative: interval of the relative mean, see :func:`relative_mean`.
    """

    interval: Interval
    difference: Interval | None = None
    p: float | None = None
    relative: Interval | None = None


@dataclass(frozen=True)
class Means:
    """The means of a report.

    Attributes:
        samples: resamples.
        test: one of :data:`~langspec_lora.report.significance.TESTS`, which gives the p-values.
        note: which directions share their sentences.
        of: the figures of each run, by group; groups are left out of which a direction could not be resampled.
    """

    samples: int
    test: str
    note: str
    of: Mapping[Group, Sequence[MeanFigures]]


@dataclass(frozen=True)
class Resamples:
    """How to read the scores of resamples.

    Attributes:
        runs: the number of seeds of each run.
        scores: of a direction, those of a seed of a run, ``(samples,)``.
        swapped: of a direction, those of the first run and of a later one in trials that swap their sentences, each
            ``(samples,)``; None for the bootstrap.
        samples: how many there are.
    """

    runs: Sequence[int]
    scores: Callable[[Direction, int, int], NDArray]
    swapped: Callable[[Direction, int], tuple[NDArray, NDArray]] | None
    samples: int


def mean_groups(
    groups: Mapping[str, Sequence[Direction]], languages: Iterable[str], directions: Iterable[Direction]
) -> dict[Group, Sequence[Direction]]:
    """All groups of which a report shows a mean."""
    members: dict[Group, list[Direction]] = {(side, name): [] for side in ("from", "into") for name in languages}
    for direction in directions:
        members["from", direction.source].append(direction)
        members["into", direction.target].append(direction)
    return {**{("group", label): group for label, group in groups.items()}, **members}


def relative_mean(
    scores: Mapping[Direction, float], base: Mapping[Direction, float], members: Iterable[Direction]
) -> float:
    """How a run's scores relate to another's: the geometric mean of their ratios over some directions.

    The scale of a score depends on the target language. In a plain mean, directions with high scores count most; in
    this one an improvement by a tenth counts the same in every direction. Only the geometric mean of ratios ranks runs
    alike whichever of them is the base (Fleming and Wallace, Communications of the ACM 29(3), 1986).
    """
    logs = [math.log(max(scores[d], FLOOR) / max(base[d], FLOOR)) for d in members]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def mean_figures(
    resamples: Resamples,
    scores: Sequence[Mapping[Direction, float]],
    groups: Mapping[Group, Sequence[Direction]],
    resampled: Iterable[Direction],
) -> dict[Group, list[MeanFigures]]:
    """The intervals of each run's mean over each group, and of its differences from the first run's.

    At no time are more scores of resamples held than those of one direction, and of the groups.

    Args:
        resamples: how to read them.
        scores: each run's scores, without resampling.
        groups: directions by group.
        resampled: the directions that have been resampled; groups with others are left out.
    """
    resampled = dict.fromkeys(resampled)
    complete = {group: members for group, members in groups.items() if members and all(d in resampled for d in members)}
    places: dict[Direction, list[int]] = {direction: [] for direction in resampled}
    for place, members in enumerate(complete.values()):
        for direction in members:
            places[direction].append(place)
    size = (len(resamples.runs), len(complete), resamples.samples)
    sums, logs = np.zeros(size), np.zeros(size)
    trials = np.zeros(size) if resamples.swapped else None
    for direction, own in places.items():
        if not own:
            continue
        for run, seeds in enumerate(resamples.runs):
            vector = combine([resamples.scores(direction, run, seed) for seed in range(seeds)], run)
            sums[run, own] += vector
            logs[run, own] += np.log(np.maximum(vector, FLOOR))
            if run and resamples.swapped and trials is not None:
                first, later = resamples.swapped(direction, run)
                trials[run, own] += later.astype(float) - first
    found: dict[Group, list[MeanFigures]] = {}
    for place, (group, members) in enumerate(complete.items()):
        count = len(members)
        real = [sum(run[d] for d in members) / count for run in scores]
        figures = []
        for run in range(len(resamples.runs)):
            means, firsts = sums[run, place] / count, sums[0, place] / count
            if not run:
                figures.append(MeanFigures(_interval(means)))
                continue
            if trials is None:
                p = p_value((real[0], firsts), (real[run], means))
            else:
                p = randomized_p_value(real[run] - real[0], trials[run, place] / count)
            relative = np.exp((logs[run, place] - logs[0, place]) / count)
            figures.append(MeanFigures(_interval(means), _interval(means - firsts), p, _interval(relative)))
        found[group] = figures
    return found


def _interval(values: NDArray) -> Interval:
    low, high = np.percentile(values, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return float(low), float(high)
