"""``--help`` of fairseq's own commands with the plugin: it shows the flags of task, architecture and optimizer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

TASK = ("--task", "translation_multi_simple_epoch_lora")
OF_MODEL = {"--add-lora", "--low-rank", "--lora-init", "--encoder-lora-position"}
OF_TASK = {"--pruning-scope", "--base-checkpoint", "--absent-languages", "--lang-pairs", "--encoder-langtok"}


def help_of(command: str, *flags: str) -> set[str]:
    """The flags that a command's help begins lines with."""
    done = subprocess.run(
        [Path(sys.executable).parent / command, "--user-dir", ROOT / "langspec_lora", *flags],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    words = (line.split() for line in done.stdout.splitlines())
    return {part.rstrip(",") for line in words if line and line[0].startswith("-") for part in line[:4]}


def test_training_shows_the_flags_of_task_architecture_and_optimizer() -> None:
    shown = help_of(
        "fairseq-train", *TASK, "--arch", "langspec_m2m100_lora_base", "--optimizer", "adam", "--help", "data"
    )
    assert shown >= {*OF_MODEL, *OF_TASK, "--adam-betas", "--max-tokens"}


@pytest.mark.parametrize("command", ["fairseq-generate", "fairseq-interactive", "fairseq-validate"])
def test_other_commands_show_the_flags_of_the_task(command) -> None:
    shown = help_of(command, "-h", *TASK)
    assert shown >= {*OF_TASK, "--path"}
    assert not shown & OF_MODEL


def test_training_without_architecture_shows_the_flags_of_the_task() -> None:
    assert help_of("fairseq-train", *TASK, "--help") >= OF_TASK


def test_other_tasks_show_theirs() -> None:
    shown = help_of("fairseq-train", "--task", "translation", "--arch", "transformer", "--help")
    assert {"--left-pad-source", "--encoder-ffn-embed-dim"} <= shown
    assert not shown & {"--pruning-scope", "--add-lora"}
