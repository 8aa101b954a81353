"""What a report reads from the sentences of one direction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langspec_lora.data.directions import Direction
from langspec_lora.report import off_target, significance
from langspec_lora.report.degeneration import count_degenerate
from langspec_lora.report.off_target import Judge
from langspec_lora.report.seeds import combine
from langspec_lora.report.significance import SEED, MetricSettings, Resampled, Seed
from langspec_lora.report.texts import DirectionTexts, TextFile

SHOWN = 20
"""Sentences in a list of the worst."""

CHRF = MetricSettings("chrf", "", (("word_order", 2),))
"""Ranks sentences."""

Ranked = Sequence[tuple[float, int]]
"""Value and index of the lowest sentences of one direction, lowest first."""

VECTORS = ("resampled", "swapped")
"""Measurements that are vectors."""


@dataclass(frozen=True)
class MeasureOptions:
    """What to measure.

    Attributes:
        metric: the metric of the tests; None leaves them out.
        samples: resamples of the test of a direction.
        sentences: whether to look for the worst sentences.
        judges: for each target language how wrong language is told; empty leaves that out.
        runs: the files of hypotheses of each run, by their numbers; empty where each run has one.
        test: one of :data:`~langspec_lora.report.significance.TESTS`.
        draws: the seed of the resamples for the means of each direction; empty leaves them out.
        draw_samples: how many these are.
        drawn_metric: what scores them.
        degeneration: whether to look for output that has come apart.
        copy_metric: what scores the source texts as if they were translations; None leaves that out.
    """

    metric: MetricSettings | None
    samples: int
    sentences: bool
    judges: Mapping[str, Judge]
    runs: tuple[tuple[int, ...], ...] = ()
    test: str = "bootstrap"
    draws: Mapping[Direction, Seed] = field(default_factory=dict)
    draw_samples: int = 0
    drawn_metric: MetricSettings | None = None
    degeneration: bool = False
    copy_metric: MetricSettings | None = None


Task = tuple[DirectionTexts, MeasureOptions, Mapping[tuple[str, int], str]]
"""What to measure of one direction, and the keys of that which the cache lacks, by kind and run."""


def files_of_runs(texts: DirectionTexts, options: MeasureOptions) -> Sequence[Sequence[int]]:
    """The numbers of the files of hypotheses of each run."""
    return options.runs or [(number,) for number in range(len(texts.hypotheses))]


def measure_direction(task: Task) -> dict[str, Any]:
    """What a task asks for, by its keys."""
    texts, options, keys = task
    reference, runs = texts.reference, [[texts.hypotheses[n] for n in files] for files in files_of_runs(texts, options)]
    scored = [index for index, line in enumerate(_lines(reference)) if line.strip()]

    def resampled(run: int) -> Resampled:
        assert options.metric
        seeds = [_resampled(options.metric, options.samples, SEED, reference, file) for file in runs[run]]
        return sum(score for score, _ in seeds) / len(seeds), combine([scores for _, scores in seeds], run)

    def chrf(run: int) -> list[float]:
        seeds = [_chrf(reference, file) for file in runs[run]]
        return seeds[0] if len(seeds) == 1 else [sum(scores) / len(seeds) for scores in zip(*seeds, strict=True)]

    values: dict[str, Any] = {}
    for (kind, number), key in keys.items():
        if kind == "bootstrap":
            values[key] = significance.p_value(resampled(0), resampled(number))
        elif kind == "randomization" and options.metric:
            scores = [_scored(options.metric, reference, *runs[run]) for run in (0, number)]
            swapped = _swapped(options.metric, options.samples, SEED, reference, *runs[0], *runs[number])
            values[key] = significance.randomized_p_value(scores[1] - scores[0], swapped[1] - swapped[0])
        elif kind == "worst":
            empty = [all(line.strip() for line in lines) for lines in zip(*map(_lines, runs[number]), strict=True)]
            values[key] = lowest(chrf(number), [index for index in scored if empty[index]])
        elif kind == "losses":
            values[key] = lowest([new - old for old, new in zip(chrf(0), chrf(number), strict=True)], scored)
        elif kind == "wrong":
            judge = options.judges[texts.direction.target]
            values[key] = off_target.count_wrong(judge, _lines(texts.hypotheses[number]))
        elif kind == "degenerate":
            source = _lines(texts.source) if texts.source else None
            values[key] = count_degenerate(_lines(texts.hypotheses[number]), _lines(reference), source)
        elif kind == "copy" and options.copy_metric and texts.source:
            values[key] = _metric(options.copy_metric, reference).corpus_score(_lines(texts.source), None).score
        elif kind in VECTORS and options.drawn_metric:
            how = (options.drawn_metric, options.draw_samples, options.draws[texts.direction], reference)
            if kind == "resampled":
                values[key] = _resampled(*how, texts.hypotheses[number])[1]
            else:
                values[key] = np.concatenate(_swapped(*how, *runs[0], *runs[number]))
    return values


# At a time are in use the references, which the next direction may share, and the runs, each with its seeds.
_lines = lru_cache(maxsize=16)(TextFile.read)


@lru_cache(maxsize=2)  # the tested metric and chrF++
def _metric(settings: MetricSettings, references: TextFile) -> Any:
    return settings.build(_lines(references))


@lru_cache(maxsize=16)
def _statistics(settings: MetricSettings, reference: TextFile, hypotheses: TextFile) -> Any:
    """What a metric counts in each sentence, ``(sentences, counts)``."""
    return _metric(settings, reference)._extract_corpus_statistics(_lines(hypotheses), None)


def _scored(settings: MetricSettings, reference: TextFile, hypotheses: TextFile) -> float:
    return _metric(settings, reference)._aggregate_and_compute(_statistics(settings, reference, hypotheses)).score


@lru_cache(maxsize=16)
def _resampled(
    settings: MetricSettings, samples: int, seed: Seed, reference: TextFile, hypotheses: TextFile
) -> Resampled:
    statistics = _statistics(settings, reference, hypotheses)
    return significance.resample_statistics(settings, _metric(settings, reference), statistics, samples, seed)


def _swapped(
    settings: MetricSettings, samples: int, seed: Seed, reference: TextFile, first: TextFile, later: TextFile
) -> tuple[NDArray, NDArray]:
    base, own = (_statistics(settings, reference, file) for file in (first, later))
    return significance.swap_statistics(settings, base, own, samples, seed)


@lru_cache(maxsize=16)
def _chrf(reference: TextFile, hypotheses: TextFile) -> list[float]:
    """chrF++ of each sentence, as ``sacrebleu --sentence-level`` prints it."""
    metric = _metric(CHRF, reference)
    statistics = metric._extract_corpus_statistics(_lines(hypotheses), None)
    return [metric._compute_score_from_stats(counts).score for counts in statistics]


def lowest(values: Sequence[float], among: Iterable[int]) -> Ranked:
    """The lowest values of some sentences of a direction, as many as a list can show."""
    return sorted((values[index], index) for index in among)[:SHOWN]
