"""``langspec-lora study`` as a command: what it refuses, and what it prints instead of running."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from langspec_lora.cli.main import main
from langspec_lora.cli.study import _places
from tests import ROOT

QUICKSTART = ROOT / "configs" / "recipes" / "quickstart.yaml"


def run(*words: object) -> tuple[int | str | None, str]:
    try:
        return main(["study", *map(str, words)]), ""
    except SystemExit as error:
        return error.code, str(error)


def test_the_commands_of_all_steps_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(QUICKSTART, "--out", tmp_path / "out", "--dry-run") == (0, "")
    printed = capsys.readouterr().out
    assert "# base (after data-example)\nfairseq-train " in printed
    assert "--seed 1 --lr 0.001" in " ".join(printed.replace("\\", "").split())
    assert "once the learning rate of full is chosen" in printed
    assert not (tmp_path / "out").exists()


def test_how_far_a_study_is_is_printed_as_a_table(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(QUICKSTART, "--out", tmp_path / "out", "--status") == (0, "")
    printed = capsys.readouterr().out
    assert "learning rate" in printed
    assert "waiting" in printed
    assert not (tmp_path / "out").exists()


def test_jobs_are_written(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    assert run(QUICKSTART, "--out", out, "--set", "beam=--beam 1", "--slurm=--gres=gpu:1", "--slurm-light=") == (
        0,
        "",
    )
    assert f"jobs written; submit them: bash {out}/slurm/submit.sh" in capsys.readouterr().out
    job = (out / "slurm" / "base.sh").read_text()
    assert "#SBATCH --gres=gpu:1" in job
    assert job.rstrip().endswith(f"study {QUICKSTART} --out {out} --set 'beam=--beam 1' --step base")
    assert "gres" not in (out / "slurm" / "data-example.sh").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "beam"], "--set beam: expected NAME=VALUE"),
        (["--set", "beam=1", "--set", "beam=2"], "--set gives beam twice"),
        (["--set", "baem=1"], "sets no variable of the recipe; did you mean beam?"),
        (["--set", "beam=--baem 5"], "unknown flag --baem; did you mean --beam?"),
        (["--set", "loss=--criterion none"], "variant full: argument --criterion: invalid choice"),
        (["--jobs", "0"], "--jobs 0: expected a whole number of at least 1"),
        (["--gpus", "0,"], "--gpus 0,: expected numbers of GPUs"),
        (["--gpus", "0,1", "--gpus-per-step", "3"], "--gpus-per-step 3 is more than the 2 there are"),
        (["--slurm-light", "x"], "--slurm-light was given without --slurm"),
        (["--step", "base"], "--step base needs data-example, which has not run"),
        (["--step", "bsae"], "--step bsae is no step; did you mean base?"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_runs(tmp_path: Path, words: list[str], message: str) -> None:
    code, text = run(QUICKSTART, "--out", tmp_path / "out", *words)
    assert code != 0
    assert message in text
    assert not (tmp_path / "out" / "data").exists()


@pytest.mark.parametrize(
    ("flags", "places"),
    [
        ({"gpus": "0,1,2"}, ["0", "1", "2"]),
        ({"gpus": "0,1,2,3,4", "gpus_per_step": 2}, ["0,1", "2,3"]),
        ({"gpus": "4,5", "jobs": 4}, ["4", "5", "4", "5"]),
        ({"gpus": "4,5,6", "jobs": 1}, ["4"]),
        ({"jobs": 3}, [None, None, None]),
        ({}, [None]),
    ],
)
def test_steps_are_shared_among_gpus(flags: dict, places: list, monkeypatch: pytest.MonkeyPatch) -> None:
    from argparse import Namespace

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    given = {"jobs": None, "gpus": None, "gpus_per_step": 1, "slurm": None, "slurm_light": None, **flags}
    assert _places(Namespace(**given)) == places


@pytest.mark.parametrize(("visible", "places"), [("2,5", ["2", "5"]), (None, ["0", "1", "2"])])
def test_the_gpus_are_those_that_the_process_sees(visible, places, monkeypatch: pytest.MonkeyPatch) -> None:
    from argparse import Namespace

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert _places(Namespace(jobs=None, gpus=None, gpus_per_step=1, slurm=None, slurm_light=None)) == places
