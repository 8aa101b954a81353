"""Checkpoints and results of evaluations, for the tests of ``langspec-lora evaluate`` and ``report``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fairseq import checkpoint_utils
from fairseq_cli import train

from langspec_lora.data.directions import Direction
from langspec_lora.evaluation.options import EvaluationOptions, ScoringSettings
from langspec_lora.files import read_lines
from langspec_lora.generation import BatchLimits
from langspec_lora.inference.model_spec import ModelSpec
from langspec_lora.settings import split_settings


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


def options(toy_data: Path, checkpoint: Path, out: Path, **changes) -> EvaluationOptions:
    """What to evaluate on a CPU; any setting may be changed by its name."""
    settings = {"data_bin": toy_data, "checkpoints": (checkpoint,), "tokenize": "13a", "device": "cpu", **changes}
    settings.setdefault("references", toy_data.parent)
    asked = {"langs": settings.pop("langs", None)}  # which are not those of the model's dictionary
    model, scoring, limits, more = split_settings(settings, ModelSpec, ScoringSettings, BatchLimits, EvaluationOptions)
    parts = {"model": ModelSpec(**model), "scoring": ScoringSettings(**scoring), "limits": BatchLimits(**limits)}
    return EvaluationOptions(out=out, **parts, **more, **asked)


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def published_hypotheses(path: Path) -> list[str]:
    """What the published loop keeps: the last field of the H- lines, sorted by sentence number."""
    lines = [line[2:].split("\t") for line in path.read_text().splitlines() if line.startswith("H-")]
    return [fields[-1] for fields in sorted(lines, key=lambda fields: int(fields[0]))]


def stand_in_hypotheses(data: Path, direction: Direction) -> list[str]:
    """The references, each with a word of the source's language in place of its last one."""
    lines = read_lines(data.parent / f"test.{direction.target}")
    return [" ".join([*line.split()[:-1], direction.source]) for line in lines]
