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
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from langspec_lora.errors import UserError
from langspec_lora.files import sha256, write_json
from langspec_lora.progress import StatusLine

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
        seconds = {stage.name: self._seconds_taken(stage) for stage in stages}
        missing = [stage for stage in stages if seconds[stage.name] is None]
        for stage in stages:
            if stage not in missing:
                print(f"{stage.title}: already done (took {seconds[stage.name]:.0f} s)", flush=True)
        for stage in missing:
            print(f"{stage.title}:\n{textwrap.indent(stage.text(), '    ')}", flush=True)
        self.ran += len(missing)
        processes: dict[str, subprocess.Popen] = {}
        try:
            for stage in missing:
                processes[stage.name] = self._start(stage)
            self._watch(missing, processes)
        finally:
            _end(processes.values())

    def _start(self, stage: Stage) -> subprocess.Popen:
        write_json(self._record(stage), {**self._identity(stage), "seconds": None})
        self._log(stage).parent.mkdir(exist_ok=True)
        with self._log(stage).open("a", encoding="utf-8") as log:
            print(f"{stage.text()}\n", file=log, flush=True)
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

    def _watch(self, stages: Sequence[Stage], processes: Mapping[str, subprocess.Popen]) -> None:
        started = time.monotonic()
        line = StatusLine(sys.stdout)
        running = list(stages)
        while running:
            time.sleep(0.2)
            seconds = time.monotonic() - started
            for stage in [stage for stage in running if processes[stage.name].poll() is not None]:
                line.clear()
                if code := processes[stage.name].returncode:
                    raise UserError(self._failure(stage, code))
                running.remove(stage)
                write_json(self._record(stage), {**self._identity(stage), "seconds": round(seconds, 1)})
                print(f"    {stage.name}: done in {seconds:.0f} s", flush=True)
            if running:
                states = [f"{stage.name} {stage.progress(self.output(stage))}".strip() for stage in running]
                line.show(f"    {' | '.join(states)} | {seconds:.0f} s")

    def _failure(self, stage: Stage, code: int) -> str:
        end = self.output(stage).rstrip().splitlines()[-_LINES_OF_A_FAILURE:]
        print(*(f"    | {line}" for line in end), sep="\n", file=sys.stderr, flush=True)
        reason = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"{stage.name} failed ({reason}); see its output in {self._log(stage)}, then run this again to continue"

    def _seconds_taken(self, stage: Stage) -> float | None:
        """How long a finished stage took; None for one that is missing or was interrupted."""
        if not stage.folder.exists() or not self._record(stage).exists():
            return None
        record = json.loads(self._record(stage).read_text(encoding="utf-8"))
        identity = self._identity(stage)
        changed = [key for key, value in identity.items() if record.get(key) != value]
        if changed:
            raise UserError(
                f"{stage.folder} was made with another {' and another '.join(changed)} (recorded in "
                f"{self._record(stage)}); remove {stage.folder} to make it again, or give another folder"
            )
        return record["seconds"]

    def _identity(self, stage: Stage) -> dict:
        program, *arguments = stage.command
        inputs = {str(path): sha256(path) for path in stage.inputs}
        return {"command": [Path(program).name, *arguments], "input": inputs}

    def _record(self, stage: Stage) -> Path:
        return self.folder / "stages" / f"{stage.name}.json"

    def _log(self, stage: Stage) -> Path:
        return self.folder / "logs" / f"{stage.name}.log"


def _die_with_parent() -> None:
    """Makes Linux end the command if this process is killed; the next run would find it still running."""
    if sys.platform == "linux":
        _LIBC.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _end(processes: Collection[subprocess.Popen]) -> None:
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
