"""Checkpoints whose stored arguments the fairseq at hand no longer takes."""

from __future__ import annotations

import logging
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.dataclass import utils as dataclass_utils
from fairseq.dataclass.utils import convert_namespace_to_omegaconf as stock_reading
from omegaconf import OmegaConf

from langspec_lora.checkpoints.outdated_arguments import read_outdated_arguments, replace_outdated, tell_replaced
from langspec_lora.cli.main import main
from langspec_lora.errors import UserError
from tests import toy
from tests.bad_input import STOCK, load_for_generation, refusal_of, write_checkpoint

OUTDATED = [  # and what fairseq-train takes where the flag is not given
    ("ddp_backend", "simple", "distributed_training.ddp_backend", "pytorch_ddp"),
    ("print_alignment", False, "generation.print_alignment", None),  # a switch before it was a choice
    ("log_interval", None, "common.log_interval", 100),
    ("fp16", "yes", "common.fp16", False),
    ("lr", "0.1", "optimization.lr", [0.25]),
    ("save_dir", "${HOME}/run", "checkpoint.save_dir", "checkpoints"),
    ("label_smoothing", None, "criterion.label_smoothing", 0.0),
    ("optimizer", "bert_adam", "optimizer", None),
    ("tokenizer", "theirs", "tokenizer", None),
    ("task", "their_task", "task", None),
]


@pytest.fixture(scope="module")
def arguments(toy_data: Path) -> Namespace:
    return toy.parse(toy.base_flags(toy_data, *STOCK))


@pytest.mark.parametrize(("name", "value", "setting", "default"), OUTDATED)
def test_argument_of_a_run_that_fairseq_refuses_is_replaced_and_no_other(
    arguments, name, value, setting, default
) -> None:
    args = Namespace(**{**vars(arguments), name: value})
    with pytest.raises(Exception):  # noqa: B017, PT011  of hydra, omegaconf, ast, or a KeyError
        stock_reading(args)
    assert replace_outdated(args) == {name: value}
    settings = stock_reading(args)
    kept = {key: held for key, held in vars(args).items() if key != name}
    assert kept == {key: held for key, held in vars(arguments).items() if key != name}
    assert settings.model.encoder_embed_dim == 16
    assert OmegaConf.select(settings, setting) == default


def test_argument_whose_default_follows_another_is_left_out(arguments) -> None:
    """``--max-tokens-valid`` is ``--max-tokens`` where it is not given."""
    args = Namespace(**{**vars(arguments), "max_tokens_valid": "x"})
    assert replace_outdated(args) == {"max_tokens_valid": "x"}
    assert not hasattr(args, "max_tokens_valid")


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
    with pytest.raises(UserError, match="argument arch is 'their_model', which the installed fairseq does not"):
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
    assert "the installed fairseq does not accept the checkpoint's ddp_backend 'simple'; ignored" in caplog.text
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
    assert warning == "the installed fairseq does not know the checkpoint's bpe, so raw text is not split with it"


def test_merged_export_of_an_outdated_checkpoint_is_read_by_fairseq_alone(toy_data, tmp_path) -> None:
    path = write_checkpoint(tmp_path / "old.pt", toy.plugin_flags(toy_data), outdated)
    out = tmp_path / "merged.pt"
    assert main(["export", str(path), "--format", "merged", "-s", "en", "-t", "wo", "--out", str(out)]) == 0
    stock_reading(torch.load(out, weights_only=False)["args"])


def refuse_together(monkeypatch: pytest.MonkeyPatch, *groups: tuple[str, ...]) -> list[Namespace]:
    """A fairseq that refuses arguments of which all of a group have the value 7; gives what it was asked."""
    asked = []

    def convert(args: Namespace) -> None:
        asked.append(args)
        for group in groups:
            if all(getattr(args, name, None) == 7 for name in group):
                raise ValueError(f"refused: {', '.join(group)}\nand more")

    monkeypatch.setattr(dataclass_utils, "convert_namespace_to_omegaconf", convert)
    return asked


