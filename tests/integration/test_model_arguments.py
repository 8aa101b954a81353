"""Checkpoints whose stored arguments describe no model, or another one than they hold."""

from __future__ import annotations

import pytest
import torch

from langspec_lora.checkpoints.argument_checks import check_model_arguments
from tests import toy
from tests.bad_input import STOCK, load_for_generation, refusal_of, write_checkpoint

WRONG = [
    ("encoder_layers", 3),
    ("encoder_layers", 10**9),
    ("decoder_layers", -1),
    ("decoder_layers", "2"),
    ("encoder_embed_dim", 32),
    ("decoder_ffn_embed_dim", 10**12),
    ("encoder_attention_heads", 3),
    ("decoder_attention_heads", 0),
    ("dropout", 1.5),
    ("attention_dropout", float("nan")),
    ("activation_dropout", "none"),
    ("decoder_layerdrop", -0.1),
    ("activation_fn", "silu"),
    ("max_source_positions", 10**9),
    ("max_target_positions", -5),
]
OURS = [
    ("dim", 10**9),
    ("dim", -1),
    ("start_idx", 5),
    ("encoder_lora_layer", "0_7"),
    ("decoder_lora_position", "q_out"),
    ("encoder_activation_direction", "src"),
    ("lora_init", "nonsense"),
]


@pytest.fixture(scope="module")
def states(toy_data, tmp_path_factory) -> dict[str, dict]:
    folder = tmp_path_factory.mktemp("states")
    flags = {"stock": toy.base_flags(toy_data, *STOCK), "ours": toy.plugin_flags(toy_data)}
    paths = {kind: write_checkpoint(folder / f"{kind}.pt", given) for kind, given in flags.items()}
    return {kind: torch.load(path, weights_only=False) for kind, path in paths.items()}


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [*((kind, *case) for kind in ("stock", "ours") for case in WRONG), *(("ours", *case) for case in OURS)],
)
def test_argument_that_is_wrong_is_named(toy_data, states, tmp_path, kind, name, value) -> None:
    state = {**states[kind], "args": toy.Namespace(**{**vars(states[kind]["args"]), name: value})}
    torch.save(state, tmp_path / "model.pt")
    message = refusal_of(load_for_generation, toy_data, tmp_path / "model.pt")
    assert name in message.replace("-", "_")
    assert str(value)[:80] in message


@pytest.mark.parametrize("kind", ["stock", "ours"])
def test_arguments_as_training_stores_them_are_taken(states, kind) -> None:
    check_model_arguments(states[kind]["args"])


@pytest.mark.usefixtures("unbuilt")
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--encoder-attention-heads", "3"], "--encoder-attention-heads 3: expected a number that divides"),
        (["--decoder-layers", "-1"], "--decoder-layers -1: expected a whole number from 0"),
        (["--max-target-positions", "0"], "--max-target-positions 0: expected a whole number from 1"),
        (["--decoder-output-dim", "8"], "--decoder-output-dim 8: expected decoder_embed_dim 16"),
        (["--encoder-embed-dim", "32"], "--encoder-embed-dim 32: expected decoder_embed_dim 16"),
    ],
)
def test_sizes_of_a_command_that_make_no_model_are_refused_as_its_flags(toy_data, flags, words) -> None:
    """fairseq ends in an assertion, in an error of shapes at the first batch, or in a ValueError."""
    message = refusal_of(toy.build, toy.plugin_flags(toy_data, *flags))
    assert words in message
    assert "checkpoint" not in message


@pytest.mark.parametrize(
    ("base", "command", "words"),
    [
        (["--encoder-attention-heads", "4"], [], "with --encoder-attention-heads 4, but this command has 2"),
        (["--decoder-attention-heads", "4"], [], "with --decoder-attention-heads 4, but this command has 2"),
        (["--activation-fn", "gelu"], [], "with --activation-fn gelu, but this command has relu"),
        ([], ["--no-scale-embedding"], "without --no-scale-embedding, but this command has it:"),
        (["--no-scale-embedding"], [], "with --no-scale-embedding, but this command is without it:"),
        (["--no-token-positional-embeddings"], [], "with --no-token-positional-embeddings, but"),
        (["--encoder-learned-pos"], [], "with --encoder-learned-pos, but this command is without it:"),
        ([], ["--layernorm-embedding"], "without --layernorm-embedding, but this command has it:"),
        ([], ["--cross-self-attention"], "without --cross-self-attention, but this command has it:"),
    ],
)
def test_start_from_weights_that_would_mean_something_else_is_refused(toy_data, tmp_path, base, command, words) -> None:
    """Most of these fit all the same, and the model computes something else without a word."""
    path = write_checkpoint(tmp_path / "base.pt", toy.base_flags(toy_data, *STOCK, *base))
    start = ["--finetune-from-model", str(path), "--save-dir", str(tmp_path / "save")]
    message = refusal_of(toy.build, toy.plugin_flags(toy_data, *start, *command))
    assert f"checkpoint {path} was trained {words}" in message
    toy.build(toy.plugin_flags(toy_data, *start, *base))  # the advice, followed


