"""Layer drop, and flags that take away what adapters stand on."""

from __future__ import annotations

import pytest
import torch
from fairseq import criterions
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from torch import distributed

from langspec_lora.cli.main import main
from langspec_lora.config import AdapterConfig
from langspec_lora.errors import UserError
from langspec_lora.models.structure import check_training_structure
from tests import toy
from tests.bad_input import load_for_generation, refusal_of, write_checkpoint

ONE_LAYER = ("--encoder-lora-layer", "none", "--decoder-lora-layer", "1")


def test_an_update_that_drops_all_adapted_layers_has_a_gradient_of_zero(toy_data) -> None:
    flags = toy.plugin_flags(toy_data, *ONE_LAYER, "--decoder-layerdrop", "1")
    task, model = toy.build(flags)
    toy.randomise_adapters(model)
    criterion = criterions.build_criterion(convert_namespace_to_omegaconf(toy.parse(flags)).criterion, task)
    batch = toy.mixed_batch(task)
    loss, *_ = task.train_step(batch, model, criterion, _Optimizer(), update_num=0)
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients
    assert not any(gradient.any() for gradient in gradients)
    model.decoder.layers.p = 0.0
    whole, *_ = task.valid_step(batch, model.train(), criterion)
    assert loss.isfinite()
    assert not torch.equal(loss, whole)  # the layers were there to drop


class _Optimizer:
    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()


def test_without_layer_drop_the_features_stay_as_they_are(toy_data) -> None:
    task, model = toy.build(toy.plugin_flags(toy_data, *ONE_LAYER))
    batch = toy.mixed_batch(task)
    languages = {"src_lang_id": batch["net_input"]["src_lang_id"], "tgt_lang_id": batch["tgt_lang_id"]}
    model.train()
    features = model(**{**batch["net_input"], **languages}, features_only=True)[0]
    assert type(features.grad_fn).__name__ != "AddBackward0"


def checked(data, *flags: str, without: tuple[str, ...] = ()) -> None:
    """Checks what the flags of a training say of its model; ``without`` are settings that nothing has said."""
    args = toy.parse(toy.plugin_flags(data, *flags))
    config = AdapterConfig.from_args(args)
    for name in without:
        delattr(args, name)
    check_training_structure(args, config)


