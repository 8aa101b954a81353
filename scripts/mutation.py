"""Makes small changes to the code, one at a time, and runs the tests: a change that no test notices lacks a test.

    .venv/bin/pip install -e ".[mutation]"
    .venv/bin/python scripts/mutation.py langspec_lora/lora langspec_lora/criterion.py

It takes modules and folders; by default, the whole package. First it runs all tests except the slowest, or those of
``--tests``, once, to record which lines each test runs. It stores this until code or tests change. Then it tries each
change in a copy of the project, in a process that has already loaded torch and fairseq. It runs the tests that run the
changed lines, and first those that have noticed another change. Run it again to continue after an interruption; it then
also retries the changes that survived. At the end it lists the changes that survived, except those that
``tests/equivalent_mutants.yaml`` explains, and fails if there are any.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: forked processes that share cores would wait for each other

import pytest
import yaml
from covering import Measured, Tracer, choose, files_of, lines_of_statement
from mutants import Mutant, mutants_of
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "langspec_lora"
RESULTS = ROOT / "build" / "mutation.jsonl"
MEASURED = ROOT / "build" / "covering"
EQUIVALENT = ROOT / "tests" / "equivalent_mutants.yaml"

LEFT_OUT = {
    *("integration/test_adapters_only.py", "integration/test_base_of_adapters.py", "integration/test_training.py"),
    *("integration/test_stays_training.py", "integration/test_stock_commands.py", "unit/cli/test_doctor.py"),
    *("integration/test_commands_and_tasks.py", "unit/test_scripts.py", "unit/test_install.py", "unit/test_readme.py"),
    *("unit/example/test_stages.py", "unit/cli/test_full_output.py", "unit/test_benchmark.py"),
}
"""Tests that start programs, which is slow, or that do not test the package."""

PRELOADED = ("numpy", "torch", "fairseq", "fairseq_cli.train", "fairseq_cli.generate", "fairseq.models.transformer",
             "sacrebleu", "sentencepiece", "matplotlib.pyplot", "jinja2", "transformers", "peft")  # fmt: skip
SLACK = 20.0
"""Tests of a change may take three times as long as on the unchanged code, and this many seconds more."""


class Witness:
    """A pytest plugin that runs the chosen tests in their order and records which one fails."""

    def __init__(self, chosen: Sequence[str], report: Path) -> None:
        self._order = {name: number for number, name in enumerate(chosen)}
        self._report = report

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Chooses and sorts the tests."""
        others = [item for item in items if item.nodeid not in self._order]
        items[:] = sorted((item for item in items if item.nodeid in self._order), key=lambda i: self._order[i.nodeid])
        config.hook.pytest_deselected(items=others)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Records a failure."""
        if report.failed:
            self._report.write_text(report.nodeid)


@dataclass
class Module:
    """A module of the package, and the tests that have noticed a change in it, the latest first."""

    path: Path
    code: str
    witnesses: list[str] = field(default_factory=list)


@dataclass
class Trial:
    """A process that runs tests on a change.

    Attributes:
        tests: the tests that it runs.
        seconds: how long they take on the unchanged code.
    """

    module: Module
    mutant: Mutant
    copy: Path
    report: Path
    tests: list[str]
    seconds: float
    started: float

    @property
    def limit(self) -> float:
        """The time at which the process is killed: a change may cause an endless loop."""
        return self.started + 3 * self.seconds + SLACK


def main() -> int:
    """Runs the command."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the running processes are ended too
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("paths", nargs="*", type=Path, help="modules and folders (default: the package)")
    parser.add_argument("--processes", type=int, default=2, help="changes tried in parallel (default: %(default)s)")
    parser.add_argument(
        "--every", type=int, default=1, help="try only every N-th change (default: %(default)s)", metavar="N"
    )
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="seconds of tests per change (default: %(default)s)"
    )
    parser.add_argument("--tests", nargs="+", type=Path, help="only these test files (default: all but the slowest)")
    parser.add_argument("--list", action="store_true", help="only print the changes that would be tried")
    parser.add_argument("--report", action="store_true", help="only print what earlier runs have found")
    args = parser.parse_args()
    modules = [Module(path, path.read_text(encoding="utf-8")) for path in modules_of(args.paths)]
    work = [(module, mutant) for module in modules for mutant in mutants_of(name_of(module.path), module.code)]
    work = work[:: args.every]
    if args.list:
        for module, mutant in work:
            print(f"{name_of(module.path)}:{mutant.line}\n{mutant}")
        return 0
    explained = equivalents()
    results = load_results()
    todo = [
        (module, mutant)
        for module, mutant in work
        if reason(explained, module, mutant) is None and results.get(mutant.key) != "killed"
    ]
    if not args.report:
        for name in PRELOADED:
            preload(name)
        gc.freeze()  # so that the garbage collector of a trial does not scan all of it
        results |= run(todo, args.processes, args.seconds, test_files(args.tests))
    return summary(work, explained, results)


