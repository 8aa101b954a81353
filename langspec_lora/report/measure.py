"""What a report reads from the sentences themselves: direction by direction, on all cores, kept for the next time."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections import Counter, UserDict, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from itertools import chain
from multiprocessing import get_context
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import sacrebleu

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.files import write_whole
from langspec_lora.progress import Progress
from langspec_lora.report import off_target
from langspec_lora.report.measure_direction import (
    SHOWN,
    VECTORS,
    MeasureOptions,
    Ranked,
    Task,
    files_of_runs,
)
from langspec_lora.report.measure_direction import (
    measure_direction as _measure_direction,
)
from langspec_lora.report.off_target import Judge
from langspec_lora.report.significance import SEED, MetricSettings
from langspec_lora.report.texts import DirectionTexts, TextFile
from langspec_lora.report.vector_file import VectorFile

Measured = Mapping[tuple[str, int], Mapping[Direction, Any]]
"""What was measured of each direction, by kind of measurement and number of the run:

* ``bootstrap`` or ``randomization``: the uncorrected p-value of a later run against the first;
* ``worst``: a run's lowest sentences by chrF++, :data:`Ranked`; empty hypotheses are not among them;
* ``losses``: those of a later run that lost most chrF++ against the first, likewise;
* ``wrong``: the number of hypotheses in another language, and of those without a letter, in a file of hypotheses;
* ``degenerate``: what :func:`~langspec_lora.report.degeneration.count_degenerate` counts in such a file;
* ``copy``, number 0: the score of the source text as if it were a translation;
* ``resampled``: a key of :class:`~langspec_lora.report.vector_file.VectorFile`: the scores of the resamples of a file
  of hypotheses;
* ``swapped``: likewise the scores of the first run, then those of a later one, in trials that swap their sentences.

The number is that of a run, or where it says so that of a file in :attr:`DirectionTexts.hypotheses`, of which a run of
several seeds has several.
"""

_FORMAT = 2  # of what is measured; another number leaves the caches of earlier versions aside
_SECONDS_BETWEEN_SAVES = 20.0
_MOST_PROCESSES = 8
_DIRECTIONS_WORTH_A_PROCESS = 8


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
    texts: Mapping[Direction, DirectionTexts],
    options: MeasureOptions,
    cache: Cache,
    processes: int | None = None,
    vectors: VectorFile | None = None,
) -> Measured:
    """Measures every direction; what the cache holds is taken from there.

    Args:
        texts: the directions' texts.
        options: what to measure.
        cache: what was measured before; it is added to, and saved even where this is interrupted.
        processes: how many to use; None for one for each core, up to eight.
        vectors: likewise, for the measurements that are vectors.
    """
    if vectors is None:
        assert not options.draws
        vectors = VectorFile(Path(os.devnull))
    keys = {direction: _keys(files, options) for direction, files in texts.items()}
    tasks: list[Task] = []
    # Directions into one language follow each other: its references are prepared once in each process.
    for direction in sorted(texts, key=lambda d: (d.target, d.source)):
        wanted = keys[direction].items()
        missing = {what: key for what, key in wanted if key not in (vectors if what[0] in VECTORS else cache)}
        if missing:
            judges = {direction.target: options.judges[direction.target]} if options.judges else {}
            draws = {direction: options.draws[direction]} if options.draws else {}
            tasks.append((texts[direction], replace(options, judges=judges, draws=draws), missing))
    if tasks:
        try:
            with Progress(total=len(tasks), unit="direction", desc="sentences") as progress:
                for values in _run(tasks, processes or _cores()):
                    for key in [key for key, value in values.items() if isinstance(value, np.ndarray)]:
                        vectors.add(key, values.pop(key))
                    cache.add(values)
                    progress.update()
        finally:
            cache.save()
            vectors.save()
    measured: dict[tuple[str, int], dict[Direction, Any]] = defaultdict(dict)
    for direction, asked in keys.items():
        for what, key in asked.items():
            measured[what][direction] = key if what[0] in VECTORS else cache[key]
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
    """The keys of a direction's measurements, whose kinds and numbers are those of :data:`Measured`.

    Each names all that the measurement depends on.
    """
    reference, version = texts.reference.sha256, sacrebleu.__version__
    hashes = [file.sha256 for file in texts.hypotheses]
    # What a run of one file depends on, and what one of several seeds does: the number decides which are drawn.
    runs = [
        hashes[files[0]] if len(files) == 1 else [run, *(hashes[file] for file in files)]
        for run, files in enumerate(files_of_runs(texts, options))
    ]
    keys: dict[tuple[str, int], str] = {}

    def scored(metric: MetricSettings) -> tuple[object, ...]:
        return metric.signature, metric.arguments, version

    for run, own in enumerate(runs):
        if options.metric and run:
            test = (*scored(options.metric), options.samples, SEED)
            keys[options.test, run] = _key(options.test, test, reference, runs[0], own)
        if options.sentences:
            keys["worst", run] = _key("worst", version, reference, own)
        if options.sentences and run:
            keys["losses", run] = _key("losses", version, reference, runs[0], own)
        if options.drawn_metric and options.draws and options.test == "randomization" and run:
            drawn = (*scored(options.drawn_metric), options.draw_samples, options.draws[texts.direction])
            keys["swapped", run] = _key("swapped", drawn, reference, runs[0], own)
    for number, digest in enumerate(hashes):
        if options.judges:
            judge = options.judges[texts.direction.target]
            judged_by = (asdict(judge), off_target.identifier_version() if judge.identified else "")
            keys["wrong", number] = _key("wrong", judged_by, digest)
        if options.degeneration:
            keys["degenerate", number] = _key("degenerate", reference, texts.source and texts.source.sha256, digest)
        if options.drawn_metric and options.draws:
            drawn = (*scored(options.drawn_metric), options.draw_samples, options.draws[texts.direction])
            keys["resampled", number] = _key("resampled", drawn, reference, digest)
    if options.copy_metric and texts.source:
        keys["copy", 0] = _key("copy", scored(options.copy_metric), reference, texts.source.sha256)
    return keys


def _cores() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, _MOST_PROCESSES)


def _run(tasks: Sequence[Task], processes: int) -> Iterator[dict[str, Any]]:
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
