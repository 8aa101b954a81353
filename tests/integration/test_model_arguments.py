"""Checkpoints whose stored arguments describe no model, or another one than they hold."""

from __future__ import annotations

import pytest
import torch

from langspec_lora.checkpoints.model_arguments import check_model_arguments
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