def modules_of(paths: Sequence[Path]) -> list[Path]:
    """All modules that the paths name."""
    found = [path.resolve() for path in paths] or [ROOT / PACKAGE]
    files = [file for path in found for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]
    return list(dict.fromkeys(files))


def test_files(paths: Sequence[Path] | None) -> list[str]:
    """The names of the test files that are run: those given, or all but the slowest."""
    if paths:
        return [name_of(path.resolve(strict=True)) for path in paths]
    files = [name_of(path) for path in sorted((ROOT / "tests").rglob("test_*.py"))]
    return [file for file in files if file.partition("/")[2] not in LEFT_OUT]


def name_of(path: Path) -> str:
    """A file's path in the project."""
    return path.relative_to(ROOT).as_posix()


def preload(name: str) -> None:
    """Imports a package, so that no trial has to."""
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(f"without {name}: {error}", file=sys.stderr)


def load_results() -> dict[str, str]:
    """Outcomes of earlier runs by key."""
    lines = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.exists() else []
    return {entry["key"]: entry["outcome"] for entry in map(json.loads, lines)}


def equivalents() -> list[dict[str, str]]:
    """The changes that no test can notice, with the reason."""
    return (yaml.safe_load(EQUIVALENT.read_text(encoding="utf-8")) or []) if EQUIVALENT.exists() else []


def reason(explained: Sequence[dict[str, str]], module: Module, mutant: Mutant) -> str | None:
    """Why no test can notice a change; None if nothing explains it."""
    for entry in explained:
        fits = entry["module"] == name_of(module.path) and entry["was"].strip() in mutant.was
        if fits and ("now" not in entry or entry["now"].strip() == mutant.now.strip()):
            return entry["why"]
    return None


def run(todo: Sequence[tuple[Module, Mutant]], processes: int, seconds: float, files: list[str]) -> dict[str, str]:
    """Tries changes and records each outcome.

    Args:
        todo: the changes.
        processes: how many changes are tried at the same time.
        seconds: how long the tests of a change may take.
        files: the test files.
    """
    results = {}
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        copies = [copy_project(Path(folder) / str(number)) for number in range(processes)]
        measured = measure(copies, files)
        RESULTS.parent.mkdir(exist_ok=True)
        with RESULTS.open("a", encoding="utf-8") as file, tqdm(total=len(todo), unit="change") as bar:
            for module, mutant, outcome in outcomes(iter(todo), copies, measured, seconds):
                results[mutant.key] = outcome
                entry = {"key": mutant.key, "outcome": outcome, "module": name_of(module.path)}
                file.write(json.dumps({**entry, "was": mutant.was, "now": mutant.now}) + "\n")
                file.flush()
                bar.update()
                if outcome == "survived":
                    bar.write(f"{name_of(module.path)}:{mutant.line} survived\n{mutant}")
    return results


def copy_project(folder: Path) -> Path:
    """Copies what the tests need."""
    skipped = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "quickstart", "*.egg-info")
    return Path(shutil.copytree(ROOT, folder, ignore=skipped))


def measure(copies: Sequence[Path], files: Sequence[str]) -> list[Measured]:
    """Runs every test file that has not been measured yet, to record which lines its tests run."""
    places = {file: MEASURED / f"{file.replace('/', '-')}.json" for file in files}
    waiting = [file for file in files if not is_measured(places[file])]
    running: dict[int, tuple[str, Path]] = {}
    free = list(copies)
    with tqdm(total=len(waiting), unit="test file") as bar:
        while waiting or running:
            while waiting and free:
                file, copy = waiting.pop(), free.pop()
                process = os.fork()
                if process == 0:
                    os._exit(measure_file(file, copy, places[file]))
                running[process] = file, copy
            process, status = os.wait()
            file, copy = running.pop(process)
            if status != 0:
                log = places[file].with_suffix(".log")
                sys.exit(f"mutation.py: error: {file} fails on the unchanged code (see {log}); fix this first")
            free.append(copy)
            bar.update()
    return [Measured.read(place) for place in places.values()]


def is_measured(place: Path) -> bool:
    """Whether a test file has been measured and nothing has changed since."""
    measured = Measured.read(place)
    return measured is not None and measured.is_current(ROOT)


def measure_file(file: str, copy: Path, place: Path) -> int:
    """Measures a test file in the forked process; returns the exit status."""
    place.parent.mkdir(parents=True, exist_ok=True)
    enter(copy, place.with_suffix(".log"))
    tracer = Tracer(copy / PACKAGE, copy / "tests")
    code = int(pytest.main([*pytest_flags(copy), file], plugins=[tracer]))
    if code == 0:
        tracer.finish(copy, file).write(place)
    return code


