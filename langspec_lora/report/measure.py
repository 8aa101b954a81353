"""What a report reads from the sentences themselves: direction by direction, on all cores, kept for the next time."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.files import write_whole
from langspec_lora.notes import is_quiet
from langspec_lora.report import off_target, significance, worst
from langspec_lora.report.off_target import Judge
from langspec_lora.report.resampling import SEED
from langspec_lora.report.significance import MetricSettings
from langspec_lora.report.texts import DirectionTexts, TextFile

_FORMAT = 2  # of what is measured; another number leaves the caches of earlier versions aside
_SECONDS_BETWEEN_SAVES = 20.0
_MOST_PROCESSES = 8
_DIRECTIONS_WORTH_A_PROCESS = 8


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        metric: the metric of the paired bootstrap; None leaves the test out.
        samples: its resamples.
        sentences: whether to look for the worst sentences.
        judges: for each target language how wrong language is told; None leaves that out.
    """

    metric: MetricSettings | None
    samples: int
    sentences: bool
    judges: Mapping[str, Judge] | None


@dataclass(frozen=True)
class Measured:
    """What was measured of one direction.

    Attributes:
        p_values: of each later run against the first, uncorrected.
        worst: of each run the lowest sentences by chrF++, value and index; empty hypotheses are not among them.
        losses: of each later run those that lost most chrF++ against the first.
        wrong: of each run the number of hypotheses in another language, and of those without a letter.
    """

    p_values: tuple[float, ...] = ()
    worst: tuple[worst.Ranked, ...] = ()
    losses: tuple[worst.Ranked, ...] = ()
    wrong: tuple[tuple[int, int], ...] = ()


