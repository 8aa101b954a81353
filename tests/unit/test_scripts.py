"""The shell scripts: their syntax, their style, and the commands they put together."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "scripts").glob("*.sh"))
SHELLCHECK = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_bash_parses_the_script(script) -> None:
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.skipif(SHELLCHECK is None, reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say() -> None:
    done = subprocess.run([SHELLCHECK, *SCRIPTS], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Programs that print their arguments in place of fairseq's, in a folder with a space in its name."""
    programs = tmp_path / "some venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "fairseq-train").write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
    (programs / "fairseq-train").chmod(0o755)
    (programs / "python3").symlink_to(sys.executable)
    return {**os.environ, "VENV": str(tmp_path / "some venv"), "PRECISION": ""}


def arguments(environment: dict[str, str], tmp_path: Path, *more: str, **variables: str) -> list[str]:
    """The arguments that train.sh hands to fairseq-train."""
    (tmp_path / "the data").mkdir(exist_ok=True)
    (tmp_path / "the base.pt").touch()
    given = {"DATA_BIN": "the data", "BASE": "the base.pt", "SAVE_DIR": "to save", **variables}
    command = ["bash", ROOT / "scripts" / "train.sh", *more]
    done = subprocess.run(
        command, cwd=tmp_path, env={**environment, **given}, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def value(args: list[str], flag: str) -> str:
    return args[len(args) - args[::-1].index(flag)]


def test_train_script_gives_the_published_command(environment, tmp_path) -> None:
    args = arguments(environment, tmp_path)
    names = ["en", "fr", "it", "de", "nl", "zh", "ja", "ko", "oc", "or", "sd", "wo"]
    assert args[0] == "the data"
    published = {
        "--update-freq": "4",
        "--seed": "2",
        "--finetune-from-model": "the base.pt",
        "--arch": "langspec_m2m100_lora_base",
        "--sampling-temperature": "5.0",
        "--langs": ",".join(names),
        "--label-smoothing": "0.2",
        "--adam-betas": "(0.9, 0.98)",
        "--lr": "3e-03",
        "--max-tokens": "4000",
        "--max-epoch": "15",
        "--save-dir": "to save",
        "--decoder-layers": "12",
        "--encoder-lora-layer": "0_1_2_3_4_5_6_7_8_9_10_11",
        "--encoder-lora-position": "q_k_v_fc1_fc2",
        "--decoder-lora-position": "q_k_v_crossq_crossk_crossv_fc1_fc2",
        "--dim": "1024",
        "--high-rank": "2",
        "--med-rank": "2",
        "--low-rank": "8",
        "--encoder-activation-direction": "src_src_src_src_src_src_src_src_src_tgt_tgt_tgt",
        "--decoder-activation-direction": "tgt_tgt_tgt_tgt_tgt_tgt_tgt_tgt_tgt_tgt_tgt_tgt",
        "--language-num": "12",
        "--pruning": "True",
        "--pruning-t1": "2",
        "--pruning-t2": "10",
        "--target-pruning-ratio": "0.9",
    }
    assert {flag: value(args, flag) for flag in published} == published
    assert value(args, "--lang-pairs").split(",") == [f"{a}-{b}" for a, b in permutations(names, 2)]
    assert "--ddp-backend=no_c10d" in args
    assert "--amp" not in args
    assert "" not in args


def test_train_script_makes_lists_for_other_sizes_and_hands_on_its_arguments(environment, tmp_path) -> None:
    sizes = {"LANGS": "en,wo", "ENCODER_LAYERS": "6", "DECODER_LAYERS": "2", "DIM": "0", "PRECISION": "--amp"}
    args = arguments(environment, tmp_path, "--max-epoch", "1", "--tensorboard-logdir", "a b", **sizes)
    assert value(args, "--encoder-activation-direction") == "src_src_src_src_tgt_tgt"
    assert value(args, "--decoder-activation-direction") == "tgt_tgt"
    assert value(args, "--decoder-lora-layer") == "0_1"
    assert value(args, "--language-num") == "2"
    assert value(args, "--lang-pairs") == "en-wo,wo-en"
    assert value(args, "--dim") == "0"
    assert args[-4:] == ["--max-epoch", "1", "--tensorboard-logdir", "a b"]
    assert "--amp" in args


@pytest.mark.parametrize(
    ("script", "variables", "words"),
    [
        ("train.sh", {}, "DATA_BIN is not set"),
        ("train.sh", {"DATA_BIN": "nowhere", "BASE": "x", "SAVE_DIR": "y"}, "DATA_BIN=nowhere is no folder"),
        ("train.sh", {"DATA_BIN": ".", "BASE": "nowhere.pt", "SAVE_DIR": "y"}, "BASE=nowhere.pt is no file"),
        (
            "evaluate.sh",
            {"DATA_BIN": ".", "CHECKPOINT": "nowhere.pt", "OUT": "out"},
            "CHECKPOINT=nowhere.pt is no file",
        ),
        ("evaluate.sh", {"DATA_BIN": ".", "CHECKPOINT": "here.pt", "OUT": "out", "DICT": "no.txt"}, "DICT=no.txt"),
        ("evaluate.sh", {"DATA_BIN": ".", "CHECKPOINT": "here.pt", "OUT": "out", "DICT": "here.pt"}, "FLORES_MONO"),
    ],
)
def test_missing_input_is_one_line_and_makes_nothing(environment, tmp_path, script, variables, words) -> None:
    (tmp_path / "here.pt").touch()
    before = sorted(tmp_path.rglob("*"))
    done = subprocess.run(
        ["bash", ROOT / "scripts" / script],
        cwd=tmp_path,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
