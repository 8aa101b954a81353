"""What a report reads from the sentences themselves: direction by direction, on all cores, kept for the next time."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import sacrebleu

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.files import write_whole
from langspec_lora.progress import Progress
from langspec_lora.report import off_target, significance
from langspec_lora.report.off_target import Judge
from langspec_lora.report.significance import SEED, MetricSettings
from langspec_lora.report.texts import DirectionTexts, TextFile

SHOWN = 20
"""Sentences in a list of the worst."""

CHRF = MetricSettings("chrf", "", (("word_order", 2),))
"""Ranks sentences."""

Ranked = Sequence[tuple[float, int]]
"""Value and index of the lowest sentences of one direction, lowest first."""

_FORMAT = 2  # of what is measured; another number leaves the caches of earlier versions aside
_SECONDS_BETWEEN_SAVES = 20.0
_MOST_PROCESSES = 8
_DIRECTIONS_WORTH_A_PROCESS = 8


@dataclass(frozen=True)
class MeasureOptions:
    """What to measure.

    Attributes:
        metric: the metric of the paired bootstrap; None leaves the test out.
        samples: its resamples.
        sentences: whether to look for the worst sentences.
        judges: for each target language how wrong language is told; empty leaves that out.
    """

    metric: MetricSettings | None
    samples: int
    sentences: bool
    judges: Mapping[str, Judge]


@dataclass(frozen=True)
class Measured:
    """What was measured of one direction.

    Attributes:
        p_values: of each later run against the first, uncorrected.
        worst: of each run the lowest sentences by chrF++; empty hypotheses are not among them.
        losses: of each later run those that lost most chrF++ against the first.
        wrong: of each run the number of hypotheses in another language, and of those without a letter.
    """

    p_values: tuple[float, ...] = ()
    worst: tuple[Ranked, ...] = ()
    losses: tuple[Ranked, ...] = ()
    wrong: tuple[tuple[int, int], ...] = ()


class Cache:
    """Measurements by key in a JSON file; a missing or unreadable file counts as empty.

    Attributes:
        trouble: why the file could not be written, if that failed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._saved = time.monotonic()
        self._changed = False
        self.trouble = ""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            content = {}
        self._values: dict[str, Any] = content if isinstance(content, dict) else {}

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def add(self, values: Mapping[str, Any]) -> None:
        """Adds measurements, and saves them now and then."""
        self._values.update(values)
        self._changed = self._changed or bool(values)
        if time.monotonic() - self._saved > _SECONDS_BETWEEN_SAVES:
            self.save()

    def save(self) -> None:
        """Writes the file. A report is worth having without it, so a full disk is remembered and not raised."""
        self._saved = time.monotonic()
        if not self._changed:
            return
        try:
            write_whole(self._path, json.dumps(self._values))
            self._changed, self.trouble = False, ""
        except UserError as error:
            self.trouble = str(error)


@dataclass(frozen=True)
class _Piece:
    """One measurement: its key, the field of :class:`Measured` that it belongs to, and the run."""

    key: str
    kind: str
    run: int


@dataclass(frozen=True)
class _Task:
    texts: DirectionTexts
    options: MeasureOptions
    pieces: tuple[_Piece, ...]


def measure(
    texts: Mapping[Direction, DirectionTexts], options: MeasureOptions, cache: Cache, processes: int | None = None
) -> dict[Direction, Measured]:
    """Measures every direction; what the cache holds is taken from there.

    Args:
        texts: the directions' texts.
        options: what to measure.
        cache: what was measured before; it is added to, and saved even where this is interrupted.
        processes: how many to use; by default one for each core, up to eight.
    """
    pieces = {direction: list(_pieces(files, options)) for direction, files in texts.items()}
    tasks = []
    # Directions into one language follow each other: its references are prepared once in each process.
    for direction in sorted(texts, key=lambda d: (d.target, d.source)):
        missing = tuple(piece for piece in pieces[direction] if piece.key not in cache)
        if missing:
            judges = {direction.target: options.judges[direction.target]} if options.judges else {}
            tasks.append(_Task(texts[direction], replace(options, judges=judges), missing))
    if tasks:
        try:
            with Progress(total=len(tasks), unit="direction", desc="sentences") as progress:
                for values in _run(tasks, processes or _cores()):
                    cache.add(values)
                    progress.update()
        finally:
            cache.save()
    return {direction: _collect(asked, cache) for direction, asked in pieces.items()}


def build_judges(texts: Mapping[Direction, DirectionTexts], cache: Cache) -> dict[str, Judge]:
    """Decides how wrong language is told in each language, from the references, and the sources where it has none."""
    files: dict[str, TextFile] = {}
    for direction, found in texts.items():
        files[direction.target] = found.reference
        if found.source:
            files.setdefault(direction.source, found.source)
    version = off_target.identifier_version()
    key = _key("judges", version, sorted((language, file.sha256) for language, file in files.items()))
    if key not in cache:
        judges = off_target.build_judges({language: file.read() for language, file in files.items()})
        cache.add({key: [asdict(judge) for judge in judges.values()]})
    return {entry["language"]: _judge(entry) for entry in cache[key]}


def _judge(entry: Mapping[str, Any]) -> Judge:
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()}
    return Judge(**fields)


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps([_FORMAT, *parts]).encode()).hexdigest()[:32]


