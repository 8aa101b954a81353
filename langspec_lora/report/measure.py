"""What a report reads from the sentences themselves: direction by direction, on all cores, kept for the next time."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections import Counter, UserDict, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import chain
from multiprocessing import get_context
from operator import itemgetter
from pathlib import Path
from typing import Any

import sacrebleu

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.files import write_whole
from langspec_lora.progress import Progress
from langspec_lora.report import off_target, significance
from langspec_lora.report.off_target import Judge
from langspec_lora.report.significance import SEED, MetricSettings, Resampled
from langspec_lora.report.texts import DirectionTexts, TextFile

SHOWN = 20
"""Sentences in a list of the worst."""

CHRF = MetricSettings("chrf", "", (("word_order", 2),))
"""Ranks sentences."""

Ranked = Sequence[tuple[float, int]]
"""Value and index of the lowest sentences of one direction, lowest first."""

Measured = Mapping[tuple[str, int], Mapping[Direction, Any]]
"""What was measured of each direction, by kind of measurement and number of the run:

* ``bootstrap``: the uncorrected p-value of a later run against the first;
* ``worst``: a run's lowest sentences by chrF++, :data:`Ranked`; empty hypotheses are not among them;
* ``losses``: those of a later run that lost most chrF++ against the first, likewise;
* ``wrong``: a run's number of hypotheses in another language, and of those without a letter.
"""

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


_Task = tuple[DirectionTexts, MeasureOptions, Mapping[tuple[str, int], str]]
"""What to measure of one direction, and the keys of that which the cache lacks, by kind and run."""


class Cache(UserDict[str, Any]):
    """Measurements by key in a JSON file, with their hash; a missing or damaged file counts as empty.

    Attributes:
        trouble: why the file could not be written, if that failed.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(_read_hashed(path))
        self._path, self._saved, self._in_file = path, time.monotonic(), len(self)
        self.trouble = ""

    def add(self, values: Mapping[str, Any]) -> None:
        """Adds measurements, and saves them now and then."""
        self.update(values)
        if time.monotonic() - self._saved > _SECONDS_BETWEEN_SAVES:
            self.save()

    def save(self) -> None:
        """Writes the file. A report is worth having without it, so a full disk is remembered and not raised."""
        self._saved = time.monotonic()
        if len(self) == self._in_file:  # a key names all that its value depends on, so that no value changes
            return
        try:
            content = json.dumps(self.data, sort_keys=True).encode()  # the same however often it was interrupted
            write_whole(self._path, _header(content) + content + b"}")
            self._in_file, self.trouble = len(self), ""
        except UserError as error:
            self.trouble = str(error)


def _header(content: bytes) -> bytes:
    """What stands before the measurements in their file."""
    return f'{{"sha256": "{hashlib.sha256(content).hexdigest()}", "measurements": '.encode()


def _read_hashed(path: Path) -> dict[str, Any]:
    """The measurements in a file, or nothing: a changed digit would be a wrong figure that nobody notices."""
    try:
        whole = path.read_bytes()
        start = len(_header(b""))
        content = whole[start:-1]
        found = json.loads(content) if whole[:start] == _header(content) else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def measure(
    texts: Mapping[Direction, DirectionTexts], options: MeasureOptions, cache: Cache, processes: int | None = None
) -> Measured:
    """Measures every direction; what the cache holds is taken from there.

    Args:
        texts: the directions' texts.
        options: what to measure.
        cache: what was measured before; it is added to, and saved even where this is interrupted.
        processes: how many to use; None for one for each core, up to eight.
    """
    keys = {direction: _keys(files, options) for direction, files in texts.items()}
    tasks: list[_Task] = []
    # Directions into one language follow each other: its references are prepared once in each process.
    for direction in sorted(texts, key=lambda d: (d.target, d.source)):
        missing = {what: key for what, key in keys[direction].items() if key not in cache}
        if missing:
            judges = {direction.target: options.judges[direction.target]} if options.judges else {}
            tasks.append((texts[direction], replace(options, judges=judges), missing))
    if tasks:
        try:
            with Progress(total=len(tasks), unit="direction", desc="sentences") as progress:
                for values in _run(tasks, processes or _cores()):
                    cache.add(values)
                    progress.update()
        finally:
            cache.save()
    measured: dict[tuple[str, int], dict[Direction, Any]] = defaultdict(dict)
    for direction, asked in keys.items():
        for what, key in asked.items():
            measured[what][direction] = cache[key]
    return measured


def build_judges(texts: Mapping[Direction, DirectionTexts], cache: Cache) -> dict[str, Judge]:
    """Decides from references, or else from sources, how to recognise the wrong language for each target."""
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