def test_start_that_shares_matrices_which_its_model_did_not_share_is_refused(toy_data, tmp_path) -> None:
    """All entries are there by their names, and the last one read would be all of them."""
    flags = toy.base_flags(toy_data, *STOCK)
    apart = [flag for flag in flags if not flag.startswith("--share")]

    def tell_apart(state: dict) -> None:
        state["model"]["encoder.embed_tokens.weight"] = state["model"]["encoder.embed_tokens.weight"] + 1

    path = write_checkpoint(tmp_path / "apart.pt", apart, tell_apart)
    start = ["--finetune-from-model", str(path), "--save-dir", str(tmp_path / "save")]
    message = refusal_of(toy.build, toy.plugin_flags(toy_data, *start))
    assert "was trained without --share-all-embeddings, but this command has it:" in message
    toy.build([flag for flag in toy.plugin_flags(toy_data, *start) if not flag.startswith("--share")])
    output = write_checkpoint(tmp_path / "output.pt", [*apart, "--share-decoder-input-output-embed"])
    start[1] = str(output)
    message = refusal_of(toy.build, toy.plugin_flags(toy_data, *start))
    assert "was trained without --share-all-embeddings, but this command has it:" in message
    whole = write_checkpoint(
        tmp_path / "whole.pt", [flag for flag in flags if flag != "--share-decoder-input-output-embed"]
    )
    start[1] = str(whole)
    toy.build(toy.plugin_flags(toy_data, *start))  # sharing all shares these two


def test_start_whose_matrices_are_equal_may_share_them_whatever_it_says(toy_data, tmp_path) -> None:
    def forget(state: dict) -> None:
        del state["args"].share_all_embeddings
        state["args"].share_decoder_input_output_embed = False

    path = write_checkpoint(tmp_path / "base.pt", toy.base_flags(toy_data, *STOCK), forget)
    toy.build(toy.plugin_flags(toy_data, "--finetune-from-model", str(path), "--save-dir", str(tmp_path / "save")))


def test_start_from_a_post_norm_model_needs_its_architecture(toy_data, tmp_path) -> None:
    post_norm = [flag for flag in toy.base_flags(toy_data, *STOCK) if not flag.endswith("-normalize-before")]
    path = write_checkpoint(tmp_path / "base.pt", post_norm)
    start = ["--finetune-from-model", str(path), "--save-dir", str(tmp_path / "save")]
    message = refusal_of(toy.build, toy.plugin_flags(toy_data, *start))
    assert "was trained without --encoder-normalize-before, but this command has it:" in message
    assert "or the --arch of its model" in message
    toy.build(toy.plugin_flags(toy_data, *start, "--arch", "langspec_transformer_lora"))


def test_start_from_a_model_that_does_not_say_an_argument_takes_what_fairseq_had_then(toy_data, tmp_path) -> None:
    def forget(state: dict) -> None:
        for name in ("encoder_attention_heads", "no_scale_embedding", "activation_fn", "layernorm_embedding"):
            delattr(state["args"], name)

    path = write_checkpoint(tmp_path / "base.pt", toy.base_flags(toy_data, *STOCK), forget)
    start = ["--finetune-from-model", str(path), "--save-dir", str(tmp_path / "save")]
    toy.build(toy.plugin_flags(toy_data, *start))
    message = refusal_of(toy.build, toy.plugin_flags(toy_data, *start, "--activation-fn", "gelu"))
    assert "was trained with --activation-fn relu, but this command has gelu" in message


def test_full_fine_tuning_of_a_stock_model_compares_too(toy_data, tmp_path) -> None:
    path = write_checkpoint(tmp_path / "base.pt", toy.base_flags(toy_data, *STOCK, "--activation-fn", "gelu"))
    task = ["--task", "translation_multi_simple_epoch_lora", *STOCK[2:]]
    start = ["--finetune-from-model", str(path), "--save-dir", str(tmp_path / "save")]
    assert "with --activation-fn gelu" in refusal_of(toy.build, toy.base_flags(toy_data, *task, *start))
