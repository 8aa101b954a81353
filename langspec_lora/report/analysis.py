"""What a report says of one or more runs, as plain data: scores, tests, wrong language, worst sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.evaluation.metrics import METRICS
from langspec_lora.evaluation.results import Run, read_run
from langspec_lora.naming import some_of
from langspec_lora.report import significance
from langspec_lora.report.groups import group_members, known_levels, order_by_level
from langspec_lora.report.measure import Cache, MeasureOptions, Sentence, build_judges, measure, merge
from langspec_lora.report.off_target import IDENTIFIER, Judge, identifier_version
from langspec_lora.report.runs import common_directions, require_comparable, run_names, shared_metrics
from langspec_lora.report.significance import Comparison, MetricSettings, compare
from langspec_lora.report.texts import DirectionTexts, find_texts

PARTS = ("significance", "off-target", "sentences")
"""What is read from the sentences, and can be skipped."""


@dataclass(frozen=True)
class OffTarget:
    """Hypotheses in a wrong language.

    Attributes:
        judges: how it is told, by target language.
        shares: for each run the share of wrong hypotheses of each direction in which it can be told.
        silent: for each run the share of hypotheses without a letter.
        bounds: targets that are not told from every other language of the evaluation, so that their shares are lower
            bounds.
    """

    judges: Mapping[str, Judge]
    shares: tuple[Mapping[Direction, float], ...]
    silent: tuple[float, ...]
    bounds: frozenset[str]


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

    def differences(self, run: int) -> dict[Direction, float]:
        """A run's scores less the first run's."""
        return {direction: score - self.scores[0][direction] for direction, score in self.scores[run].items()}


@dataclass(frozen=True)
class Request:
    """What to report on, and how.

    Attributes:
        folders: results folders; the others are compared with the first.
        levels: resource level of each language; None for those that the runs have stored, or else the paper's.
        cache: file of earlier measurements; new ones are added.
        names: the names of the runs; None for the folders' names.
        metric: one of :data:`~langspec_lora.evaluation.metrics.METRICS`.
        references: folder with ``SPLIT.LANG``, for results folders without texts.
        samples: resamples of the bootstrap; None for a number that fits the directions.
        skip: which of :data:`PARTS` to leave out.
        processes: how many to use; None for one for each core, up to eight.
    """

    folders: Sequence[Path]
    levels: Mapping[str, str] | None
    cache: Path
    names: Sequence[str] | None = None
    metric: str = "bleu"
    references: Path | None = None
    samples: int | None = None
    skip: Collection[str] = ()
    processes: int | None = None


def analyse(request: Request) -> Analysis:
    """Reads results folders and analyses them.

    Raises:
        UserError: a folder is not a results folder or has changed since it was scored, a language has no level, or the
            runs cannot be compared.
    """
    names = run_names(request.folders, request.names)
    runs = tuple(read_run(folder, name) for folder, name in zip(request.folders, names, strict=True))
    metric = request.metric
    directions, left_out = common_directions(runs, metric)
    require_comparable(runs, metric)
    levels, level_notes = (request.levels, []) if request.levels is not None else known_levels(runs, directions)
    metrics = shared_metrics(runs, directions, metric)
    analysis = Analysis(
        runs,
        metric,
        {m: METRICS[m].title(next((r.signatures[m] for r in runs if r.signatures.get(m)), "")) for m in metrics},
        {m: [{d: run.metric(m)[d] for d in directions} for run in runs] for m in metrics},
        levels,
        group_members(directions, levels),
        order_by_level(chain.from_iterable(directions), levels),
    )
    notes = [f"directions left out because not every run has them: {left_out}"] if left_out else []
    notes += level_notes
    parts = [part for part in PARTS if part not in request.skip and (part != "significance" or len(runs) > 1)]
    texts: Mapping[Direction, DirectionTexts] = {}
    if parts:
        if request.references is not None and not request.references.is_dir():
            raise UserError(f"--references {request.references} is not a folder; give the one that holds SPLIT.LANG")
        texts, lacking = find_texts(runs, directions, request.references)
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
    settings = _test_settings(analysis, samples, texts, notes) if "significance" in parts else None
    cache = Cache(request.cache)
    judges = build_judges(texts, cache) if "off-target" in parts else {}
    measured = measure(texts, MeasureOptions(settings, samples, "sentences" in parts, judges), cache, request.processes)
    if cache.trouble:
        notes.append(f"the measurements could not be saved for the next time: {cache.trouble}")
    every = range(len(analysis.runs))
    fields: dict[str, Any] = {"texts": texts, "samples": samples}
    if settings:
        pairs = [(measured["bootstrap", run], analysis.differences(run)) for run in every[1:]]
        fields["comparisons"] = tuple(compare(p_values, differences) for p_values, differences in pairs)
    if judges:
        found = judge_runs(texts, judges, [measured["wrong", run] for run in every])
        if found.shares[0]:
            fields["off_target"] = found
        else:
            knows = f"{IDENTIFIER} does not know them" if identifier_version() else f"{IDENTIFIER} is not installed"
            notes.append(f"off-target left out: the languages share a script, and {knows}")
    if "sentences" in parts:
        fields["worst"] = tuple(merge(measured["worst", run]) for run in every)
        losses = [merge(measured["losses", run]) for run in every[1:]]
        fields["losses"] = tuple([sentence for sentence in run if sentence.value < 0] for run in losses)
    return fields


def _test_settings(
    analysis: Analysis, samples: int, texts: Mapping[Direction, DirectionTexts], notes: list[str]
) -> MetricSettings | None:
    """The metric to test with; None if no test is possible, with the reason in ``notes``."""
    runs, metric = analysis.runs, analysis.metric
    try:
        settings = significance.metric_settings(
            next((run for run in runs if run.signatures.get(metric)), runs[0]), metric
        )
    except UserError as error:
        notes.append(f"significance left out: {error}")
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
    if len(texts) / (samples + 1) >= significance.ALPHA:
        notes.append(
            f"{samples} resamples are too few for {len(texts)} directions: no difference can be significant after "
            f"Holm's correction; give --samples {significance.default_samples(len(texts))}"
        )
    return settings


def judge_runs(
    texts: Mapping[Direction, DirectionTexts],
    judges: Mapping[str, Judge],
    wrong: Sequence[Mapping[Direction, tuple[int, int]]],
) -> OffTarget:
    """Turns each run's numbers of hypotheses in another language, and of those without a letter, into shares."""

    def can_tell(direction: Direction) -> bool:
        judge, source = judges[direction.target], judges.get(direction.source)
        return judge.identified if source is None else judge.can_tell(direction.source, source.scripts)

    told = [direction for direction in texts if can_tell(direction)]
    sentences = {direction: found.reference.lines for direction, found in texts.items()}
    shared = Counter(script for judge in judges.values() for script in judge.scripts)
    return OffTarget(
        {direction.target: judges[direction.target] for direction in texts},
        tuple({d: counts[d][0] / sentences[d] for d in told} for counts in wrong),
        tuple(sum(silent for _, silent in counts.values()) / sum(sentences.values()) for counts in wrong),
        frozenset(
            name
            for name, judge in judges.items()
            if judge.twins or (not judge.identified and any(shared[script] > 1 for script in judge.scripts))
        ),
    )
