"""What a report says of one or more runs, as plain data: scores, tests, wrong language, worst sentences."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.evaluation.metrics import METRICS
from langspec_lora.evaluation.results import Run
from langspec_lora.naming import some_of
from langspec_lora.report import significance
from langspec_lora.report.degeneration import Degeneration, shares
from langspec_lora.report.groups import (
    group_members,
    known_levels,
    order_by_level,
    untrained_groups,
    with_untrained,
)
from langspec_lora.report.means import Means, Resamples, mean_figures, mean_groups
from langspec_lora.report.measure import Cache, Measured, Sentence, build_judges, measure, merge
from langspec_lora.report.measure_direction import MeasureOptions
from langspec_lora.report.off_target import IDENTIFIER, identifier_version
from langspec_lora.report.off_target_shares import OffTarget, judge_runs
from langspec_lora.report.runs import common_directions, require_comparable, run_names, shared_metrics
from langspec_lora.report.seeds import RunFolders, mean_run, read_seeds, refuse_seeds, seed_notes
from langspec_lora.report.shared_sentences import find_test_sets
from langspec_lora.report.significance import Comparison, MetricSettings, compare
from langspec_lora.report.texts import DirectionTexts, find_texts
from langspec_lora.report.vector_file import VectorFile

PARTS = ("intervals", "significance", "off-target", "sentences", "degeneration")
"""What is read from the sentences, and can be skipped."""

MEAN_SAMPLES = 1000
"""Resamples for the means, of which one can be tested without the correction for hundreds of directions."""

RESAMPLES = "report.resamples.bin"
"""The file of the scores of resamples, beside that of the other measurements."""


@dataclass(frozen=True)
class Analysis:
    """What a report says.

    Attributes:
        runs: the runs; the others are compared with the first.
        metric: one of :data:`~langspec_lora.evaluation.metrics.METRICS`.
        labels: the title of each metric that all runs have, the reported one first.
        metrics: each run's scores by each of these metrics.
        levels: resource level of each language; empty where they are not known.
        groups: the directions from level to level, and all.
        languages: the languages from high to low resource.
        notes: remarks, such as on what is left out.
        samples: resamples of the test.
        comparisons: each later run's, where they could be tested.
        off_target: wrong language, if it could be recognised.
        texts: the sentences, where they were found.
        worst: each run's worst sentences.
        losses: each later run's greatest losses against the first.
        seeds: the runs of which each run is the mean; empty where each is one itself.
        means: intervals of the means of the reported metric, and tests of their differences.
        test: which test the comparisons are of, one of :data:`~langspec_lora.report.significance.TESTS`.
        degeneration: of each run, how much of its output has come apart, by direction.
        copies: scores of the source texts as if they were translations.
        untrained: the groups of directions that a run was not trained with, by their labels in ``groups``.
    """

    runs: tuple[Run, ...]
    metric: str
    labels: Mapping[str, str]
    metrics: Mapping[str, Sequence[Mapping[Direction, float]]]
    levels: Mapping[str, str]
    groups: Mapping[str, Sequence[Direction]]
    languages: Sequence[str]
    notes: tuple[str, ...] = ()
    samples: int = 0
    comparisons: tuple[Comparison, ...] = ()
    off_target: OffTarget | None = None
    texts: Mapping[Direction, DirectionTexts] = field(default_factory=dict)
    worst: tuple[Sequence[Sentence], ...] = ()
    losses: tuple[Sequence[Sentence], ...] = ()
    seeds: tuple[tuple[Run, ...], ...] = ()
    means: Means | None = None
    test: str = "bootstrap"
    degeneration: tuple[Mapping[Direction, Degeneration], ...] = ()
    copies: Mapping[Direction, float] = field(default_factory=dict)
    untrained: Sequence[str] = ()

    @property
    def label(self) -> str:
        """The title of the reported metric."""
        return self.labels[self.metric]

    @property
    def scores(self) -> Sequence[Mapping[Direction, float]]:
        """Each run's scores in the reported metric."""
        return self.metrics[self.metric]

    @property
    def directions(self) -> list[Direction]:
        """The directions that all runs have."""
        return list(self.scores[0])

    def members(self, run: int) -> tuple[Run, ...]:
        """The seeds of a run, or the run itself."""
        return self.seeds[run] if self.seeds else (self.runs[run],)

    @property
    def all_runs(self) -> list[Run]:
        """The seeds of all runs, in the order of the hypotheses in :attr:`texts`."""
        return [seed for run in range(len(self.runs)) for seed in self.members(run)]

    @property
    def numbers(self) -> tuple[tuple[int, ...], ...]:
        """The places of each run's seeds in :attr:`all_runs`."""
        found, start = [], 0
        for run in range(len(self.runs)):
            found.append(tuple(range(start, start := start + len(self.members(run)))))
        return tuple(found)

    def differences(self, run: int) -> dict[Direction, float]:
        """A run's scores less the first run's."""
        return {direction: score - self.scores[0][direction] for direction, score in self.scores[run].items()}


