"""Bad input to the stock commands, as programs: they end with one line and leave everything as it was."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import ROOT, toy
from tests.bad_input import (
    PREFIX,
)

PLUGIN = ROOT / "langspec_lora"


def training(data: Path, save: Path, *more: str) -> list[str]:
    optimizer = ("--optimizer", "adam", "--lr", "1e-3", "--max-update", "1", "--cpu", "--save-dir", str(save))
    return ["fairseq-train", *toy.plugin_flags(data, "--user-dir", str(PLUGIN), *optimizer, *more)]


def generation(data: Path, path: Path, *more: str) -> list[str]:
    return [
        *("fairseq-generate", str(data), "--user-dir", str(PLUGIN), "--path", str(path), "--cpu"),
        *("--task", "translation_multi_simple_epoch_lora", "--encoder-langtok", "src", "--decoder-langtok"),
        *("--langs", ",".join(toy.LANGUAGES), "--lang-pairs", ",".join(toy.PAIRS)),
        *("--fixed-dictionary", str(data.parent / "dict.txt"), "-s", "en", "-t", "wo", *more),
    ]


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


COMMANDS = {
    "word": (lambda d, c, s: training(d, s, "--add-lora", "maybe"), "--add-lora maybe: expected True or False"),
    "position": (lambda d, c, s: training(d, s, "--encoder-lora-position", "q_out"), "'out' is not a position"),
    "part": (lambda d, c, s: training(d, s, "--finetune-from-model", str(c / "part.pt")), "only part of the adapters"),
    "hostile": (
        lambda d, c, s: training(d, s, "--finetune-from-model", str(c / "hostile.pt")),
        "was refused: it names",
    ),
    "order": (lambda d, c, s: training(d, s, "--langs", "fr,en,nl,wo,sd"), "was trained with --langs en,fr,nl,wo,sd"),
    "split": (lambda d, c, s: training(d, s, "--valid-subset", "dev"), "no dev data of en-fr"),
    "hostile to generation": (lambda d, c, s: generation(d, c / "hostile.pt"), "was refused: it names 'posix.system'"),
    "language": (lambda d, c, s: generation(d, c / "three.pt"), "has no adapters for wo; it knows en, fr, nl"),
}


@pytest.fixture(scope="module")
def ended(toy_data, checkpoints, tmp_path_factory) -> Iterator[dict[str, tuple[subprocess.CompletedProcess, bool]]]:
    """Each command once, two at a time, and whether what lay in the folders is there unchanged."""

    def run(case: str) -> tuple[subprocess.CompletedProcess, bool]:
        save = tmp_path_factory.mktemp(case)
        shutil.copy(checkpoints / "adapted.pt", save / ("checkpoint_last.pt" if case == "order" else "mine.pt"))
        before = contents(save)
        program, *flags = COMMANDS[case][0](toy_data, checkpoints, save)
        done = subprocess.run(
            [Path(sys.executable).parent / program, *flags],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        )
        return done, contents(save) == before

    before = contents(checkpoints)
    with ThreadPoolExecutor(2) as pool:
        results = dict(zip(COMMANDS, pool.map(run, COMMANDS), strict=True))
    assert contents(checkpoints) == before  # and so no "executed"
    return results


@pytest.mark.parametrize("case", COMMANDS)
def test_stock_command_ends_with_one_line_and_leaves_everything_as_it_was(ended, case) -> None:
    done, unchanged = ended[case]
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(PREFIX)
    assert COMMANDS[case][1] in last
    assert done.stderr.count(PREFIX) == 1
    for word in ("Traceback", "usage:", "num. shared model params"):
        assert word not in done.stdout + done.stderr
    assert unchanged