class Cache:
    """Measurements by key in a JSON file; a missing or unreadable one is an empty one.

    Attributes:
        trouble: why the file could not be written, where that is so.
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
        self._values: dict[str, object] = content if isinstance(content, dict) else {}

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __getitem__(self, key: str) -> object:
        return self._values[key]

    def add(self, values: Mapping[str, object]) -> None:
        """Takes measurements up, and saves them now and then."""
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
    """One measurement: its key, its kind, and of which runs."""

    key: str
    kind: str
    run: int


@dataclass(frozen=True)
class _Task:
    texts: DirectionTexts
    plan: Plan
    pieces: tuple[_Piece, ...]


def measure(
    texts: Mapping[Direction, DirectionTexts], plan: Plan, cache: Cache, processes: int | None = None
) -> dict[Direction, Measured]:
    """Measures every direction; what the cache holds is taken from there.

    Args:
        texts: the directions' texts.
        plan: what to measure.
        cache: what was measured before; it is added to, and saved even where this is interrupted.
        processes: how many to use; by default one for each core, up to eight.
    """
    pieces = {direction: list(_pieces(own, plan)) for direction, own in texts.items()}
    tasks = []
    # Directions into one language follow each other: its references are prepared once in each process.
    for direction in sorted(texts, key=lambda d: (d.target, d.source)):
        missing = tuple(piece for piece in pieces[direction] if piece.key not in cache)
        if missing:
            judges = {direction.target: plan.judges[direction.target]} if plan.judges else None
            small = Plan(plan.metric, plan.samples, plan.sentences, judges)
            tasks.append(_Task(texts[direction], small, missing))
    if tasks:
        try:
            with tqdm(total=len(tasks), unit="direction", desc="sentences", disable=is_quiet(), **_pace()) as bar:
                for values in _run(tasks, processes or _cores()):
                    cache.add(values)
                    bar.update()
        finally:
            cache.save()
    return {direction: _collect(own, cache) for direction, own in pieces.items()}


def build_judges(texts: Mapping[Direction, DirectionTexts], cache: Cache) -> dict[str, Judge]:
    """Decides how wrong language is told in each language, from the references, and the sources where it has none."""
    files: dict[str, TextFile] = {}
    for direction, own in texts.items():
        files[direction.target] = own.reference
        if own.source:
            files.setdefault(direction.source, own.source)
    version = off_target.identifier_version()
    key = _key("judges", version, sorted((language, file.sha256) for language, file in files.items()))
    if key not in cache:
        judges = off_target.build_judges({language: file.read() for language, file in files.items()})
        cache.add({key: [asdict(judge) for judge in judges.values()]})
    return {entry["language"]: _judge(entry) for entry in cache[key]}


def _judge(entry: Mapping) -> Judge:
    return Judge(**{name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()})


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps([_FORMAT, *parts]).encode()).hexdigest()[:32]


def _pieces(texts: DirectionTexts, plan: Plan) -> Iterator[_Piece]:
    import sacrebleu

    reference, hypotheses = texts.reference.sha256, [own.sha256 for own in texts.hypotheses]
    version = sacrebleu.__version__
    for run, own in enumerate(hypotheses):
        if plan.metric and run:
            how = (plan.metric.signature, plan.metric.arguments, version, plan.samples, SEED)
            yield _Piece(_key("bootstrap", how, reference, hypotheses[0], own), "p_values", run)
        if plan.sentences:
            yield _Piece(_key("worst", version, reference, own), "worst", run)
            if run:
                yield _Piece(_key("losses", version, reference, hypotheses[0], own), "losses", run)
        if plan.judges:
            judge = plan.judges[texts.direction.target]
            how = (asdict(judge), off_target.identifier_version() if judge.identified else "")
            yield _Piece(_key("wrong", how, own), "wrong", run)


def _collect(pieces: Sequence[_Piece], cache: Cache) -> Measured:
    found: dict[str, list] = {}
    for piece in pieces:
        found.setdefault(piece.kind, []).append(cache[piece.key])
    return Measured(**{kind: tuple(values) for kind, values in found.items()})


def _cores() -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, _MOST_PROCESSES)


def _pace() -> dict[str, float]:
    """A progress bar on a terminal; a line now and then elsewhere."""
    interval = 0.2 if sys.stderr.isatty() else 20.0
    return {"mininterval": interval, "maxinterval": interval}


def _run(tasks: Sequence[_Task], processes: int) -> Iterator[dict[str, object]]:
    if processes == 1 or len(tasks) < _DIRECTIONS_WORTH_A_PROCESS:
        yield from map(_measure_direction, tasks)
        return
    # Fresh processes: to fork one that has threads is not safe, and there is no forking on every system.
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_ignore_interrupt)
    try:
        for future in as_completed([pool.submit(_measure_direction, task) for task in tasks]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _ignore_interrupt() -> None:
    """Leaves Ctrl-C to the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _measure_direction(task: _Task) -> dict[str, object]:
    texts, plan = task.texts, task.plan
    lines = lru_cache(maxsize=None)(lambda run: texts.hypotheses[run].read())
    chrf = lru_cache(maxsize=None)(lambda run: worst.sentence_scores(_metric(worst.CHRF, texts.reference), lines(run)))
    by_kind: dict[str, list[_Piece]] = {}
    for piece in task.pieces:
        by_kind.setdefault(piece.kind, []).append(piece)
    values: dict[str, object] = {}
    if tested := by_kind.get("p_values"):
        metric = _metric(plan.metric, texts.reference)
        others = [lines(piece.run) for piece in tested]
        found = significance.paired_p_values(plan.metric, metric, lines(0), others, plan.samples)
        values |= {piece.key: p_value for piece, p_value in zip(tested, found, strict=True)}
    for piece in by_kind.get("worst", ()):
        hypotheses = lines(piece.run)
        said = [index for index in _not_empty(texts.reference) if hypotheses[index].strip()]
        values[piece.key] = worst.lowest(chrf(piece.run), said)
    for piece in by_kind.get("losses", ()):
        changes = [later - first for first, later in zip(chrf(0), chrf(piece.run), strict=True)]
        values[piece.key] = worst.lowest(changes, _not_empty(texts.reference))
    for piece in by_kind.get("wrong", ()):
        values[piece.key] = off_target.count_wrong(plan.judges[texts.direction.target], lines(piece.run))
    return values


@lru_cache(maxsize=2)
def _metric(settings: MetricSettings, references: TextFile):
    return settings.build(references.read())


@lru_cache(maxsize=2)
def _not_empty(references: TextFile) -> tuple[int, ...]:
    return tuple(index for index, line in enumerate(references.read()) if line.strip())
