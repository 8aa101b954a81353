"""Checkpoints and results of evaluations, for the tests of ``langspec-lora evaluate`` and ``report``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fairseq import checkpoint_utils
from fairseq_cli import train

from langspec_lora.evaluation.evaluate import Options


def run_stock(monkeypatch: pytest.MonkeyPatch, program, *flags: str) -> None:
    """Runs a stock fairseq command in this process, as if it were the first."""
    monkeypatch.delattr(checkpoint_utils.save_checkpoint, "best", raising=False)
    monkeypatch.setattr(sys, "argv", ["fairseq", *map(str, flags)])
    program.cli_main()


def train_checkpoint(folder: Path, flags: list[str]) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        schedule = ["--optimizer", "adam", "--lr", "0.01", "--max-update", "240", "--seed", "3", "--cpu"]
        run_stock(patch, train, *flags, *schedule, "--save-dir", folder, "--no-progress-bar", "--disable-validation")
    return folder / "checkpoint_last.pt"


def options(toy_data: Path, checkpoint: Path, out: Path, **changes) -> Options:
    settings = {"tokenize": "13a", "cpu": True, "references": toy_data.parent, **changes}
    return Options(data_bin=toy_data, checkpoints=(checkpoint,), out=out, **settings)


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def published_hypotheses(path: Path) -> list[str]:
    """What the published loop keeps: the last field of the H- lines, sorted by sentence number."""
    lines = [line[2:].split("\t") for line in path.read_text().splitlines() if line.startswith("H-")]
    return [fields[-1] for fields in sorted(lines, key=lambda fields: int(fields[0]))]
