"""What the tests of bad input share: checkpoints of every kind, and data to spoil."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fairseq import checkpoint_utils, options, tasks

from tests import toy

PRE_NORM = ("--encoder-normalize-before", "--decoder-normalize-before")
STOCK = ("--task", "translation_multi_simple_epoch", "--arch", "transformer", *PRE_NORM)
PREFIX = "langspec-lora: error: "


class Touch:
    """Pickles as a command of the shell that writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch '{self.marker}'",)


def write_checkpoint(path: Path, flags: list[str], change: Callable[[dict], None] = lambda state: None) -> Path:
    """Writes what fairseq-train would after no update at all.

    Args:
        path: the file.
        flags: the flags of the training.
        change: changes the state before it is written.
    """
    _, model = toy.build(flags)
    args = toy.parse(flags)
    if getattr(model, "config", None) is not None:
        from langspec_lora.languages import languages_to_json

        args.adapter_languages = languages_to_json(model.adapters.config.languages)
    history = {"criterion_name": "X", "optimizer_name": "FairseqAdam", "lr_scheduler_state": {}, "num_updates": 0}
    state = {
        "args": args,
        "cfg": None,
        "model": model.state_dict(),
        "optimizer_history": [history],
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}},
        "last_optimizer_state": None,
    }
    change(state)
    torch.save(state, path)
    return path


def without_one_adapter(state: dict) -> None:
    del state["model"][next(name for name in state["model"] if name.endswith("lora_B"))]


def cut_short(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-100])
    return path


def refusal_of(function: Callable, *args) -> str:
    with pytest.raises(SystemExit) as refusal:
        function(*args)
    message = refusal.value.code
    assert message.startswith(PREFIX)
    assert message.isprintable()
    return message


def refusals_of(function: Callable, *args) -> list[str]:
    """The mistakes that a command lists together."""
    with pytest.raises(SystemExit) as refusal:
        function(*args)
    first, *mistakes = refusal.value.code.splitlines()
    assert first == f"{PREFIX}{len(mistakes)} mistakes"
    for number, mistake in enumerate(mistakes, start=1):
        assert mistake.startswith(f"  {number}. ")
        assert mistake.isprintable()
    return mistakes


def set_up_generation(data: Path, path: Path | str, *more: str, parser: Callable = options.get_generation_parser):
    """Sets up the task as fairseq-generate does before it loads the model."""
    flags = [
        *(str(data), "--task", "translation_multi_simple_epoch_lora", "--path", str(path), "--gen-subset", "test"),
        *("--langs", ",".join(toy.LANGUAGES), "--lang-pairs", ",".join(toy.PAIRS), "-s", "en", "-t", "wo"),
        *("--encoder-langtok", "src", "--decoder-langtok", "--fixed-dictionary", str(data.parent / "dict.txt")),
        *more,
    ]
    args = options.parse_args_and_arch(parser(), flags)
    return tasks.setup_task(toy.task_settings(args))


def load_for_generation(data: Path, path: Path):
    task = set_up_generation(data, path)
    return checkpoint_utils.load_model_ensemble([str(path)], task=task)


def own_copy(toy_data: Path, folder: Path) -> Path:
    """The toy data with dictionary and levels, to be spoilt."""
    shutil.copytree(toy_data, folder / "bin")
    for name in ("dict.txt", "levels.yaml"):
        shutil.copy(toy_data.parent / name, folder)
    return folder / "bin"


def remove(data: Path, *prefixes: str) -> None:
    for prefix in prefixes:
        for path in data.glob(f"{prefix}*"):
            path.unlink()