@dataclass(frozen=True)
class Request:
    """What to report on, and how.

    Attributes:
        folders: a results folder for each run, or one for each of its seeds; the others are compared with the first.
        levels: resource level of each language; None for those that the runs have stored, or else the paper's.
        cache: file of earlier measurements; new ones are added. The scores of resamples are in another beside it.
        names: the names of the runs; None for the folders' names, for all or for one of them. Seeds need a name.
        metric: one of :data:`~langspec_lora.evaluation.metrics.METRICS`.
        references: folder with ``SPLIT.LANG``, for results folders without texts.
        samples: resamples of the bootstrap; None for a number that fits the directions.
        skip: which of :data:`PARTS` to leave out.
        processes: how many to use; None for one for each core, up to eight.
        test: one of :data:`~langspec_lora.report.significance.TESTS`.
        mean_samples: resamples for the means.
    """

    folders: Sequence[RunFolders]
    levels: Mapping[str, str] | None
    cache: Path
    names: Sequence[str | None] | None = None
    metric: str = "bleu"
    references: Path | None = None
    samples: int | None = None
    skip: Collection[str] = ()
    processes: int | None = None
    test: str = "bootstrap"
    mean_samples: int = MEAN_SAMPLES


def analyse(request: Request) -> Analysis:
    """Reads results folders and analyses them.

    Raises:
        UserError: a folder is not a results folder or has changed since it was scored, a language has no level, or the
            runs cannot be compared.
    """
    names = run_names(request.folders, request.names)
    seeds = tuple(read_seeds(name, run) for name, run in zip(names, request.folders, strict=True))
    everyone = tuple(chain.from_iterable(seeds))
    metric = request.metric
    refuse_seeds(request.test, dict(zip(names, seeds, strict=True)))
    directions, left_out = common_directions(everyone, metric)
    require_comparable(everyone, metric)
    levels, level_notes = (request.levels, []) if request.levels is not None else known_levels(everyone, directions)
    metrics = shared_metrics(everyone, directions, metric)
    runs = tuple(mean_run(name, own, directions) for name, own in zip(names, seeds, strict=True))
    untrained = untrained_groups(dict(zip(names, seeds, strict=True)), directions)
    analysis = Analysis(
        runs,
        metric,
        {m: METRICS[m].title(next((r.signatures[m] for r in runs if r.signatures.get(m)), "")) for m in metrics},
        {m: [{d: run.metric(m)[d] for d in directions} for run in runs] for m in metrics},
        levels,
        with_untrained(group_members(directions, levels), untrained),
        order_by_level(chain.from_iterable(directions), levels),
        seeds=seeds if len(everyone) > len(runs) else (),
        test=request.test,
        untrained=tuple(untrained),
    )
    notes = [f"directions left out because not every run has them: {left_out}"] if left_out else []
    notes += level_notes
    notes += [
        f"{len(found):,} of {len(directions):,} directions were not among the training directions (row “{label}”)"
        for label, found in untrained.items()
    ]
    notes += chain.from_iterable(seed_notes(name, own) for name, own in zip(names, seeds, strict=True))
    parts = [part for part in PARTS if part not in request.skip and (part != "significance" or len(runs) > 1)]
    texts: Mapping[Direction, DirectionTexts] = {}
    if parts:
        if request.references is not None and not request.references.is_dir():
            raise UserError(f"--references {request.references} is not a folder; give the one that holds SPLIT.LANG")
        texts, lacking = find_texts(everyone, directions, request.references)
        notes += [f"{some_of(parts)} left out: {why}" for why in lacking]
    measured = _measured(analysis, request, texts, parts, notes) if texts else {}
    return replace(analysis, notes=tuple(notes), **measured)


