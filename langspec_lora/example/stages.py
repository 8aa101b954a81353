"""Stages of a longer job: commands that run once, show their progress, and continue after an interruption.

``FOLDER/stages/NAME.json`` records the command and input of a stage, and ``FOLDER/logs/NAME.log`` its output. A stage
that has finished with the same command and input is not run again; if they differ, it is not overwritten.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from langspec_lora.errors import UserError
from langspec_lora.files import sha256, write_json

_SECONDS_BETWEEN_LINES = 15.0
_LINES_OF_A_FAILURE = 15
_LIBC = ctypes.CDLL(None)


@dataclass(frozen=True)
class Stage:
    """One command.

    Attributes:
        name: its name, also in file names.
        title: what it does, shown to the user.
        command: program and arguments.
        folder: the folder of its results; if it does not exist, the stage has not run.
        inputs: the files of earlier stages that it depends on.
        progress: reads from the end of the output how far the stage is.
    """

    name: str
    title: str
    command: Sequence[str]
    folder: Path
    inputs: Sequence[Path] = ()
    progress: Callable[[str], str] = lambda output: ""

    def text(self, width: int = 110) -> str:
        """The command over several lines, ready to paste into a shell."""
        lines = [""]
        for word in map(shlex.quote, self.command):
            if lines[-1] and len(lines[-1]) + len(word) > width:
                lines.append("   ")
            lines[-1] += f" {word}" if lines[-1] else word
        return " \\\n".join(lines)


class Runner:
    """Runs stages within one folder.

    Args:
        folder: the folder for records and logs.
        root: the working directory of the commands.
        environment: environment variables of the commands.
    """

    def __init__(self, folder: Path, root: Path, environment: dict[str, str]) -> None:
        self.folder, self.root, self.environment = folder, root, environment
        self.ran = 0

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other runs out of the folder while this run or any of its commands is alive.

        Raises:
            UserError: another run is using the folder, or the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / ".lock").open("w")
        except OSError as error:
            raise UserError(f"{self.folder}: {error.strerror}; give a writable folder") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UserError(f"another run is using {self.folder}; wait for it, or stop it") from None
            os.set_inheritable(file.fileno(), True)
            yield

    def output(self, stage: Stage) -> str:
        """What the latest run of a stage has written so far, standard output and error together."""
        text = self._log(stage).read_text(encoding="utf-8", errors="replace")
        return text.rpartition(f"{stage.text()}\n\n")[2]

    def run(self, *stages: Stage) -> None:
        """Runs stages at the same time, except those that have finished.

        Raises:
            UserError: a stage failed, or was run before with another command or input.
        """
        missing = [stage for stage in stages if not self._is_finished(stage)]
        for stage in stages:
            if stage not in missing:
                seconds = json.loads(self._record(stage).read_text(encoding="utf-8"))["seconds"]
                print(f"{stage.title}: already done (took {seconds:.0f} s)", flush=True)
        if not missing:
            return
        self.ran += len(missing)
        for stage in missing:
            print(f"{stage.title}:\n{textwrap.indent(stage.text(), '    ')}", flush=True)
        started = time.monotonic()
        with _handled_signals():
            processes: dict[str, subprocess.Popen] = {}
            try:
                for stage in missing:
                    processes[stage.name] = self._start(stage)
                self._watch(missing, processes, started)
            finally:
                _end(list(processes.values()))

    def _start(self, stage: Stage) -> subprocess.Popen:
        for path in (self._log(stage), self._record(stage)):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self._record(stage), {**self._identity(stage), "seconds": None})
        with self._log(stage).open("a", encoding="utf-8") as log:
            log.write(f"{stage.text()}\n\n")
            log.flush()
            return subprocess.Popen(
                list(stage.command),
                cwd=self.root,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                close_fds=False,  # they hold the lock too
                preexec_fn=_die_with_parent,
            )

    def _watch(self, stages: Sequence[Stage], processes: dict[str, subprocess.Popen], started: float) -> None:
        line = _ProgressLine()
        running = list(stages)
        while running:
            time.sleep(0.2)
            for stage in list(running):
                code = processes[stage.name].poll()
                if code is None:
                    continue
                running.remove(stage)
                seconds = time.monotonic() - started
                line.clear()
                if code:
                    raise UserError(self._failure(stage, code))
                write_json(self._record(stage), {**self._identity(stage), "seconds": round(seconds, 1)})
                print(f"    {stage.name}: done in {seconds:.0f} s", flush=True)
            states = [f"{stage.name} {stage.progress(_tail(self._log(stage)))}".strip() for stage in running]
            line.show(f"    {' | '.join(states)} | {time.monotonic() - started:.0f} s")

    def _failure(self, stage: Stage, code: int) -> str:
        end = self.output(stage).rstrip().splitlines()[-_LINES_OF_A_FAILURE:]
        print(*(f"    | {line}" for line in end), sep="\n", file=sys.stderr, flush=True)
        reason = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"{stage.name} failed ({reason}); see its output in {self._log(stage)}, then run this again to continue"

    def _is_finished(self, stage: Stage) -> bool:
        if not stage.folder.exists() or not self._record(stage).exists():
            return False
        record = json.loads(self._record(stage).read_text(encoding="utf-8"))
        identity = self._identity(stage)
        changed = [key for key, value in identity.items() if record.get(key) != value]
        if changed:
            raise UserError(
                f"{stage.folder} was made with another {' and another '.join(changed)} (recorded in "
                f"{self._record(stage)}); remove {stage.folder} to make it again, or give another folder"
            )
        return record["seconds"] is not None

    def _identity(self, stage: Stage) -> dict:
        program, *arguments = stage.command
        return {
            "command": [Path(program).name, *arguments],
            "input": {str(path): sha256(path) for path in stage.inputs},
        }

    def _record(self, stage: Stage) -> Path:
        return self.folder / "stages" / f"{stage.name}.json"

    def _log(self, stage: Stage) -> Path:
        return self.folder / "logs" / f"{stage.name}.log"


class _ProgressLine:
    """One line that is rewritten on a terminal; elsewhere, a new line now and then."""

    def __init__(self, stream: IO[str] = sys.stdout) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._shown = time.monotonic()

    def show(self, text: str) -> None:
        if self._terminal:
            columns = os.get_terminal_size(self._stream.fileno()).columns or 80
            self._stream.write(f"\r\033[K{text[: columns - 1]}")
        elif time.monotonic() - self._shown > _SECONDS_BETWEEN_LINES:
            self._stream.write(f"{text}\n")
            self._shown = time.monotonic()
        self._stream.flush()

    def clear(self) -> None:
        if self._terminal:
            self._stream.write("\r\033[K")


@contextmanager
def _handled_signals() -> Iterator[None]:
    """Makes SIGTERM unwind the stack, as Ctrl-C does, so that the commands end too."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _die_with_parent() -> None:
    """Makes Linux end the command if this process is killed; the next run would find it still running."""
    prctl = getattr(_LIBC, "prctl", None)
    if prctl is not None:
        prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _end(processes: Sequence[subprocess.Popen]) -> None:
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _tail(path: Path, size: int = 1 << 16) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - size))
        return file.read().decode(errors="replace")
