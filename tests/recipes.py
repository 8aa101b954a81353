"""Studies whose commands start at once: a server imports torch and fairseq once and forks (:mod:`tests.processes`)."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot  # noqa: F401  (so that the server imports it; reports do)
import pytest
import torch._dynamo  # optimizers do
from fairseq_cli import train as fairseq_train

from langspec_lora.cli.main import main
from langspec_lora.study import run

for name in ("evaluation.evaluate", "inference.model", "report.report", "study.state", "tasks.translation"):
    importlib.import_module(f"langspec_lora.{name}")


class Command:
    """Stands in for a ``subprocess.Popen``; its process is a child that ends as the command in the server does."""

    def __init__(self, words: Sequence[str], env: Mapping[str, str], stdout: Any, **_: Any) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.recipes"])
        self._worker = context.Process(target=_run, args=([*map(str, words)], dict(env), stdout.name, str(Path.cwd())))
        self._worker.start()
        ending, self._told = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(self._told)
            code = os.read(ending, 1)
            os._exit(code[0] if code else 1)
        os.close(ending)
        self.returncode: int | None = None
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        self._worker.join()
        code = self._worker.exitcode
        os.write(self._told, bytes([code if code is not None and 0 <= code < 256 else 1]))
        os.close(self._told)

    def poll(self) -> int | None:
        """As of a ``Popen``."""
        return self.returncode

    def terminate(self) -> None:
        """As of a ``Popen``."""
        self._worker.terminate()

    def wait(self, timeout: float | None = None) -> None:
        """As of a ``Popen``."""
        self._worker.join(timeout)
        os.waitpid(self.pid, 0)


def _run(words: Sequence[str], environment: Mapping[str, str], log: str, folder: str) -> None:
    """One command, as its console script runs it."""
    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    for number in (1, 2):
        os.dup2(output, number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    multiprocessing.set_start_method("fork", force=True)  # of the workers that load data, as without a server
    torch.set_num_threads(1)
    sys.argv = [Path(words[0]).name, *words[1:]]
    if sys.argv[0] == "fairseq-train":
        fairseq_train.cli_main()
    else:
        assert sys.argv[0] == "langspec-lora", words
        sys.exit(main(sys.argv[1:]))


@pytest.fixture
def quick_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the steps of studies run in processes of the server."""
    stand_in = SimpleNamespace(**{**vars(subprocess), "Popen": Command})
    monkeypatch.setattr(run, "subprocess", stand_in)
