"""Every field of a ``config.json`` that changes what a model computes: the same in stock fairseq, or refused."""

from __future__ import annotations

from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch
from fairseq.data import Dictionary
from fairseq.models.transformer import TransformerModel
from fairseq.models.transformer.transformer_legacy import base_architecture
from torch import nn

from langspec_lora.convert.hf.config_json import fairseq_args, huggingface_config
from langspec_lora.convert.hf.weights import to_fairseq
from langspec_lora.errors import UserError
from tests import hf

ROWS = 40
SMALL = {**hf.DEFAULTS, "d_model": 16, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "vocab_size": ROWS}


def their_model(**settings) -> nn.Module:
    torch.manual_seed(4)
    model = hf.transformers.M2M100ForConditionalGeneration(hf.transformers.M2M100Config(**{**SMALL, **settings}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def our_model(theirs: nn.Module) -> tuple[nn.Module, Namespace]:
    """The same model, built by stock fairseq."""
    args = fairseq_args(theirs.config.to_dict(), "config.json")
    base_architecture(args)
    dictionary = Dictionary()
    for number in range(ROWS - len(dictionary)):
        dictionary.add_symbol(f"word{number}")
    model = TransformerModel.build_model(
        args, SimpleNamespace(source_dictionary=dictionary, target_dictionary=dictionary)
    )
    state = to_fairseq(theirs.state_dict(), args, range(ROWS), "the model")
    missing = model.load_state_dict(state, strict=False).missing_keys
    assert all(name.endswith(("_weight", "_bias")) for name in missing)  # copies that its encoder layers keep
    return model.eval(), args


@torch.no_grad()
def logits(model: nn.Module, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    if isinstance(model, TransformerModel):
        return model(source, torch.tensor([source.size(1)] * len(source)), target)[0]
    return model(input_ids=source, attention_mask=torch.ones_like(source), decoder_input_ids=target).logits


@pytest.mark.parametrize(
    "settings",
    [
        *({"activation_function": name} for name in ("relu", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh")),
        *({"activation_function": name} for name in ("tanh", "linear")),
        {"scale_embedding": False},
        {"d_model": 18, "encoder_attention_heads": 3, "decoder_attention_heads": 9},
        {"max_position_embeddings": 32, "encoder_layers": 1, "decoder_layers": 3},
        {"encoder_layerdrop": 0.5, "decoder_layerdrop": 0.5, "dropout": 0.5, "attention_dropout": 0.5},
        {"activation_dropout": 0.5},
    ],
    ids=str,
)
def test_settings_compute_the_same_in_stock_fairseq_and_exported_again(settings) -> None:
    theirs = their_model(**settings)
    ours, args = our_model(theirs)
    source, target = torch.randint(4, ROWS, (3, 9)), torch.randint(4, ROWS, (3, 7))
    expected = logits(theirs, source, target)
    assert expected.std() > 0.5
    torch.testing.assert_close(logits(ours, source, target), expected, rtol=1e-4, atol=1e-4)
    again = hf.transformers.M2M100ForConditionalGeneration(
        hf.transformers.M2M100Config(**huggingface_config(args, ROWS, "the checkpoint"))
    )
    again.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(logits(again.eval(), source, target), expected, rtol=1e-4, atol=1e-4)
    for name in ("dropout", "attention_dropout", "activation_dropout", "encoder_layerdrop", "decoder_layerdrop"):
        assert getattr(args, name) == getattr(theirs.config, name)
    assert args.max_source_positions == args.max_target_positions == theirs.config.max_position_embeddings


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        *(
            ({"activation_function": name}, f"no activation '{name}'")
            for name in ("silu", "swish", "quick_gelu", "mish")
        ),
        ({"dropout": "0.1"}, "dropout is '0.1'; expected a number from 0 to 1"),
        ({"decoder_layerdrop": 1.5}, "decoder_layerdrop is 1.5"),
        ({"attention_dropout": None}, "attention_dropout is None"),
        ({"encoder_attention_heads": 3}, "d_model is 16, which is not divisible by encoder_attention_heads (3)"),
        ({"scale_embedding": "false"}, "scale_embedding is 'false'; expected true or false"),
        ({"tie_word_embeddings": False}, "its embeddings are not tied"),
        ({"tie_word_embeddings": 0}, "tie_word_embeddings is 0; expected true or false"),
        ({"pad_token_id": 0}, "pad_token_id is 0"),
        ({"pad_token_id": None}, "pad_token_id is None"),
        ({"eos_token_id": [2, 3]}, "decoder_start_token_id is 2 and eos_token_id [2, 3]"),
        ({"decoder_start_token_id": None}, "decoder_start_token_id is None"),
        ({"num_hidden_layers": 7}, "num_hidden_layers is 7 and encoder_layers 2"),
        ({"hidden_size": 17}, "hidden_size is 17 and d_model 16"),
        ({"quantization_config": {"load_in_8bit": True}}, "its weights are quantised"),
        ({"max_position_embeddings": 0}, "max_position_embeddings is 0"),
        ({"encoder_layers": True}, "encoder_layers is True"),
    ],
    ids=str,
)
def test_settings_that_fairseq_cannot_compute_are_refused(settings, expected) -> None:
    config = {"model_type": "m2m_100", **SMALL, **settings}
    with pytest.raises(UserError) as refused:
        fairseq_args(config, "config.json")
    assert expected in str(refused.value)


def test_one_end_in_a_list_and_transformers_own_aliases_are_understood() -> None:
    config = {"model_type": "m2m_100", **SMALL, "eos_token_id": [2]}
    config |= {"hidden_size": config.pop("d_model"), "num_hidden_layers": config.pop("encoder_layers")}
    args = fairseq_args(config, "config.json")
    theirs = hf.transformers.M2M100Config(**config)
    assert (args.encoder_embed_dim, args.encoder_layers) == (theirs.d_model, theirs.encoder_layers) == (16, 2)


def test_activations_that_transformers_lacks_are_not_exported() -> None:
    args = fairseq_args({"model_type": "m2m_100", **SMALL}, "config.json")
    for name in ("swish", "relu_squared"):
        args.activation_fn = name
        with pytest.raises(UserError, match=f"uses --activation-fn {name}"):
            huggingface_config(args, ROWS, "the checkpoint")


def test_quantised_weights_are_refused() -> None:
    theirs = their_model()
    args = fairseq_args(theirs.config.to_dict(), "config.json")
    tensors = {**theirs.state_dict(), "model.encoder.layers.0.fc1.weight": torch.ones(24, 16, dtype=torch.int8)}
    with pytest.raises(UserError, match=r"holds model.encoder.layers.0.fc1.weight as integers"):
        to_fairseq(tensors, args, range(ROWS), "the folder")