def _keys(texts: DirectionTexts, options: MeasureOptions) -> dict[tuple[str, int], str]:
    """The keys of a direction's measurements by kind and run; each names all that the measurement depends on."""
    reference, first, version = texts.reference.sha256, texts.hypotheses[0].sha256, sacrebleu.__version__
    keys = {}
    for run, own in enumerate(file.sha256 for file in texts.hypotheses):
        if options.metric and run:
            test = (options.metric.signature, options.metric.arguments, version, options.samples, SEED)
            keys["bootstrap", run] = _key("bootstrap", test, reference, first, own)
        if options.sentences:
            keys["worst", run] = _key("worst", version, reference, own)
        if options.sentences and run:
            keys["losses", run] = _key("losses", version, reference, first, own)
        if options.judges:
            judge = options.judges[texts.direction.target]
            judged_by = (asdict(judge), off_target.identifier_version() if judge.identified else "")
            keys["wrong", run] = _key("wrong", judged_by, own)
    return keys


def _cores() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, _MOST_PROCESSES)


def _run(tasks: Sequence[_Task], processes: int) -> Iterator[dict[str, Any]]:
    if processes == 1 or len(tasks) < _DIRECTIONS_WORTH_A_PROCESS:
        yield from map(_measure_direction, tasks)
        return
    # Fresh processes: forking one with threads is unsafe, and not every system can fork. They ignore Ctrl-C.
    pool = ProcessPoolExecutor(
        processes, get_context("spawn"), initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)
    )
    try:
        for future in as_completed([pool.submit(_measure_direction, task) for task in tasks]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _measure_direction(task: _Task) -> dict[str, Any]:
    """What a task asks for, by its keys."""
    texts, options, keys = task
    reference, first = texts.reference, texts.hypotheses[0]
    scored = [index for index, line in enumerate(_lines(reference)) if line.strip()]
    values: dict[str, Any] = {}
    for (kind, run), key in keys.items():
        own = texts.hypotheses[run]
        if kind == "bootstrap" and options.metric:
            base, later = (_resampled(options.metric, options.samples, reference, file) for file in (first, own))
            values[key] = significance.p_value(base, later)
        elif kind == "worst":
            values[key] = lowest(_chrf(reference, own), [index for index in scored if _lines(own)[index].strip()])
        elif kind == "losses":
            before, after = _chrf(reference, first), _chrf(reference, own)
            values[key] = lowest([new - old for old, new in zip(before, after, strict=True)], scored)
        elif kind == "wrong":
            values[key] = off_target.count_wrong(options.judges[texts.direction.target], _lines(own))
    return values


# Three at a time are in use: the references, which the next direction may share, the first run and another.
_lines = lru_cache(maxsize=3)(TextFile.read)


@lru_cache(maxsize=2)  # the tested metric and chrF++
def _metric(settings: MetricSettings, references: TextFile) -> Any:
    return settings.build(_lines(references))


@lru_cache(maxsize=3)
def _resampled(settings: MetricSettings, samples: int, reference: TextFile, hypotheses: TextFile) -> Resampled:
    return significance.resample(settings, _metric(settings, reference), _lines(hypotheses), samples)


@lru_cache(maxsize=3)
def _chrf(reference: TextFile, hypotheses: TextFile) -> list[float]:
    """chrF++ of each sentence, as ``sacrebleu --sentence-level`` prints it."""
    metric = _metric(CHRF, reference)
    statistics = metric._extract_corpus_statistics(_lines(hypotheses), None)
    return [metric._compute_score_from_stats(counts).score for counts in statistics]


def lowest(values: Sequence[float], among: Iterable[int]) -> Ranked:
    """The lowest values of some sentences of a direction, as many as a list can show."""
    return sorted((values[index], index) for index in among)[:SHOWN]


@dataclass(frozen=True)
class Sentence:
    """One sentence of a list: its position in the test set, from 0, and its chrF++, or how much two runs' differ."""

    direction: Direction
    index: int
    value: float


def merge(by_direction: Mapping[Direction, Ranked]) -> list[Sentence]:
    """The lowest of all directions.

    Where sentences share a value (many have nothing in common with their reference), every direction has its turn
    before one has its second, and the turns go round the sources and the targets at once.
    """
    places = {language: place for place, language in enumerate(dict.fromkeys(chain.from_iterable(by_direction)))}
    candidates = []
    for direction, ranked in by_direction.items():
        source, target = places[direction.source], places[direction.target]
        turns: Counter[float] = Counter()
        for value, index in ranked:
            turns[value] += 1
            order = (value, turns[value], (target - source) % len(places), source)
            candidates.append((order, Sentence(direction, index, value)))
    return [sentence for _, sentence in sorted(candidates, key=itemgetter(0))[:SHOWN]]