def _pieces(texts: DirectionTexts, options: MeasureOptions) -> Iterator[_Piece]:
    reference, hypotheses = texts.reference.sha256, [file.sha256 for file in texts.hypotheses]
    version = sacrebleu.__version__
    for run, hypothesis in enumerate(hypotheses):
        if options.metric and run:
            test = (options.metric.signature, options.metric.arguments, version, options.samples, SEED)
            yield _Piece(_key("bootstrap", test, reference, hypotheses[0], hypothesis), "p_values", run)
        if options.sentences:
            yield _Piece(_key("worst", version, reference, hypothesis), "worst", run)
            if run:
                yield _Piece(_key("losses", version, reference, hypotheses[0], hypothesis), "losses", run)
        if options.judges:
            judge = options.judges[texts.direction.target]
            judged_by = (asdict(judge), off_target.identifier_version() if judge.identified else "")
            yield _Piece(_key("wrong", judged_by, hypothesis), "wrong", run)


def _collect(pieces: Sequence[_Piece], cache: Cache) -> Measured:
    found: dict[str, list[Any]] = {}
    for piece in pieces:
        found.setdefault(piece.kind, []).append(cache[piece.key])
    return Measured(**{kind: tuple(values) for kind, values in found.items()})


def _cores() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, _MOST_PROCESSES)


def _run(tasks: Sequence[_Task], processes: int) -> Iterator[dict[str, Any]]:
    if processes == 1 or len(tasks) < _DIRECTIONS_WORTH_A_PROCESS:
        yield from map(_measure_direction, tasks)
        return
    # Fresh processes: to fork one that has threads is not safe, and not every system can fork.
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_ignore_interrupt)
    try:
        for future in as_completed([pool.submit(_measure_direction, task) for task in tasks]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _ignore_interrupt() -> None:
    """Leaves Ctrl-C to the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _measure_direction(task: _Task) -> dict[str, Any]:
    texts, options = task.texts, task.options
    lines = lru_cache(maxsize=None)(lambda run: texts.hypotheses[run].read())
    chrf = lru_cache(maxsize=None)(lambda run: sentence_scores(_metric(CHRF, texts.reference), lines(run)))
    by_kind: dict[str, list[_Piece]] = {}
    for piece in task.pieces:
        by_kind.setdefault(piece.kind, []).append(piece)
    values: dict[str, Any] = {}
    if options.metric and (tested := by_kind.get("p_values")):
        metric = _metric(options.metric, texts.reference)
        others = [lines(piece.run) for piece in tested]
        found = significance.paired_p_values(options.metric, metric, lines(0), others, options.samples)
        values |= {piece.key: p_value for piece, p_value in zip(tested, found, strict=True)}
    for piece in by_kind.get("worst", ()):
        hypotheses = lines(piece.run)
        said = [index for index in _not_empty(texts.reference) if hypotheses[index].strip()]
        values[piece.key] = lowest(chrf(piece.run), said)
    for piece in by_kind.get("losses", ()):
        changes = [later - first for first, later in zip(chrf(0), chrf(piece.run), strict=True)]
        values[piece.key] = lowest(changes, _not_empty(texts.reference))
    for piece in by_kind.get("wrong", ()):
        values[piece.key] = off_target.count_wrong(options.judges[texts.direction.target], lines(piece.run))
    return values


@lru_cache(maxsize=2)
def _metric(settings: MetricSettings, references: TextFile) -> Any:
    return settings.build(references.read())


@lru_cache(maxsize=2)
def _not_empty(references: TextFile) -> tuple[int, ...]:
    return tuple(index for index, line in enumerate(references.read()) if line.strip())


def sentence_scores(metric: Any, hypotheses: Sequence[str]) -> list[float]:
    """chrF++ of each sentence, as ``sacrebleu --sentence-level`` prints it.

    Args:
        metric: :data:`CHRF`, built with the references.
        hypotheses: as many sentences as there are references.
    """
    statistics = metric._extract_corpus_statistics(hypotheses, None)
    return [metric._compute_score_from_stats(counts).score for counts in statistics]


def lowest(values: Sequence[float], among: Iterable[int]) -> Ranked:
    """The lowest values of some sentences of a direction, as many as a list can show."""
    return sorted((values[index], index) for index in among)[:SHOWN]


@dataclass(frozen=True)
class Sentence:
    """One sentence of a list.

    Attributes:
        direction: its direction.
        index: its position in the test set, from 0.
        value: chrF++, or the difference of two runs' chrF++.
    """

    direction: Direction
    index: int
    value: float


def merge(by_direction: Mapping[Direction, Ranked]) -> list[Sentence]:
    """The lowest of all directions.

    Where sentences share a value (many have nothing in common with their reference), every direction has its turn
    before one has its second, and the turns go round the sources and the targets at once.
    """
    languages = list(dict.fromkeys(language for direction in by_direction for language in direction))
    places = {language: place for place, language in enumerate(languages)}
    candidates = []
    for direction, ranked in by_direction.items():
        source, target = places[direction.source], places[direction.target]
        place = ((target - source) % len(languages), source)
        turns: dict[float, int] = {}
        for value, index in ranked:
            turns[value] = turns.get(value, 0) + 1
            candidates.append((value, turns[value], place, Sentence(direction, index, value)))
    return [candidate[-1] for candidate in sorted(candidates, key=lambda c: c[:3])[:SHOWN]]
