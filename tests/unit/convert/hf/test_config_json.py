"""The shape of a model, from Hugging Face's ``config.json`` to fairseq's arguments and back."""

from __future__ import annotations

import warnings
from argparse import Namespace

import pytest
import torch
from fairseq.models.transformer import DEFAULT_MAX_SOURCE_POSITIONS, DEFAULT_MAX_TARGET_POSITIONS, TransformerConfig
from fairseq.models.transformer.transformer_legacy import base_architecture
from fairseq.utils import get_activation_fn

from langspec_lora.convert.hf.config_json import fairseq_args, huggingface_config, training_flags
from langspec_lora.errors import UserError
from tests import toy
from tests.optional import hugging_face

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

BUILT_IN = {
    "encoder_normalize_before": True,
    "decoder_normalize_before": True,
    "encoder_learned_pos": False,
    "decoder_learned_pos": False,
    "no_token_positional_embeddings": False,
    "layernorm_embedding": False,
    "no_decoder_final_norm": False,
    "adaptive_input": False,
    "cross_self_attention": False,
    "no_cross_attention": False,
}
"""What transformers' modeling_m2m_100.py does whatever its settings, by fairseq's names."""

M2M100_418M = {"model_type": "m2m_100"}
M2M100_1_2B = {
    **{f"{stack}_layers": 24 for stack in ("encoder", "decoder")},
    **{f"{stack}_ffn_dim": 8192 for stack in ("encoder", "decoder")},
}


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


def test_the_arguments_are_those_of_a_training_of_m2m100() -> None:
    args = vars(fairseq_args(CONFIG, "it"))
    expected = {
        "arch": "transformer",
        "task": "translation_multi_simple_epoch",
        "criterion": "label_smoothed_cross_entropy",
        "source_lang": None,
        "target_lang": None,
        "encoder_langtok": "src",
        "decoder_langtok": True,
        "lang_tok_style": "multilingual",
        "encoder_embed_dim": 48,
        "decoder_embed_dim": 48,
        "share_all_embeddings": True,
        "share_decoder_input_output_embed": True,
        **BUILT_IN,
    }
    assert {name: args.get(name, "nothing") for name in expected} == expected


@pytest.mark.parametrize("name", BUILT_IN)
def test_what_hugging_face_has_built_in_is_not_written_otherwise(name) -> None:
    args = fairseq_args(CONFIG, "it")
    setattr(args, name, not BUILT_IN[name])
    flag = f"{'' if BUILT_IN[name] else 'no '}--{name.replace('_', '-')}"
    with pytest.raises(UserError, match=f"it was trained with {name}={not BUILT_IN[name]}, but .* has {flag};"):
        huggingface_config(args, 9, "it")


@pytest.mark.parametrize("absent", ["left out", "None"])
@pytest.mark.parametrize("name", BUILT_IN)
def test_what_a_checkpoint_does_not_say_is_fairseqs_default(name, absent) -> None:
    default = Namespace(no_decoder_final_norm=TransformerConfig().no_decoder_final_norm)
    base_architecture(default)
    args = fairseq_args(CONFIG, "it")
    delattr(args, name)
    if absent == "None":
        setattr(args, name, None)
    if getattr(default, name) == BUILT_IN[name]:
        huggingface_config(args, 9, "it")
    else:
        with pytest.raises(UserError, match=f"trained with {name}=None, but Hugging Face's M2M100 has --"):
            huggingface_config(args, 9, "it")


@pytest.mark.parametrize(
    ("name", "absent", "key", "expected"),
    [
        ("activation_fn", None, "activation_function", "relu"),
        ("no_scale_embedding", "left out", "scale_embedding", True),
        ("max_target_positions", None, "max_position_embeddings", 1024),
        ("max_target_positions", "left out", "max_position_embeddings", 1024),
        ("activation_dropout", "left out", "activation_dropout", 0.0),
        ("encoder_layerdrop", None, "encoder_layerdrop", 0.0),
    ],
)
def test_settings_that_old_checkpoints_lack_are_written_as_fairseq_takes_them(name, absent, key, expected) -> None:
    args = fairseq_args(CONFIG, "it")
    delattr(args, name)
    if absent is None:
        setattr(args, name, None)
    assert huggingface_config(args, 9, "it")[key] == expected


