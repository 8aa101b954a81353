"""Damages every kind of file that langspec_lora reads, and looks at what its readers do.

    python scripts/fuzz.py --minutes 20                     # all targets
    python scripts/fuzz.py --minutes 1 --target adapter,peft
    python scripts/fuzz.py --replay adapter/0/123           # a case again, with its traceback

Each case is one damaged file, read in a process apart, with a limit of time and memory and without a network. The
verdicts:

* ``refused``: a sentence (UserError, or an OSError that names its file, which commands print as one)
* ``equal``: accepted, with what the sound file holds
* ``written``: accepted, with what another reading of the damaged file finds, as for an exchanged letter in a text
* ``warned``: accepted with other content, and a warning
* ``edited``: accepted with other content, after an edit that may well give another sound file (see fuzz_mutators.py)
* ``unchecked``: accepted with other numbers, where the format of others has no checksum (safetensors, SentencePiece)
* ``silent``: **accepted with other content after damage, without a word**
* ``traceback``, ``crash``, ``hang``, ``memory``, ``escaped`` (a file outside the folder), ``wordy`` (a message that
  fills a screen): **never right**

Those of the last two lines are findings. Their files are kept in ``build/fuzz/TARGET/SEED/CASE``, and the exit code is
1. The same seed and case give the same file.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import pickle
import random
import resource
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: a forked process has none of its threads
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fuzz_formats import BY_FORMAT
from fuzz_targets import TARGETS, Target, digest

from langspec_lora import files
from langspec_lora.errors import SeveralErrors, UserError, listed

ROOT = Path(__file__).resolve().parents[1]
FINDINGS = ("silent", "traceback", "crash", "hang", "memory", "escaped", "wordy")
VERDICTS = ("refused", "equal", "written", "warned", "edited", "unchecked", *FINDINGS)
KEPT = ROOT / "build" / "fuzz"
LONGEST_MESSAGE = 1000  # characters of one mistake
MOST_LINES = 21
CASES_IN_A_PROCESS = 40


class Outcome(NamedTuple):
    """What became of a case.

    Attributes:
        verdict: one of :data:`VERDICTS`.
        mutator: what was done to which file.
        detail: the message, or the traceback.
        place: the innermost line of a traceback, which tells findings apart.
    """

    verdict: str
    mutator: str
    detail: str = ""
    place: str = ""


class Limits(NamedTuple):
    """What a case may take: seconds, and bytes beyond those of this program."""

    seconds: float
    memory: int


def run_case(target: Target, sound: Path, seed: int, case: int, outer: Path, keep: Path | None = None) -> Outcome:
    """Damages a copy of a sound folder, and reads it.

    Args:
        target: what to read.
        sound: its sound files, and ``expected``, the hash of what is read from them.
        seed: together with ``case`` it decides what is damaged, and how.
        case: the number of the case.
        outer: an empty folder to work in.
        keep: a folder to which the damaged file is copied before it is read; removed if this is no finding.
    """
    draw = random.Random(f"{seed}/{target.name}/{case}")
    folder = outer / "a" / "b" / "input"
    shutil.copytree(sound, folder)
    expected = (folder / "expected").read_text()
    (folder / "expected").unlink()
    name = draw.choice(list(target.files))
    mutator = draw.choice(BY_FORMAT[target.files[name]])
    before = (folder / name).read_bytes()
    after = mutator.change(draw, before)
    (folder / name).write_bytes(after)
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        (keep / Path(name).name).write_bytes(after)
        (keep / "mutator").write_text(f"{mutator.name} of {name}")
    outcome = _read(target, folder, expected, f"{mutator.name} of {name}", mutator.is_damage)
    if outcome.verdict == "silent" and name in target.unchecked and target.unchecked[name](before, after):
        outcome = outcome._replace(verdict="unchecked")
    beside = [path for level in (outer, outer / "a", outer / "a" / "b") for path in level.iterdir()]
    if len(beside) != 3:
        outcome = Outcome("escaped", outcome.mutator, f"wrote {beside}", "escaped")
    if keep is not None and outcome.verdict not in FINDINGS:
        shutil.rmtree(keep)
    return outcome


def run_cases(
    target: Target, sound: Path, seed: int, first: int, limits: Limits, kept: Path
) -> Iterator[tuple[int, Outcome]]:
    """Runs cases in a process of their own, until one ends it, or there have been :data:`CASES_IN_A_PROCESS`."""
    reader, writer = os.pipe()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as work:
        child = os.fork()
        if not child:
            try:
                os.close(reader)
                _guard(limits)
                _answer(target, sound, seed, first, Path(work), kept, writer)
            finally:
                os._exit(0)  # it must not go on as a second process of the caller
        os.close(writer)
        status = None
        try:
            with os.fdopen(reader, "rb", buffering=0) as pipe:
                for case in range(first, first + CASES_IN_A_PROCESS):
                    answered = bool(select.select([pipe], [], [], limits.seconds)[0])
                    if not answered:
                        os.kill(child, signal.SIGKILL)
                    size = pipe.read(_SIZE) if answered else b""
                    if size:
                        yield case, _received(pipe, int.from_bytes(size, "little"))
                        continue
                    _, status = os.waitpid(child, 0)
                    noted = kept / str(case) / "mutator"
                    mutator = noted.read_text() if noted.exists() else "?"
                    why = f"status {status}" if answered else f"longer than {limits.seconds:g} s"
                    yield case, Outcome("crash" if answered else "hang", mutator, why)
                    return
        finally:
            if status is None:
                os.kill(child, signal.SIGKILL)  # it has answered all, or nobody asks any more
                os.waitpid(child, 0)


_SIZE = 8


def _answer(target: Target, sound: Path, seed: int, first: int, work: Path, kept: Path, writer: int) -> None:
    """Runs cases and writes their outcomes into a pipe."""
    for case in range(first, first + CASES_IN_A_PROCESS):
        outer = work / str(case)
        outer.mkdir()
        try:
            outcome = run_case(target, sound, seed, case, outer, kept / str(case))
        except BaseException as error:
            outcome = Outcome("crash", "", f"the fuzzer itself failed: {error!r}", repr(error))
        shutil.rmtree(outer, ignore_errors=True)
        content = pickle.dumps(outcome)
        message = len(content).to_bytes(_SIZE, "little") + content
        while message:
            message = message[os.write(writer, message) :]


def _received(pipe: Any, size: int) -> Outcome:
    content = b""
    while len(content) < size:
        content += pipe.read(size - len(content))
    return pickle.loads(content)


def _guard(limits: Limits) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a reader of files opened a socket")

    socket.socket = refuse  # type: ignore[assignment, misc]
    pages = Path("/proc/self/statm")
    if pages.exists():
        most = int(pages.read_text().split()[0]) * resource.getpagesize() + limits.memory
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # of libraries in C


def _read(target: Target, folder: Path, expected: str, label: str, is_damage: bool) -> Outcome:
    files._log_byte_order_mark.cache_clear()  # it warns once in a process
    logged, printed = _Records(), StringIO()
    logging.getLogger().addHandler(logged)
    try:
        with warnings.catch_warnings(), redirect_stderr(printed), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            found = digest(_read_from(target, folder))
    except (UserError, OSError) as error:
        if isinstance(error, OSError) and error.filename is None:
            return _failed(error, label)
        error = error if isinstance(error, UserError) else UserError(f"{error.filename}: {error.strerror}")
        mistakes = list(map(str, error.errors if isinstance(error, SeveralErrors) else [error]))
        wordy = max(map(len, mistakes)) > LONGEST_MESSAGE or listed(mistakes).count("\n") > MOST_LINES
        return Outcome("wordy" if wordy else "refused", label, "\n".join(mistakes)[: 4 * LONGEST_MESSAGE])
    except Exception as error:
        return _failed(error, label)
    if found == expected:
        return Outcome("equal", label)
    if target.as_written is not None:
        try:
            if digest(target.as_written(Path())) == found:
                return Outcome("written", label)
        except Exception as error:
            why = f"another reading of the file fails: {error!r}"
            return Outcome("silent", label, why, f"{label}: {type(error).__name__}")
        return Outcome("silent", label, "another reading of the file finds something else", label)
    if logged.found or printed.getvalue():
        return Outcome("warned", label)
    return Outcome("silent" if is_damage else "edited", label, "", label if is_damage else "")


def _read_from(target: Target, folder: Path) -> Any:
    os.chdir(folder)  # so that no path in what is found differs
    return target.read(Path())


def _failed(error: Exception, label: str) -> Outcome:
    text = "".join(traceback.format_exception(error))
    if isinstance(error, MemoryError) or "allocate memory" in str(error) or "not enough memory" in str(error):
        return Outcome("memory", label, text[-3000:], "memory")
    last = [frame for frame in traceback.extract_tb(error.__traceback__) if "langspec_lora" in frame.filename][-1:]
    place = "".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in last)
    return Outcome("traceback", label, text[-3000:], f"{place} {type(error).__name__}")


class _Records(logging.Handler):
    """Notes whether anything was logged that a user sees."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found = False

    def emit(self, record: logging.LogRecord) -> None:
        self.found = True


