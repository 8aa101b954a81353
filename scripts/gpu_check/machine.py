"""Runs programs on the device: in processes of their own, one after the other, each run once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langspec_lora.example.small_training import finetune_flags

ROOT = Path(__file__).resolve().parents[2]
EPOCHS, START, LENGTH, TARGET = 4, 1, 2, 0.9
SMALL = (
    *("--max-epoch", EPOCHS, "--virtual-data-size", "1500", "--update-freq", "2", "--log-interval", "1"),
    *("--pruning-t1", START, "--pruning-t2", LENGTH, "--target-pruning-ratio", TARGET),
)
TINY = ("--virtual-data-size", "300")
"""On a CPU, where only the script is tested."""


class Machine:
    """Runs programs on the device, one after the other, in processes of their own; each run is made once.

    Args:
        out: folder for everything.
        cuda: whether the device is a GPU.
        ends: when all of it must have ended, by ``time.monotonic``.
    """

    def __init__(self, out: Path, cuda: bool, ends: float) -> None:
        self.out, self.cuda, self.ends = out, cuda, ends
        self.data, self.base = out / "example" / "finetune", out / "base" / "checkpoint_last.pt"

    def run(self, name: str, *command: object) -> str:
        """Runs a command; its output is in ``logs/NAME.log``.

        Raises:
            RuntimeError: it fails, or time runs out.
        """
        log = self.out / "logs" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "PYTHONPATH": path, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
        try:
            with log.open("w", encoding="utf-8") as output:
                subprocess.run(
                    [sys.executable, *map(str, command)],
                    cwd=ROOT,
                    env=environment,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    check=True,
                    timeout=max(1.0, self.ends - time.monotonic()),
                )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"time ran out in {name}") from None
        except subprocess.CalledProcessError:
            last = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
            raise RuntimeError(f"{name} failed: {last[-1] if last else 'no output'} ({log})") from None
        return log.read_text(encoding="utf-8", errors="replace")

    def fairseq(self, name: str, program: str, flags: Sequence[object], *watch: str) -> dict[str, Any]:
        """Runs a program of fairseq, once, and returns what was seen of it; see ``run.py``."""
        report = self.out / "reports" / f"{name}.json"
        if not report.exists():
            report.parent.mkdir(parents=True, exist_ok=True)
            self.run(name, Path(__file__).with_name("run.py"), program, report, *watch, "--", *flags)
        return json.loads(report.read_text(encoding="utf-8"))

    def train(self, name: str, precision: str, *more: object, watch: Sequence[str] = ()) -> dict[str, Any]:
        """The published training command with small sizes; its checkpoints are in the folder NAME."""
        unwanted = ("--cpu", "--no-epoch-checkpoints")
        flags = [flag for flag in finetune_flags(self.data, self.base, self.out / name, True) if flag not in unwanted]
        on_cpu = not self.cuda or precision == "cpu"
        kinds = {"fp16": ["--fp16"] if self.cuda else ["--fp16", "--fp16-no-flatten-grads"], "amp": ["--amp"]}
        device = ["--cpu"] if on_cpu else []
        size = () if self.cuda else TINY
        every = [*flags, *SMALL, *size, *kinds.get(precision, ()), *device, *more]
        return self.fairseq(name, "train", every, "--repeatable", *watch)

    def whole(self, precision: str) -> dict[str, Any]:
        """The undisturbed training of a precision."""
        return self.train(precision, precision)