def outcomes(
    todo: Iterator[tuple[Module, Mutant]], copies: Sequence[Path], measured: Sequence[Measured], seconds: float
) -> Iterator[tuple[Module, Mutant, str]]:
    """Tries the changes, one at a time in every copy of the project, and yields how each ended."""
    trials: dict[int, Trial] = {}
    free = list(copies)
    waiting = True
    try:
        while waiting or trials:
            while free and waiting:
                module, mutant = next(todo, (None, None))
                waiting = module is not None
                if waiting:
                    lines = lines_of_statement(module.code, mutant.line)
                    covering = [found.covering(name_of(module.path), lines) for found in measured]
                    if not (tests := choose(covering, seconds)):
                        yield module, mutant, "survived"
                        continue
                    for test in reversed(module.witnesses):
                        if cost := [sum(found[test].values()) for found in covering if test in found]:
                            tests = {test: cost[0], **tests}
                    start(trials, module, mutant, free.pop(), list(tests), sum(tests.values()))
            for trial, outcome in ended(trials):
                (trial.copy / name_of(trial.module.path)).write_text(trial.module.code, encoding="utf-8")
                free.append(trial.copy)
                yield trial.module, trial.mutant, outcome
                break
    finally:
        for process in trials:
            os.killpg(process, signal.SIGKILL)


def start(
    trials: dict[int, Trial], module: Module, mutant: Mutant, copy: Path, tests: list[str], seconds: float
) -> None:
    """Forks a process that runs tests."""
    (copy / name_of(module.path)).write_text(mutant.code, encoding="utf-8")
    report = copy.with_name(f"{copy.name}.failed")
    report.unlink(missing_ok=True)
    process = os.fork()
    if process == 0:
        sys.dont_write_bytecode = True
        enter(copy)
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        os._exit(int(pytest.main([*pytest_flags(copy), "-x", *files_of(tests)], plugins=[Witness(tests, report)])))
    trials[process] = Trial(module, mutant, copy, report, tests, seconds, time.monotonic())


def enter(copy: Path, log: Path = Path(os.devnull)) -> None:
    """Makes a forked process run tests in a copy of the project and print into a file."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    os.chdir(copy)
    vars(sys.modules["__main__"]).pop("__file__", None)  # else multiprocessing's children begin by importing it
    os.environ |= {"PYTHONPATH": str(copy), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    sys.path[:] = [
        str(copy),
        *(path for path in sys.path if Path(path or ".").resolve() not in (ROOT, ROOT / "scripts")),
    ]


def pytest_flags(copy: Path) -> tuple[str, ...]:
    """The flags of every pytest run."""
    return ("-q", "-p", "no:cacheprovider", "--basetemp", f"{copy}.tmp")


def ended(trials: dict[int, Trial]) -> Iterator[tuple[Trial, str]]:
    """Waits for processes to end and kills those that take too long."""
    while trials:
        process, status = os.waitpid(-1, os.WNOHANG)
        if process in trials:
            trial = trials.pop(process)
            code = os.waitstatus_to_exitcode(status)
            if code != 0 and (test := witness(trial)):
                trial.module.witnesses[:] = list(dict.fromkeys([test, *trial.module.witnesses]))
            yield trial, "survived" if code == 0 else "killed"
            continue
        for process, trial in trials.items():
            if time.monotonic() > trial.limit:
                os.killpg(process, signal.SIGKILL)
        time.sleep(0.02)


def witness(trial: Trial) -> str:
    """The test that failed."""
    return trial.report.read_text() if trial.report.exists() else ""


def summary(work: Sequence[tuple[Module, Mutant]], explained: Sequence[dict[str, str]], results: dict[str, str]) -> int:
    """Prints a line for each module and every surviving change; returns the exit status."""
    counts: dict[str, Counter] = {}
    survivors = []
    for module, mutant in work:
        outcome = "explained" if reason(explained, module, mutant) else results.get(mutant.key, "not tried")
        counts.setdefault(name_of(module.path), Counter())[outcome] += 1
        if outcome == "survived":
            survivors.append(f"{name_of(module.path)}:{mutant.line}\n{mutant}")
    print("\n\n".join(survivors))
    print(f"\n{'module':50} killed survived explained not tried")
    for name, count in counts.items():
        print(f"{name:50} {count['killed']:6} {count['survived']:8} {count['explained']:9} {count['not tried']:9}")
    total = sum(counts.values(), Counter())
    tried = total["killed"] + total["survived"]
    print(f"{total['killed']} of {tried} changes are noticed" + (f": {total['killed'] / tried:.1%}" if tried else ""))
    return int(bool(survivors))


if __name__ == "__main__":
    sys.exit(main())