def prepare(target: Target, folder: Path) -> Path:
    """Writes the sound files of a target, and the hash of what is read from them."""
    sound = folder / target.name
    sound.mkdir()
    target.make(sound)
    hashes = set()
    for number in range(2):  # what is read must not depend on the folder, nor on chance
        trial = folder / f"{target.name}.{number}"
        shutil.copytree(sound, trial)
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            hashes.add(digest(_read_from(target, trial)))
    if len(hashes) > 1:
        raise RuntimeError(f"{target.name} reads something else each time, so that nothing can be compared")
    (expected,) = hashes
    (sound / "expected").write_text(expected)
    return sound


def fuzz(target: Target, sound: Path, seed: int, seconds: float, limits: Limits) -> Iterator[tuple[int, Outcome]]:
    """Runs cases for some time."""
    end, first = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        for case, outcome in run_cases(target, sound, seed, first, limits, KEPT / target.name / str(seed)):
            yield case, outcome
        first = case + 1


def table(counts: dict[str, Counter[str]]) -> str:
    """The verdicts by target, as Markdown."""
    shown = [verdict for verdict in VERDICTS if any(count[verdict] for count in counts.values())]
    rows = [["target", "cases", *shown]]
    rows += [[name, sum(count.values()), *(count[verdict] for verdict in shown)] for name, count in counts.items()]
    total: Counter[str] = sum(counts.values(), Counter())
    rows.append(["all", sum(total.values()), *(total[verdict] for verdict in shown)])
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join([lines[0], f"|{'---|' * len(rows[0])}", *lines[1:]])


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="time for all targets together (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="other numbers give other cases (default: 0)")
    parser.add_argument("--target", help=f"targets joined by commas (default: all): {', '.join(TARGETS)}")
    parser.add_argument("--replay", metavar="TARGET/SEED/CASE", help="run one case again and show what it does")
    parser.add_argument("--seconds", type=float, default=20.0, help="time limit of a case (default: 20)")
    parser.add_argument("--memory", type=int, default=1024, help="memory limit of a case in MiB (default: 1024)")
    args = parser.parse_args(words)
    limits = Limits(args.seconds, args.memory << 20)
    chosen = args.replay.split("/")[:1] if args.replay else (args.target or ",".join(TARGETS)).split(",")
    unknown = [name for name in chosen if name not in TARGETS]
    if unknown:
        parser.error(f"unknown target {unknown[0]!r}; expected one of {', '.join(TARGETS)}")
    with tempfile.TemporaryDirectory(prefix="fuzz-sound-") as folder:
        sound = {name: prepare(TARGETS[name], Path(folder)) for name in chosen}
        if args.replay:
            name, seed, case = args.replay.split("/")
            with tempfile.TemporaryDirectory(prefix="fuzz-") as outer:
                outcome = run_case(TARGETS[name], sound[name], int(seed), int(case), Path(outer))
            print(f"{outcome.verdict}: {outcome.mutator}\n{outcome.detail}")
            return int(outcome.verdict in FINDINGS)
        counts: dict[str, Counter[str]] = {}
        for name in chosen:
            counts[name], places = Counter(), Counter()
            for case, outcome in fuzz(TARGETS[name], sound[name], args.seed, 60 * args.minutes / len(chosen), limits):
                counts[name][outcome.verdict] += 1
                if outcome.verdict in FINDINGS:
                    kept = KEPT / name / str(args.seed) / str(case)
                    kept.mkdir(parents=True, exist_ok=True)
                    (kept / "outcome.json").write_text(json.dumps(outcome._asdict(), indent=1))
                    places[outcome.verdict, outcome.place] += 1
                    if places[outcome.verdict, outcome.place] == 1:
                        last = outcome.detail.strip().splitlines()[-1:] or [""]
                        print(
                            f"{outcome.verdict}: {name}/{args.seed}/{case}: {outcome.mutator}: {last[0][:160]}",
                            flush=True,
                        )
    print(f"\n{table(counts)}")
    return int(any(count[verdict] for count in counts.values() for verdict in FINDINGS))


if __name__ == "__main__":
    sys.exit(main())
