"""Arguments and checkpoints that are put together from a base model and adapters."""

from __future__ import annotations

from argparse import Namespace

import pytest
import torch
from fairseq import checkpoint_utils

from langspec_lora.checkpoints.assembly import (
    adapted_arguments,
    architecture,
    checkpoint_of,
    model_settings,
    stock_arguments,
)
from langspec_lora.checkpoints.fingerprint import base_fingerprint, check_same_base
from langspec_lora.errors import UserError
from tests import toy
from tests.unit.test_adapter_file import make

RUN = {"save_adapters_only": True, "user_dir": "u", "finetune_from_model": "b.pt", "train_languages": "wo"}


def test_settings_of_a_model_are_those_of_its_training() -> None:
    said = {"encoder_langtok": "src", "decoder_langtok": True, "lora_init": "zero"}
    assert model_settings(Namespace(arch="a", **said, dropout=0.1)) == {"arch": "a", **said}
    assert model_settings(Namespace()) == {"arch": ""}
    assert architecture(Namespace(_name="registered", arch="a")) == "registered"


def test_arguments_of_an_adapted_model_are_its_bases_and_its_adapters(toy_data) -> None:
    base = toy.parse(toy.base_flags(toy_data, "--task", "translation_multi_simple_epoch", "--arch", "transformer"))
    vars(base).update(langs=["wo", "en"], **RUN, lang_resources="levels.yaml", encoder_langtok=None)
    args = adapted_arguments(
        base, make(0).adapters, {"arch": "ours", "encoder_langtok": "src", "decoder_langtok": True}
    )
    assert all(getattr(args, name) is None for name in (*RUN, "lang_resources"))
    assert (args.arch, args._name, args.encoder_langtok, args.decoder_langtok) == ("ours", "ours", "src", True)
    assert args.langs == ["wo", "en", "ଓଡ଼ିଆ"]
    assert (args.high_rank, args.med_rank, args.low_rank) == (2, 1, 4)
    assert (args.encoder_lora_layer, args.encoder_lora_position, args.encoder_activation_direction) == (
        "0",
        "q",
        "src_tgt",
    )
    assert (args.decoder_lora_layer, args.decoder_lora_position, args.decoder_activation_direction) == (
        "1",
        "fc1",
        "tgt_tgt",
    )
    assert args.dropout == base.dropout
    assert vars(base)["finetune_from_model"] == "b.pt"


def test_arguments_of_a_stock_model_hold_nothing_of_ours(toy_data) -> None:
    args = toy.parse(toy.plugin_flags(toy_data))
    vars(args).update(RUN, dictionary_langs=["wo", "en"])
    stock = stock_arguments(args)
    plain = toy.parse(toy.base_flags(toy_data, "--task", "translation_multi_simple_epoch", "--arch", "transformer"))
    assert not vars(stock).keys() - vars(plain).keys() - {*RUN, "_name"}
    assert all(getattr(stock, name, None) is None for name in RUN)
    assert (stock.arch, stock.task, stock.langs) == ("transformer", "translation_multi_simple_epoch", ["wo", "en"])


def test_fairseq_reads_a_checkpoint_that_was_put_together(toy_data, tmp_path) -> None:
    args = toy.parse(toy.base_flags(toy_data, "--task", "translation_multi_simple_epoch", "--arch", "transformer"))
    torch.save(checkpoint_of(args, {"x": torch.ones(2)}), tmp_path / "checkpoint.pt")
    state = checkpoint_utils.load_checkpoint_to_cpu(str(tmp_path / "checkpoint.pt"))
    assert state["extra_state"]["train_iterator"] == {"epoch": 1, "iterations_in_epoch": 0}
    assert state["optimizer_history"][-1].keys() == {
        "criterion_name", "optimizer_name", "lr_scheduler_state", "num_updates",
    }  # fmt: skip


def test_views_of_one_memory_count_by_their_shape() -> None:
    values = torch.arange(12.0).view(4, 3)
    views = {"a": values, "b": values[:2], "c": values.t()}
    assert base_fingerprint(views) == base_fingerprint({name: value.clone() for name, value in views.items()})
    assert base_fingerprint(views) != base_fingerprint({**views, "b": values})


def test_another_base_is_named_with_twelve_digits() -> None:
    check_same_base("sha256:0", "sha256:0", "x", "y")
    held, wanted = ("sha256:" + digits * 32 for digits in ("ab", "cd"))
    with pytest.raises(
        UserError, match=r"^x is another base model \(fingerprint (ab){6}\) than that of y \((cd){6}\);"
    ):
        check_same_base(held, wanted, "x", "y")