@pytest.mark.parametrize(
    ("groups", "replaced"),
    [
        ([("seed",)], ["seed"]),
        ([("log_interval", "seed")], ["log_interval"]),  # of those that do it, the first in fairseq's order
        ([("seed", "patience"), ("log_interval",)], ["log_interval", "seed"]),
        ([("log_interval", "seed"), ("seed", "patience")], ["seed"]),
        (
            [("log_interval",), ("seed",), ("patience",), ("max_epoch",)],
            ["log_interval", "seed", "patience", "max_epoch"],
        ),
    ],
)
def test_fewest_arguments_are_replaced_where_no_single_one_is_suspect(monkeypatch, groups, replaced) -> None:
    refuse_together(monkeypatch, *groups)
    args = Namespace(arch="transformer", log_interval=7, seed=7, patience=7, max_epoch=7, encoder_layers=7)
    found = replace_outdated(args)
    assert sorted(found.items()) == sorted((name, 7) for name in replaced)
    defaults = {"log_interval": 100, "seed": 1, "patience": -1, "max_epoch": 0}
    expected = {name: defaults[name] if name in replaced else 7 for name in defaults}
    assert vars(args) == {"arch": "transformer", "encoder_layers": 7, **expected}


def test_arguments_that_are_taken_are_tried_once(monkeypatch) -> None:
    asked = refuse_together(monkeypatch, ("seed",))
    args = Namespace(seed=1)
    assert replace_outdated(args) == {}
    assert len(asked) == 1
    assert asked[0] is not args  # which fairseq may change


def test_argument_of_the_model_that_fairseq_refuses_ends_in_one_sentence(monkeypatch) -> None:
    refuse_together(monkeypatch, ("encoder_layers", *("x" * 300,)))
    args = Namespace(arch="transformer", encoder_layers=7, **{"x" * 300: 7})
    with pytest.raises(UserError) as refusal:
        replace_outdated(args)
    words = f"refused: encoder_layers, {'x' * 300}"[:200]
    assert str(refusal.value) == (
        f"the checkpoint's arguments cannot be read ({words}); give a file written by fairseq-train"
    )
    for arch in (None, "y" * 100):
        args.arch = arch
        with pytest.raises(UserError, match=f"argument arch is '{str(arch)[:80]}', which the installed fairseq"):
            replace_outdated(args)


@pytest.mark.parametrize("was", [False, True])
def test_fairseq_says_nothing_while_arguments_are_tried(caplog, was, monkeypatch) -> None:
    noisy = logging.getLogger("fairseq.dataclass.utils")

    def convert(args: Namespace) -> None:
        noisy.error("Error when composing. Overrides: all of them")
        if args.seed == 7:
            raise ValueError("refused")

    monkeypatch.setattr(dataclass_utils, "convert_namespace_to_omegaconf", convert)
    monkeypatch.setattr(noisy, "disabled", was)
    assert replace_outdated(Namespace(arch="transformer", seed=7)) == {"seed": 7}
    assert not caplog.records
    assert noisy.disabled is was


def test_replaced_arguments_are_told_with_what_they_were(caplog) -> None:
    caplog.set_level("INFO")
    tell_replaced({})
    assert not caplog.records
    tell_replaced({"bpe": "theirs", "lr": "x" * 100, "tokenizer": "other"})
    (warning, info) = caplog.records
    assert (warning.levelname, info.levelname) == ("WARNING", "INFO")
    assert (
        warning.getMessage()
        == "the installed fairseq does not know the checkpoint's bpe and tokenizer, so raw text is not split with it"
    )
    values = f"bpe 'theirs', lr '{'x' * 80}', tokenizer 'other'"
    assert f"the installed fairseq does not accept the checkpoint's {values}; ignored" in info.getMessage()
    caplog.clear()
    tell_replaced({"seed": 7})
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_fairseq_s_reading_is_replaced_once_and_tried_first(arguments, caplog) -> None:
    caplog.set_level("INFO")
    read_outdated_arguments()
    convert = checkpoint_utils.convert_namespace_to_omegaconf
    read_outdated_arguments()
    assert checkpoint_utils.convert_namespace_to_omegaconf is convert
    assert convert(Namespace(**vars(arguments))) == stock_reading(Namespace(**vars(arguments)))
    assert "the installed fairseq does not accept" not in caplog.text
    assert (
        convert(Namespace(**{**vars(arguments), "ddp_backend": "simple"})).distributed_training.ddp_backend
        == "pytorch_ddp"
    )
    assert "does not accept the checkpoint's ddp_backend 'simple'" in caplog.text