@pytest.mark.parametrize(
    ("flags", "dropped"),
    [
        ("--decoder-layerdrop 0.2 --ddp-backend pytorch_ddp", "--decoder-layerdrop"),
        ("--encoder-layerdrop 0.2 --ddp-backend c10d", "--encoder-layerdrop"),
        ("--encoder-layerdrop 0.2 --decoder-layerdrop 0.1", "--encoder-layerdrop"),
        ("--decoder-layerdrop 0.2 --find-unused-parameters", None),
        ("--decoder-layerdrop 0.2 --ddp-backend no_c10d", None),
        ("--decoder-layerdrop 0.2 --ddp-backend legacy_ddp", None),
        ("", None),
    ],
)
def test_layer_drop_in_several_processes_needs_a_backend_that_takes_it(toy_data, monkeypatch, flags, dropped) -> None:
    def start(processes: int) -> None:
        monkeypatch.setattr(distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(distributed, "get_world_size", lambda: processes)

    checked(toy_data, *flags.split())
    start(1)
    checked(toy_data, *flags.split())
    start(2)
    if dropped is None:
        checked(toy_data, *flags.split())
        return
    with pytest.raises(UserError) as refusal:
        checked(toy_data, *flags.split())
    assert str(refusal.value).startswith(f"{dropped} leaves adapters out of an update, which --ddp-backend ")
    assert "allows only with --find-unused-parameters; give it too, or use --ddp-backend no_c10d" in str(refusal.value)
    monkeypatch.setattr(distributed, "is_available", lambda: False)  # then torch has none of the other two
    monkeypatch.delattr(distributed, "is_initialized")
    checked(toy_data, *flags.split())


def test_what_an_architecture_leaves_open_takes_nothing_away(toy_data, monkeypatch) -> None:
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    stacks = ("encoder_layers_to_keep", "decoder_layers_to_keep", "encoder_layerdrop", "decoder_layerdrop")
    checked(toy_data, without=("no_cross_attention", *stacks))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--low-rank", "1000000000"], "--low-rank: rank 1000000000 of oc exceeds 24, the width"),
        (["--low-rank", "25"], "--low-rank: rank 25 of oc exceeds 24"),
        (["--seed", str(2**70)], f"--seed {2**70}: expected a number from 0"),
        (["--seed", "-1"], "--seed -1: expected a number from 0"),
    ],
)
def test_language_cannot_join_with_a_rank_or_a_seed_beyond_any_use(toy_data, tmp_path, flags, words) -> None:
    path = write_checkpoint(tmp_path / "ck.pt", toy.plugin_flags(toy_data))
    out = tmp_path / "out.pt"
    assert words in refusal_of(main, ["add-language", str(path), "--langs", "oc", "--out", str(out), *flags])
    assert not out.exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--no-cross-attention"], "--no-cross-attention leaves no crossq, crossk, crossv to adapt"),
        (["--encoder-layers-to-keep", "0"], "--encoder-layers-to-keep removes layers that have adapters"),
        (["--decoder-layers-to-keep", "1"], "--decoder-layers-to-keep removes layers that have adapters"),
        (["--low-rank", "1000000000"], "--low-rank: rank 1000000000 of wo exceeds 24, the width"),
        (["--high-rank", "25"], "--high-rank: rank 25 of en exceeds 24"),
        (["--dim", "8", "--med-rank", "9"], "--med-rank: rank 9 of nl exceeds 8"),
        (["--decoder-ffn-embed-dim", "40", "--low-rank", "41"], "--low-rank: rank 41 of wo exceeds 40"),
        (
            ["--encoder-ffn-embed-dim", "8", "--decoder-ffn-embed-dim", "8", "--high-rank", "17"],
            "rank 17 of en exceeds 16",
        ),
    ],
)
def test_flag_that_removes_adapted_layers_ends_a_training(toy_data, flags, words) -> None:
    assert words in refusal_of(toy.build, toy.plugin_flags(toy_data, *flags))
    with pytest.raises(UserError) as refusal:  # which the task asks for, before the model does
        checked(toy_data, *flags)
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    "flags",
    [
        "--high-rank 24 --med-rank 24 --low-rank 24",
        "--dim 8 --high-rank 8 --med-rank 8 --low-rank 8",
        "--no-cross-attention --decoder-lora-position q_fc1",
        "--no-cross-attention --decoder-lora-layer none",
        "--no-cross-attention --decoder-layers 0",
    ],
)
def test_flags_that_keep_every_adapted_layer_are_accepted(toy_data, flags) -> None:
    checked(toy_data, *flags.split())


def test_decoder_without_cross_attention_is_built_where_none_is_adapted(toy_data) -> None:
    toy.build(toy.plugin_flags(toy_data, "--no-cross-attention", "--decoder-lora-position", "q_k_v_fc1"))


def test_layers_that_a_generation_takes_away_are_refused(toy_data, tmp_path) -> None:
    def change(state: dict) -> None:
        state["args"].encoder_layers_to_keep = "0"  # as --model-overrides sets it

    path = write_checkpoint(tmp_path / "model.pt", toy.plugin_flags(toy_data), change)
    assert "--encoder-layers-to-keep removes layers" in refusal_of(load_for_generation, toy_data, path)


IDS = {
    "no target": ({"src_lang_id": torch.tensor([0])}, "tgt_lang_id is missing"),
    "no source": ({"tgt_lang_id": torch.tensor([0])}, "src_lang_id is missing"),
    "below zero": ({"src_lang_id": torch.tensor([-1]), "tgt_lang_id": torch.tensor([0])}, "src_lang_id holds -1"),
    "beyond": ({"src_lang_id": torch.tensor([0]), "tgt_lang_id": torch.tensor([5])}, "expected numbers from 0 to 4"),
    "twice as many": (
        {"src_lang_id": torch.zeros(4, dtype=torch.long), "tgt_lang_id": torch.tensor([0])},
        "src_lang_id holds 4 ids for 2 sentences",
    ),
    "fractions": ({"src_lang_id": torch.tensor([0.0]), "tgt_lang_id": torch.tensor([0])}, "expected whole numbers"),
}


@pytest.mark.parametrize("kind", IDS)
def test_wrong_language_ids_are_refused_in_a_sentence(toy_data, kind) -> None:
    task, model = toy.build(toy.plugin_flags(toy_data))
    batch = toy.mixed_batch(task, size=2)["net_input"]
    texts = {name: batch[name] for name in ("src_tokens", "src_lengths", "prev_output_tokens")}
    ids, words = IDS[kind]
    with pytest.raises(UserError) as refusal:
        model(**texts, **ids)
    assert words in str(refusal.value)
