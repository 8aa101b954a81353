"""Changes the code in one place after another and sees whether a test notices: what none notices lacks a test.

    .venv/bin/pip install -e ".[mutation]"
    .venv/bin/python scripts/mutation.py langspec_lora/lora langspec_lora/criterion.py

It takes modules and folders; without any, all that :data:`TESTS` knows. Each change is tried in a copy of the project,
in a process in which torch and fairseq are loaded already, with the tests that belong to the module, those first that
have noticed another change. Run again, it goes on where it was, and tries again what has survived. It ends with the
changes that survive, but for those that ``tests/equivalent_mutants.yaml`` explains, and fails if there are any.
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
from mutants import Mutant, mutants_of
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "langspec_lora"
RESULTS = ROOT / "build" / "mutation.jsonl"
EQUIVALENT = ROOT / "tests" / "equivalent_mutants.yaml"

TESTS = {
    "lora": "unit/lora_linear unit/routing unit/freezing unit/merge unit/config",
    "pruning": "unit/pruning unit/task unit/config",
    "criterion.py": "unit/criterion",
    "models": "unit/attention unit/language_specific_model unit/generation unit/task unit/adapter_state",
    "tasks": "unit/task unit/generation unit/merge integration/bad_training integration/bad_generation",
    "data/language_ids.py": "unit/language_ids unit/generation integration/bad_training",
    "evaluation": "unit/scoreboard unit/report unit/report_texts integration/evaluate integration/evaluate_runs",
    "reporting": "unit/report unit/report_html unit/report_texts unit/significance unit/off_target",
    "checkpoints": "unit/adapter_file unit/adapter_state unit/adapters unit/checkpoint_layout integration/export "
    "integration/languages_join integration/bad_commands integration/bad_training",
    "checkpoints/huggingface": "unit/huggingface_architecture unit/huggingface_tokenizer "
    "integration/huggingface_import integration/peft_import integration/huggingface",
}
"""The tests of a module, those of the longest prefix that fits: none of these starts a training of its own."""

PRELOADED = ("numpy", "torch", "fairseq", "fairseq_cli.train", "fairseq_cli.generate", "fairseq.models.transformer",
             "sacrebleu", "sentencepiece", "matplotlib.pyplot", "jinja2", "transformers", "peft")  # fmt: skip
SLACK = 20.0
"""Seconds that a run of the tests may take longer than three times what it takes on the right code."""


class Witness:
    """A pytest plugin: runs first what failed before, and writes down what fails now."""

    def __init__(self, earlier: Sequence[str], report: Path) -> None:
        self._earlier = {name: number for number, name in enumerate(earlier)}
        self._report = report

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Sorts the tests."""
        items.sort(key=lambda item: self._earlier.get(item.nodeid, len(self._earlier)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Notes a failure."""
        if report.failed:
            self._report.write_text(report.nodeid)


@dataclass
class Module:
    """A module of the package, its tests, and the tests that have noticed a change of it, the latest first."""

    path: Path
    code: str
    tests: list[str]
    seconds: float = 0.0
    witnesses: list[str] = field(default_factory=list)


@dataclass
class Trial:
    """A process that runs the tests of a module, with a change or without."""

    module: Module
    mutant: Mutant | None
    copy: Path
    report: Path
    started: float

    @property
    def limit(self) -> float:
        """The second at which it is ended: a change may well loop forever."""
        return self.started + 3 * self.module.seconds + SLACK if self.mutant else float("inf")


def main() -> int:
    """Runs the command."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what is running is ended too
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("paths", nargs="*", type=Path, help="modules and folders (default: all that have tests here)")
    parser.add_argument("--processes", type=int, default=2, help="trials at the same time (default: %(default)s)")
    parser.add_argument("--list", action="store_true", help="only print the changes that would be tried")
    parser.add_argument("--report", action="store_true", help="only print what earlier runs have found")
    args = parser.parse_args()
    modules = [Module(path, path.read_text(encoding="utf-8"), tests_of(path)) for path in modules_of(args.paths)]
    work = [(module, mutant) for module in modules for mutant in mutants_of(name_of(module.path), module.code)]
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
        gc.freeze()  # so that no trial looks through all of it
        results |= run(modules, todo, args.processes)
    return summary(work, explained, results)


def modules_of(paths: Sequence[Path]) -> list[Path]:
    """All modules that the paths name."""
    found = [path.resolve() for path in paths] or [ROOT / PACKAGE / name for name in TESTS]
    files = [file for path in found for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]
    return list(dict.fromkeys(files))


def name_of(path: Path) -> str:
    """A module's path in the project."""
    return path.relative_to(ROOT).as_posix()


def tests_of(path: Path) -> list[str]:
    """The tests of a module, as paths in the project."""
    name = path.relative_to(ROOT / PACKAGE).as_posix()
    fitting = [prefix for prefix in TESTS if name == prefix or name.startswith(f"{prefix}/")]
    if not fitting:
        sys.exit(f"mutation.py: error: {name} has no tests in TESTS; add a line there")
    files = [test.replace("/", "/test_") for test in TESTS[max(fitting, key=len)].split()]
    return [f"tests/{file}.py" for file in files]


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
    """Why a change is no wrong one, where that is so."""
    for entry in explained:
        fits = entry["module"] == name_of(module.path) and entry["was"].strip() in mutant.was
        if fits and ("now" not in entry or entry["now"].strip() == mutant.now.strip()):
            return entry["why"]
    return None


def run(modules: Sequence[Module], todo: Sequence[tuple[Module, Mutant]], processes: int) -> dict[str, str]:
    """Tries all changes, and writes down each outcome.

    Args:
        modules: all modules.
        todo: the changes.
        processes: how many at the same time.
    """
    results = {}
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder, tqdm(total=len(todo), unit="change") as bar:
        copies = [copy_project(Path(folder) / str(number)) for number in range(processes)]
        measure([module for module, _ in todo], copies[0])
        RESULTS.parent.mkdir(exist_ok=True)
        with RESULTS.open("a", encoding="utf-8") as file:
            for trial, outcome in outcomes(iter(todo), copies):
                results[trial.mutant.key] = outcome
                entry = {"key": trial.mutant.key, "outcome": outcome, "module": name_of(trial.module.path)}
                file.write(json.dumps({**entry, "was": trial.mutant.was, "now": trial.mutant.now}) + "\n")
                file.flush()
                bar.update()
                if outcome == "survived":
                    bar.write(f"{name_of(trial.module.path)}:{trial.mutant.line} survived\n{trial.mutant}")
    return results


def copy_project(folder: Path) -> Path:
    """A copy of what the tests need."""
    skipped = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "quickstart", "*.egg-info")
    return Path(shutil.copytree(ROOT, folder, ignore=skipped))


def measure(modules: Sequence[Module], copy: Path) -> None:
    """Runs the tests of all modules on the right code, which takes as long as a change that survives."""
    seconds: dict[tuple[str, ...], float] = {}
    for module in modules:
        if (tests := tuple(module.tests)) not in seconds:
            trials: dict[int, Trial] = {}
            start(trials, module, None, copy)
            trial, outcome = next(ended(trials))
            if outcome != "survived":
                sys.exit(f"mutation.py: error: {witness(trial) or tests} fails on the code as it is; mend that first")
            seconds[tests] = time.monotonic() - trial.started
        module.seconds = seconds[tests]


def outcomes(todo: Iterator[tuple[Module, Mutant]], copies: Sequence[Path]) -> Iterator[tuple[Trial, str]]:
    """Keeps every copy busy."""
    trials: dict[int, Trial] = {}
    free = list(copies)
    waiting = True
    try:
        while waiting or trials:
            while free and waiting:
                module, mutant = next(todo, (None, None))
                waiting = module is not None
                if waiting:
                    start(trials, module, mutant, free.pop())
            for trial, outcome in ended(trials):
                (trial.copy / name_of(trial.module.path)).write_text(trial.module.code, encoding="utf-8")
                free.append(trial.copy)
                yield trial, outcome
                break
    finally:
        for process in trials:
            os.killpg(process, signal.SIGKILL)


def start(trials: dict[int, Trial], module: Module, mutant: Mutant | None, copy: Path) -> None:
    """Forks a process that runs the tests."""
    if mutant is not None:
        (copy / name_of(module.path)).write_text(mutant.code, encoding="utf-8")
    report = copy.with_name(f"{copy.name}.failed")
    report.unlink(missing_ok=True)
    process = os.fork()
    if process == 0:
        os._exit(run_tests(module, copy, report))
    trials[process] = Trial(module, mutant, copy, report, time.monotonic())


def run_tests(module: Module, copy: Path, report: Path) -> int:
    """What the forked process does; gives its exit status."""
    os.setsid()
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(silence, stream)
    os.chdir(copy)
    os.environ |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(copy)}
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    sys.dont_write_bytecode = True
    sys.path[:] = [
        str(copy),
        *(path for path in sys.path if Path(path or ".").resolve() not in (ROOT, ROOT / "scripts")),
    ]
    arguments = ["-x", "-q", "-p", "no:cacheprovider", "--basetemp", f"{copy}.tmp", *module.tests]
    return int(pytest.main(arguments, plugins=[Witness(module.witnesses, report)]))


def ended(trials: dict[int, Trial]) -> Iterator[tuple[Trial, str]]:
    """Waits for processes to end, or ends those that take too long."""
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
    """Prints a line for each module and every survivor; gives the exit status."""
    counts: dict[str, Counter] = {}
    survivors = []
    for module, mutant in work:
        outcome = "explained" if reason(explained, module, mutant) else results.get(mutant.key, "not tried")
        counts.setdefault(name_of(module.path), Counter())[outcome] += 1
        if outcome == "survived":
            survivors.append(f"{name_of(module.path)}:{mutant.line}\n{mutant}")
    print("\n\n".join(survivors))
    print(f"\n{'module':50} killed survived explained not tried")
    for name, own in counts.items():
        print(f"{name:50} {own['killed']:6} {own['survived']:8} {own['explained']:9} {own['not tried']:9}")
    total = sum(counts.values(), Counter())
    tried = total["killed"] + total["survived"]
    print(f"{total['killed']} of {tried} changes are noticed" + (f": {total['killed'] / tried:.1%}" if tried else ""))
    return int(bool(survivors))


if __name__ == "__main__":
    sys.exit(main())
