"""Runs the steps of a study: several at once, each once; a step that fails holds up only what needs it."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from langspec_lora.errors import UserError, collect_errors
from langspec_lora.study.recipe import BASE
from langspec_lora.study.state import Study, refuse_outdated
from langspec_lora.study.steps import Step, command_text

_PAUSE = 0.2  # seconds between two looks at the processes
_PATIENCE = 120.0  # seconds in which a training that is told to stop can save a checkpoint
_LINES_OF_A_FAILURE = 15
_LIBC = ctypes.CDLL(None)


@dataclass
class Running:
    """A step that runs.

    Attributes:
        step: the step.
        process: its process.
        gpus: what its ``CUDA_VISIBLE_DEVICES`` is; None for those of this process.
        began: when, on the monotonic clock.
    """

    step: Step
    process: subprocess.Popen
    gpus: str | None
    began: float = field(default_factory=time.monotonic)


class Runner:
    """Runs steps.

    Args:
        study: the study.
        places: for each step that can run at the same time what its ``CUDA_VISIBLE_DEVICES`` is, None for no change.
        watcher: is told what happens.
        check: called once, when the data are there and before the first training.
    """

    def __init__(
        self,
        study: Study,
        places: Sequence[str | None],
        watcher: Watcher,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.study, self.watcher, self._check = study, watcher, check
        self._checked = False
        self.free = list(places)
        self.running: dict[str, Running] = {}
        self.failed: dict[str, str] = {}
        self._threads = max(1, (os.cpu_count() or 1) // len(places))

    def run(self, only: str | None = None) -> None:
        """Runs all steps that are missing, or one.

        Args:
            only: the name of a step; what it needs must have run.

        Raises:
            UserError: steps failed; all others that do not need them have run.
        """
        try:
            while True:
                self._start_ready(only)
                if not self.running:
                    break
                time.sleep(_PAUSE)
                self._collect()
                self.watcher.look(self)
        finally:
            _end([one.process for one in self.running.values()])
        with collect_errors() as errors:
            for message in self.failed.values():
                with errors.check():
                    raise UserError(message)
            with errors.check():
                refuse_outdated(self.study)

    def _start_ready(self, only: str | None) -> None:
        for step in self.study.ready():
            if not self.free:
                return
            if step.name in self.running or step.name in self.failed or only not in (None, step.name):
                continue
            if step.kind != "data" and not self._checked and self._data_is_there():
                self._checked = True
                self._check()
            gpus = self.free.pop(0)
            self.running[step.name] = Running(step, self._start(step, gpus), gpus)
            self.watcher.began(self, step)

    def _data_is_there(self) -> bool:
        steps = self.study.plan.steps.values()
        return all(step.name in self.study.done for step in steps if step.kind == "data")

    def _start(self, step: Step, gpus: str | None) -> subprocess.Popen:
        records = self.study.records
        records.begin(step)
        log = records.log(step)
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        given = self.study.recipe.base.threads if step.kind == BASE else None
        given = given or self.study.recipe.threads
        if given or "OMP_NUM_THREADS" not in environment:
            environment["OMP_NUM_THREADS"] = str(given or self._threads)
        if gpus is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpus
        with log.open("a", encoding="utf-8") as file:
            print(f"{command_text(step.command)}\n", file=file, flush=True)
            return subprocess.Popen(
                [program(step.command[0]), *step.command[1:]],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                close_fds=False,  # they hold the lock too
                preexec_fn=_die_with_parent,
            )

    def _collect(self) -> None:
        for name, one in list(self.running.items()):
            ended, status, usage = os.wait4(one.process.pid, os.WNOHANG)
            if not ended:
                continue
            one.process.returncode = code = os.waitstatus_to_exitcode(status)
            del self.running[name]
            self.free.insert(0, one.gpus)
            seconds = time.monotonic() - one.began
            if code == 0 and one.step.result.exists():
                unit = 1 if sys.platform == "darwin" else 1024
                self.study.records.end(one.step, seconds, usage.ru_maxrss * unit)
                self.study.note_done(one.step)
                self.watcher.ended(self, one.step, seconds)
            else:
                self.failed[name] = self._failure(one.step, code)
                self.watcher.failed(self, one.step, self._last_lines(one.step))

    def _failure(self, step: Step, code: int) -> str:
        reason = f"signal {-code}" if code < 0 else f"exit code {code}"
        if code == 0:
            reason = f"it left no {step.result}"
        held_up = sum(step.name in self.study.all_needs(other) for other in self.study.plan.steps.values())
        more = f", and {held_up} step{'s' * (held_up > 1)} that need it did not run" if held_up else ""
        return (
            f"{step.name} failed ({reason}){more}; its output is in {self.study.records.log(step)}; run the study "
            "again to continue"
        )

    def _last_lines(self, step: Step) -> list[str]:
        return self.study.records.output(step).rstrip().splitlines()[-_LINES_OF_A_FAILURE:]


class Watcher:
    """Is told what happens; this one says nothing."""

    def began(self, runner: Runner, step: Step) -> None:
        """A step begins."""

    def ended(self, runner: Runner, step: Step, seconds: float) -> None:
        """A step has run."""

    def failed(self, runner: Runner, step: Step, lines: Sequence[str]) -> None:
        """A step failed; these are the last lines of its output."""

    def look(self, runner: Runner) -> None:
        """A moment has passed."""


def program(name: str) -> str:
    """A console script of the environment that runs this: its path, or its name where the shell finds it.

    Raises:
        UserError: it is not installed.
    """
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        found = shutil.which(name)
        if found is None:
            raise UserError(f"{path} not found; install with scripts/install.sh, which installs fairseq too")
        return found
    return str(path)


@contextmanager
def lock(out: Path, step: str | None = None) -> Iterator[None]:
    """Keeps other runs out of the folder while this one or any of its commands is alive.

    Args:
        out: the folder of the study.
        step: a step that runs alone: others may run at the same time, in other processes and on other machines.

    Raises:
        UserError: another run is using the folder, or the folder cannot be written.
    """
    names: list[tuple[Path, int]] = [(out / ".lock", fcntl.LOCK_SH if step else fcntl.LOCK_EX)]
    if step:
        names.append((out / f".lock-{step}", fcntl.LOCK_EX))
    files = []
    try:
        for path, kind in names:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                files.append(path.open("w"))
            except OSError as error:
                raise UserError(f"{out}: {error.strerror}; give a writable folder") from error
            try:
                fcntl.flock(files[-1], kind | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"another run is using {out}; wait for it, or stop it") from None
            except OSError:  # a file system without locks, on which nothing excludes another run
                pass
            os.set_inheritable(files[-1].fileno(), True)
        yield
    finally:
        for file in files:
            file.close()


def is_locked(out: Path) -> bool:
    """Whether a run, or one of its commands, is using the folder."""
    try:
        with (out / ".lock").open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is none, or it belongs to somebody else
        return False
    return False


def _die_with_parent() -> None:
    """Makes Linux end the command if this process is killed; the next run would find it still running."""
    if sys.platform == "linux":
        _LIBC.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _end(processes: Sequence[subprocess.Popen]) -> None:
    for process in processes:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + _PATIENCE
    for process in processes:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