def _measured(
    analysis: Analysis,
    request: Request,
    texts: Mapping[Direction, DirectionTexts],
    parts: Sequence[str],
    notes: list[str],
) -> dict[str, Any]:
    """The fields of :class:`Analysis` that come from the sentences; remarks are added to ``notes``."""
    samples = request.samples or significance.default_samples(len(texts))
    resampled = [part for part in PARTS[:2] if part in parts]
    asked = resampled or (["copy of the source"] if "degeneration" in parts else [])
    drawn_metric = _resampled_metric(analysis, texts, asked, notes) if asked else None
    settings = drawn_metric if "significance" in parts else None
    if settings:
        _note_few_samples(samples, len(texts), notes)
    sets = find_test_sets(texts) if drawn_metric and "intervals" in parts else None
    cache, vectors = Cache(request.cache), VectorFile(request.cache.with_name(RESAMPLES))
    judges = build_judges(texts, cache) if "off-target" in parts else {}
    options = MeasureOptions(
        settings,
        samples,
        "sentences" in parts,
        judges,
        analysis.numbers,
        request.test,
        {direction: found.seed for direction, found in sets.of.items()} if sets else {},
        request.mean_samples,
        drawn_metric,
        "degeneration" in parts,
        drawn_metric if "degeneration" in parts else None,
    )
    measured = measure(texts, options, cache, request.processes, vectors)
    for trouble in filter(None, (cache.trouble, vectors.trouble)):
        notes.append(f"the measurements could not be saved for the next time: {trouble}")
    every = range(len(analysis.runs))
    fields: dict[str, Any] = {"texts": texts, "samples": samples}
    if settings:
        pairs = [(measured[request.test, run], analysis.differences(run)) for run in every[1:]]
        fields["comparisons"] = tuple(compare(*pair, METRICS[analysis.metric].higher_is_better) for pair in pairs)
    if sets:
        resamples = read_resamples(analysis, measured, vectors, request.mean_samples)
        groups = mean_groups(analysis.groups, analysis.languages, analysis.directions)
        figures = mean_figures(resamples, analysis.scores, groups, texts)
        fields["means"] = Means(request.mean_samples, request.test, sets.note(), figures)
    if judges:
        found = judge_runs(texts, judges, [_mean_counts(measured, "wrong", own) for own in analysis.numbers])
        if found.shares[0]:
            fields["off_target"] = found
        else:
            knows = f"{IDENTIFIER} does not know them" if identifier_version() else f"{IDENTIFIER} is not installed"
            notes.append(f"off-target left out: the languages share a script, and {knows}")
    if "degeneration" in parts:
        counted = [_mean_counts(measured, "degenerate", own) for own in analysis.numbers]
        fields["degeneration"] = tuple({d: shares(counts) for d, counts in own.items()} for own in counted)
        fields["copies"] = dict(measured.get(("copy", 0), {}))
    if "sentences" in parts:
        fields["worst"] = tuple(merge(measured["worst", run]) for run in every)
        losses = [merge(measured["losses", run]) for run in every[1:]]
        fields["losses"] = tuple([sentence for sentence in run if sentence.value < 0] for run in losses)
    return fields


def read_resamples(analysis: Analysis, measured: Measured, vectors: VectorFile, samples: int) -> Resamples:
    """How to read the measured scores of resamples."""

    def swapped(direction: Direction, run: int) -> tuple[NDArray, NDArray]:
        first, later = np.split(vectors[measured["swapped", run][direction]], 2)
        return first, later

    return Resamples(
        [len(own) for own in analysis.numbers],
        lambda direction, run, seed: vectors[measured["resampled", analysis.numbers[run][seed]][direction]],
        swapped if analysis.test == "randomization" and len(analysis.runs) > 1 else None,
        samples,
    )


def _mean_counts(measured: Measured, kind: str, seeds: Sequence[int]) -> dict[Direction, tuple[float, ...]]:
    """What was counted in the hypotheses of each direction, as the mean over the seeds of a run."""
    counted = [measured[kind, seed] for seed in seeds]
    return {
        direction: tuple(
            sum(values) / len(counted) for values in zip(*(own[direction] for own in counted), strict=True)
        )
        for direction in counted[0]
    }


def _resampled_metric(
    analysis: Analysis, texts: Mapping[Direction, DirectionTexts], parts: Sequence[str], notes: list[str]
) -> MetricSettings | None:
    """The metric that scores resamples; None if none can, with the reason in ``notes``."""
    runs, metric = analysis.all_runs, analysis.metric
    try:
        settings = significance.metric_settings(
            next((run for run in runs if run.signatures.get(metric)), runs[0]), metric
        )
    except UserError as error:
        notes.append(f"{some_of(parts)} left out: {error}")
        return None
    # Where no hash says which references a run was scored against, its score of one direction has to.
    direction, first = next(iter(texts.items()))
    for run, hypotheses in zip(runs, first.hypotheses, strict=True):
        if "references_sha256" not in run.entries.get(direction, {}):
            now = settings.build(first.reference.read()).corpus_score(hypotheses.read(), None).score
            then = run.metric(metric)[direction]
            if abs(now - then) > 0.0051:  # the published loop keeps two digits
                raise UserError(
                    f"{direction} of {run.name} scores {now:.2f} against {first.reference.path}, but {then:.2f} in "
                    f"{run.folder}; give the references that it was scored against as --references"
                )
    return settings


def _note_few_samples(samples: int, directions: int, notes: list[str]) -> None:
    """Remarks that no test of single directions can find anything, if it is so."""
    if directions / (samples + 1) >= significance.ALPHA:
        notes.append(
            f"{samples} resamples are too few for {directions} directions: no difference can be significant after "
            f"Holm's correction; give --samples {significance.default_samples(directions)}"
        )
