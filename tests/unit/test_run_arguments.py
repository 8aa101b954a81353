"""Checkpoints whose stored arguments the fairseq at hand no longer takes."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.dataclass.utils import convert_namespace_to_omegaconf as stock_reading

from langspec_lora.checkpoints.run_arguments import replace_outdated
from langspec_lora.cli.main import main
from langspec_lora.errors import UserError
from tests import toy
from tests.bad_input import STOCK, load_for_generation, refusal_of, write_checkpoint

OUTDATED = [
    ("ddp_backend", "simple"),
    ("print_alignment", False),  # a switch before it was a choice
    ("log_interval", None),
    ("fp16", "yes"),
    ("lr", "0.1"),
    ("save_dir", "${HOME}/run"),
    ("label_smoothing", None),
    ("optimizer", "bert_adam"),
    ("tokenizer", "theirs"),
    ("task", "their_task"),
]


@pytest.fixture(scope="module")
def arguments(toy_data: Path) -> Namespace:
    return toy.parse(toy.base_flags(toy_data, *STOCK))


@pytest.mark.parametrize(("name", "value"), OUTDATED)
def test_argument_of_a_run_that_fairseq_refuses_is_replaced_and_no_other(arguments, name, value) -> None:
    args = Namespace(**{**vars(arguments), name: value})
    with pytest.raises(Exception):  # noqa: B017, PT011  of hydra, omegaconf, ast, or a KeyError
        stock_reading(args)
    assert replace_outdated(args) == {name: value}
    settings = stock_reading(args)
    kept = {key: held for key, held in vars(args).items() if key != name}
    assert kept == {key: held for key, held in vars(arguments).items() if key != name}
    assert settings.model.encoder_embed_dim == 16


def test_several_outdated_arguments_are_all_found(arguments) -> None:
    outdated = {"ddp_backend": "simple", "optimizer": "theirs", "seed": "x"}
    args = Namespace(**{**vars(arguments), **outdated})
    assert replace_outdated(args) == outdated
    stock_reading(args)


@pytest.mark.parametrize(("name", "value"), [("ddp_backend", "no_c10d"), ("adam_betas", "(0.9, 0.98)"), ("lr", [0.1])])
def test_argument_that_fairseq_takes_is_left_alone(arguments, name, value) -> None:
    args = Namespace(**{**vars(arguments), name: value})
    assert replace_outdated(args) == {}
    assert getattr(args, name) == value


def test_architecture_that_fairseq_does_not_know_is_named(arguments) -> None:
    with pytest.raises(UserError, match="argument arch is 'their_model', an architecture that this fairseq does not"):
        replace_outdated(Namespace(**{**vars(arguments), "arch": "their_model"}))


def outdated(state: dict) -> None:
    state["args"].ddp_backend = "simple"


@pytest.mark.parametrize("kind", ["stock", "ours"])
def test_checkpoint_with_an_outdated_argument_is_loaded(toy_data, tmp_path, caplog, kind) -> None:
    caplog.set_level("INFO")
    flags = toy.base_flags(toy_data, *STOCK) if kind == "stock" else toy.plugin_flags(toy_data)
    path = write_checkpoint(tmp_path / "old.pt", flags, outdated)
    (model,), settings = load_for_generation(toy_data, path)
    held = torch.load(path, weights_only=False)["model"]
    assert torch.equal(model.encoder.embed_tokens.weight, held["encoder.embed_tokens.weight"])
    assert settings.distributed_training.ddp_backend == "pytorch_ddp"
    assert "ddp_backend 'simple', which this fairseq does not take, only concerned its run" in caplog.text
    assert checkpoint_utils.load_checkpoint_to_cpu(str(path))["model"].keys() == held.keys()  # as fairseq-train


def test_unknown_architecture_ends_the_loading_in_one_sentence(toy_data, tmp_path) -> None:
    def change(state: dict) -> None:
        state["args"].arch = "their_model"

    path = write_checkpoint(tmp_path / "theirs.pt", toy.base_flags(toy_data, *STOCK), change)
    assert "argument arch is 'their_model'" in refusal_of(load_for_generation, toy_data, path)


def test_lost_tokenizer_is_warned_of(toy_data, tmp_path, caplog) -> None:
    def change(state: dict) -> None:
        state["args"].bpe = "theirs"

    path = write_checkpoint(tmp_path / "old.pt", toy.base_flags(toy_data, *STOCK), change)
    checkpoint_utils.load_checkpoint_to_cpu(str(path))
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning == "the checkpoint's bpe is unknown to this fairseq: raw text is not split by it"


def test_merged_export_of_an_outdated_checkpoint_is_read_by_fairseq_alone(toy_data, tmp_path) -> None:
    path = write_checkpoint(tmp_path / "old.pt", toy.plugin_flags(toy_data), outdated)
    out = tmp_path / "merged.pt"
    assert main(["export", str(path), "--format", "merged", "-s", "en", "-t", "wo", "--out", str(out)]) == 0
    stock_reading(torch.load(out, weights_only=False)["args"])
