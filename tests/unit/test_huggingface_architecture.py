"""The shape of a model, from Hugging Face's ``config.json`` to fairseq's arguments and back."""

from __future__ import annotations

import pytest

from langspec_lora.checkpoints.huggingface.architecture import fairseq_args, huggingface_config

CONFIG = {
    "model_type": "m2m_100",
    "d_model": 48,
    "encoder_layers": 3,
    "decoder_layers": 5,
    "encoder_ffn_dim": 7,
    "decoder_ffn_dim": 9,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 4,
    "dropout": 0.31,
    "attention_dropout": 0.32,
    "activation_dropout": 0.33,
    "encoder_layerdrop": 0.34,
    "decoder_layerdrop": 0.35,
    "max_position_embeddings": 777,
    "activation_function": "gelu",
    "scale_embedding": False,
    "vocab_size": 1234,
}
"""No two numbers alike, and none is a default."""


@pytest.mark.parametrize("name", CONFIG)
def test_every_setting_comes_back(name) -> None:
    back = huggingface_config(fairseq_args(CONFIG, "it"), CONFIG["vocab_size"], "it")
    assert back[name] == CONFIG[name]


def test_what_a_config_leaves_out_is_transformers_own_default() -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra hf: transformers is not installed")
    default = transformers.M2M100Config()
    back = huggingface_config(fairseq_args({"model_type": "m2m_100"}, "it"), default.vocab_size, "it")
    for name in set(CONFIG) - {"model_type"}:
        assert back[name] == getattr(default, name), name
    for name in ("bos_token_id", "pad_token_id", "eos_token_id", "decoder_start_token_id", "is_encoder_decoder"):
        assert back[name] == getattr(default, name), name


def test_both_positions_of_fairseq_are_those_of_the_model() -> None:
    args = fairseq_args(CONFIG, "it")
    assert (args.max_source_positions, args.max_target_positions) == (777, 777)
