"""Measures which tests run which lines of the package and how long each takes, so that :mod:`mutation` can choose."""

from __future__ import annotations

import ast
import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import coverage
import pytest

IMPORT = "import"
"""The context of code that runs while a test file is imported."""


@dataclass
class Measured:
    """What the tests of one file ran.

    Attributes:
        seconds: of each test without its fixtures, and of each fixture, as ``fixture:NAME``.
        fixtures: for each test, the fixtures that it uses, directly or not.
        lines: for each module and line, what ran it: tests, fixtures, or :data:`IMPORT`.
        digests: hashes of the modules that were run and of the tests; if one has changed, the measurement is outdated.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    fixtures: dict[str, list[str]] = field(default_factory=dict)
    lines: dict[str, dict[int, list[str]]] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    def is_current(self, root: Path) -> bool:
        """Whether the modules and tests that were measured have not changed."""
        return all(digest(root / name) == known for name, known in self.digests.items())

    def covering(self, module: str, lines: Iterable[int]) -> dict[str, dict[str, float]]:
        """The tests that ran one of the lines, by themselves or in a fixture, with the seconds of test and fixtures."""
        contexts = {context for line in lines for context in self.lines.get(module, {}).get(line, ())}
        tests = [
            test
            for test, fixtures in self.fixtures.items()
            if IMPORT in contexts or test in contexts or any(f"fixture:{name}" in contexts for name in fixtures)
        ]
        return {test: self._costs(test) for test in tests}

    def _costs(self, test: str) -> dict[str, float]:
        names = (test, *(f"fixture:{name}" for name in self.fixtures[test]))
        return {name: self.seconds.get(name, 0.0) for name in names}

    def write(self, path: Path) -> None:
        """Writes the measurement to a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(vars(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Measured | None:
        """Reads a file that :meth:`write` wrote; None if there is none."""
        if not path.exists():
            return None
        stored = json.loads(path.read_text(encoding="utf-8"))
        lines = {name: {int(line): names for line, names in found.items()} for name, found in stored["lines"].items()}
        return cls(**{**stored, "lines": lines})


class Tracer:
    """A pytest plugin that measures; it needs a process of its own.

    Args:
        package: the folder of the package to trace.
        tests: the folder of the tests.
    """

    def __init__(self, package: Path, tests: Path) -> None:
        self._package, self._tests = package, tests
        self._coverage = coverage.Coverage(data_file=None, include=[f"{package}/*"], config_file=False, plugins=[])
        self._coverage.start()
        self._coverage.switch_context(IMPORT)
        self._context, self._since = IMPORT, time.monotonic()
        self._measured = Measured()

    def _timed(self, context: str):
        """Counts what runs during a hook for a context, except for what nested hooks count for theirs."""
        before = self._context
        self._switch(context)
        try:
            outcome = yield
        finally:
            self._switch(before)
        return outcome

    def _switch(self, context: str) -> None:
        now, seconds = time.monotonic(), self._measured.seconds
        seconds[self._context] = seconds.get(self._context, 0.0) + now - self._since
        self._context, self._since = context, now
        self._coverage.switch_context(context)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item):
        """Records the fixtures of a test and what it runs."""
        self._measured.fixtures[item.nodeid] = list(item.fixturenames)
        return (yield from self._timed(item.nodeid))

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef):
        """Records what a fixture runs."""
        return (yield from self._timed(f"fixture:{fixturedef.argname}"))

    def finish(self, root: Path, file: str) -> Measured:
        """Ends the tracing.

        Args:
            root: the project's folder.
            file: the path of the test file below it.
        """
        self._coverage.stop()
        data = self._coverage.get_data()
        for path in map(Path, data.measured_files()):
            name = path.relative_to(root).as_posix()
            self._measured.lines[name] = data.contexts_by_lineno(str(path))
        helpers = [path.relative_to(root).as_posix() for path in self._tests.rglob("*.py")]
        helpers = [name for name in helpers if not Path(name).name.startswith("test_")]
        for name in (file, *helpers, *self._measured.lines):
            self._measured.digests[name] = digest(root / name)
        return self._measured


def digest(path: Path) -> str:
    """A hash of the file's content, or ``none`` if there is no file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.exists() else "none"


def lines_of_statement(code: str, line: int) -> range:
    """The lines of the innermost statement that contains a line; of one with a body, only those before its body."""
    best = range(line, line + 1)
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, (ast.stmt, ast.ExceptHandler)):
            continue
        first = min([node.lineno, *(item.lineno for item in getattr(node, "decorator_list", []))])
        body = getattr(node, "body", None)
        last = body[0].lineno - 1 if body and body[0].lineno > node.lineno else node.end_lineno
        if first <= line <= last:
            best = range(first, last + 1)  # ast.walk goes outside in
    return best


def choose(found: Sequence[dict[str, dict[str, float]]], limit: float) -> dict[str, float]:
    """Chooses as many tests as can be run within a time, and returns how many seconds each of them adds.

    It takes the fastest test of each file, then the second of each, and so on. It is not known which of a hundred tests
    notices a change, but the tests of one file check similar things.

    Args:
        found: for each test file, its tests with the seconds of the test and its fixtures; shared fixtures count once.
        limit: seconds.
    """
    costs = {test: parts for tests in found for test, parts in tests.items()}
    places = {}
    for tests in found:
        ordered = sorted(tests, key=lambda test: sum(costs[test].values()))
        places |= {test: (place, sum(costs[test].values())) for place, test in enumerate(ordered)}
    chosen, paid = {}, set()
    for test in sorted(costs, key=places.__getitem__):
        seconds = sum(cost for name, cost in costs[test].items() if name not in paid)
        if not chosen or sum(chosen.values()) + seconds <= limit:
            chosen[test] = seconds
            paid |= costs[test].keys()
    return chosen


def files_of(tests: Sequence[str]) -> list[str]:
    """The files of tests, each once."""
    return list(dict.fromkeys(test.partition("::")[0] for test in tests))