@pytest.mark.parametrize("name", ["relu", "gelu", "tanh", "linear", "gelu_accurate", "gelu_fast"])
def test_activations_are_written_under_transformers_names(name) -> None:
    activations = hugging_face("transformers.activations").ACT2FN
    args = fairseq_args(CONFIG, "it")
    args.activation_fn = name
    theirs = activations[huggingface_config(args, 9, "it")["activation_function"]]
    x = torch.linspace(-4, 4, 99)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gelu_fast is an old name
        ours = get_activation_fn(name)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-6)


def test_two_widths_are_not_written() -> None:
    args = fairseq_args(CONFIG, "it")
    args.decoder_embed_dim = 96
    with pytest.raises(UserError, match=r"it has an encoder of width 48 and a decoder of 96; .* has one width"):
        huggingface_config(args, 9, "it")


def test_a_config_says_what_transformers_itself_says_of_such_a_model(tmp_path) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra hf: transformers is not installed")
    config = {name: value for name, value in CONFIG.items() if not name.endswith("layerdrop")}
    theirs = transformers.M2M100Config(**config, encoder_layerdrop=0.34, decoder_layerdrop=0.35)
    ours = huggingface_config(fairseq_args(CONFIG, "it"), CONFIG["vocab_size"], "it")
    assert ours.pop("architectures") == [transformers.M2M100ForConditionalGeneration.__name__]
    named = {"model_type", "is_encoder_decoder", "tie_word_embeddings", "use_cache", "bos_token_id", "pad_token_id"}
    assert named | {"eos_token_id", "decoder_start_token_id", *CONFIG} == ours.keys()
    assert ours == {name: getattr(theirs, name) for name in ours}


@pytest.mark.parametrize("name", ["d_model", "encoder_layers", "decoder_ffn_dim", "max_position_embeddings"])
@pytest.mark.parametrize("value", [0, -1, True, 2.0, "2", None])
def test_sizes_are_whole_numbers_of_at_least_one(name, value) -> None:
    with pytest.raises(UserError, match=rf"^it: {name} is {value!r}; expected a whole number of at least 1$"):
        fairseq_args({**CONFIG, name: value}, "it")


@pytest.mark.parametrize(
    ("name", "value"), [("decoder_layers", 10**400), ("encoder_layers", 10_001), ("d_model", 2**40)]
)
def test_sizes_that_no_memory_holds_are_refused_before_anything_is_listed(name, value) -> None:
    with pytest.raises(
        UserError, match=rf"^it: {name} is {value!r}; expected at most" if value < 10**9 else f"^it: {name} is 10"
    ):
        fairseq_args({**CONFIG, name: value}, "it")


def test_the_smallest_sizes_and_all_shares_from_0_to_1_are_taken() -> None:
    smallest = {name: 1 for name in CONFIG if name.endswith(("layers", "dim", "heads", "embeddings", "d_model"))}
    args = fairseq_args({**CONFIG, **smallest, "dropout": 0, "attention_dropout": 1}, "it")
    assert (args.encoder_embed_dim, args.decoder_layers, args.dropout, args.attention_dropout) == (1, 1, 0, 1)
    for value in (-0.01, 1.01, True, "0.1"):
        with pytest.raises(UserError, match=rf"it: encoder_layerdrop is {value!r}; expected a number from 0 to 1"):
            fairseq_args({**CONFIG, "encoder_layerdrop": value}, "it")


