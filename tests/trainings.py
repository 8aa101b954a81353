"""The runs of stock ``fairseq-train`` that several test files look at, and how they are started."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from fairseq_cli import generate as fairseq_generate
from fairseq_cli import train as fairseq_train

from tests import ROOT, toy
from tests.evaluations import published_hypotheses, run_stock

EPOCHS, START, LENGTH, TARGET = 4, 1, 2, 0.8
PLUGIN = ROOT / "langspec_lora"
TRAINING = (
    *("--user-dir", str(PLUGIN), "--seed", "2", "--dropout", "0.1", "--update-freq", "2", "--log-format", "simple"),
    *("--optimizer", "adam", "--adam-betas", "(0.9, 0.98)", "--lr", "3e-3", "--warmup-updates", "1"),
    *("--lr-scheduler", "inverse_sqrt", "--clip-norm", "1.0", "--max-tokens", "1500", "--cpu"),
    *("--sampling-method", "temperature", "--sampling-temperature", "5.0"),
    *("--pruning", "True", "--pruning-t1", str(START), "--pruning-t2", str(LENGTH)),
    *("--target-pruning-ratio", str(TARGET), "--max-epoch", str(EPOCHS)),
)
WITHIN_EPOCHS = ("--save-interval-updates", "3", "--validate-interval-updates", "2")

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
"""The environment of all runs that are compared bit by bit: sums depend on the number of threads."""


@dataclass(frozen=True)
class Runs:
    """The same run twice, from the same base, with validations and saves within its epochs; nothing interrupts it.

    Attributes:
        lean: the folder with checkpoints of adapters only.
        whole: the folder with checkpoints that hold the base.
        log: what the second printed.
    """

    lean: Path
    whole: Path
    log: str

    @property
    def folders(self) -> tuple[Path, Path]:
        """Both."""
        return self.lean, self.whole


def command(name: str) -> str:
    """A stock console script of the environment the tests run in."""
    return str(Path(sys.executable).parent / name)


def run(*arguments: str, **kwargs) -> str:
    """Runs a command and gives back what it printed."""
    done = subprocess.run(
        arguments, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=ONE_THREAD, check=False, **kwargs
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def train(data: Path, save: Path, *more: str) -> str:
    """Runs the stock command, and gives back what it printed."""
    return run(command("fairseq-train"), *toy.plugin_flags(data, *TRAINING, "--save-dir", str(save), *more))


def train_here(data: Path, save: Path, *more: object) -> None:
    """Runs the stock program in this process, which loads torch and fairseq no second time."""
    flags = toy.plugin_flags(data, *TRAINING, "--save-dir", str(save), "--no-progress-bar", *map(str, more))
    with pytest.MonkeyPatch.context() as patch:
        run_stock(patch, fairseq_train, *flags)


def generate_here(data: Path, checkpoint: Path, out: Path, *more: object) -> list[str]:
    """Translates the test set from wo to nl by the stock program in this process; gives the hypotheses in order."""
    with pytest.MonkeyPatch.context() as patch:
        run_stock(
            patch,
            fairseq_generate,
            *(data, "--path", checkpoint, "--fixed-dictionary", data.parent / "dict.txt", "--cpu"),
            *("--task", "translation_multi_simple_epoch_lora", "--decoder-langtok", "--encoder-langtok", "src"),
            *("--langs", ",".join(toy.LANGUAGES), "--lang-pairs", ",".join(toy.PAIRS), "-s", "wo", "-t", "nl"),
            *("--required-batch-size-multiple", "1", "--gen-subset", "test", "--max-len-b", "20"),
            *("--results-path", out, "--num-workers", "0", "--no-progress-bar", *more),
        )
    return published_hypotheses(out / "generate-test.txt")


def state(path: Path) -> dict[str, torch.Tensor]:
    """A checkpoint's entries of the model."""
    model = torch.load(path, map_location="cpu", weights_only=False)["model"]  # our own file
    # fairseq saves one element of uninitialised memory with each sinusoidal embedding.
    return {name: value for name, value in model.items() if not name.endswith("._float_tensor")}