def test_aliases_that_agree_are_taken_and_others_named() -> None:
    aliases = {"hidden_size": "d_model", "num_hidden_layers": "encoder_layers"}
    aliases["num_attention_heads"] = "encoder_attention_heads"
    expected = fairseq_args(CONFIG, "it")
    for alias, name in aliases.items():
        renamed = {(alias if key == name else key): value for key, value in CONFIG.items()}
        assert fairseq_args(renamed, "it") == fairseq_args({**renamed, name: CONFIG[name]}, "it") == expected
        with pytest.raises(UserError, match=f"{alias} is 12 and {name} {CONFIG[name]}; expected them to be equal"):
            fairseq_args({**CONFIG, alias: 12}, "it")


def test_an_activation_that_fairseq_lacks_is_answered_with_those_that_it_has() -> None:
    with pytest.raises(UserError, match=r"no activation 'silu'; it has relu, gelu, gelu_new, .*, tanh, linear$"):
        fairseq_args({**CONFIG, "activation_function": "silu"}, "it")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (M2M100_418M, ["--arch langspec_m2m100_lora_base"]),
        ({**M2M100_418M, **M2M100_1_2B}, ["--arch langspec_m2m100_lora_1_2b"]),
        (
            {**M2M100_418M, **M2M100_1_2B, "d_model": 2048},  # NLLB-200 3.3B
            ["--arch langspec_m2m100_lora_1_2b", "--encoder-embed-dim 2048", "--decoder-embed-dim 2048"],
        ),
        (
            {**M2M100_418M, "max_position_embeddings": 512, "scale_embedding": False, "activation_function": "gelu"},
            [
                *("--arch langspec_m2m100_lora_base", "--activation-fn gelu", "--max-source-positions 512"),
                *("--max-target-positions 512", "--no-scale-embedding"),
            ],
        ),
        (
            {**M2M100_418M, "d_model": 48, "decoder_layers": 6, "decoder_ffn_dim": 2048},  # as far from 175M
            [
                *("--arch langspec_m2m100_lora_base", "--encoder-embed-dim 48", "--decoder-layers 6"),
                *("--decoder-embed-dim 48", "--decoder-ffn-embed-dim 2048"),
            ],
        ),
    ],
    ids=["418M", "1.2B", "3.3B", "other settings", "between two"],
)
def test_a_training_is_told_the_nearest_architecture_and_what_differs(config, expected) -> None:
    assert training_flags(fairseq_args(config, "it")) == " ".join(expected)


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        *({"model_type": "m2m_100", name: CONFIG[name]} for name in CONFIG if name.endswith(("dim", "s"))),
        {
            "model_type": "m2m_100",
            "d_model": 48,
            "encoder_layers": 6,
            "encoder_ffn_dim": 2048,
            "scale_embedding": False,
        },
        {**M2M100_418M, **M2M100_1_2B, "decoder_attention_heads": 8, "activation_function": "tanh"},
    ],
    ids=lambda config: "-".join(name for name in config if name != "model_type"),
)
def test_a_training_with_those_flags_has_the_same_shape(config) -> None:
    args = fairseq_args(config, "it")
    task = ("--task", "translation_multi_simple_epoch_lora", "--langs", "en,fr", "--lang-pairs", "en-fr", "data")
    parsed = toy.parse([*task, *training_flags(args).split()])
    names = [f"{side}_{name}" for side in ("encoder", "decoder") for name in ("layers", "embed_dim", "ffn_embed_dim")]
    names += ["encoder_attention_heads", "decoder_attention_heads", "activation_fn", "no_scale_embedding"]
    for name in names:
        assert getattr(parsed, name) == getattr(args, name), name
    # What TransformerModel.build_model takes where no flag says it.
    positions = getattr(parsed, "max_source_positions", DEFAULT_MAX_SOURCE_POSITIONS)
    assert positions == args.max_source_positions
    positions = getattr(parsed, "max_target_positions", DEFAULT_MAX_TARGET_POSITIONS)
    assert positions == args.max_target_positions
