"""The settings of a model: Hugging Face's ``config.json`` and fairseq's arguments."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from langspec_lora.errors import UserError
from langspec_lora.naming import some_of
from langspec_lora.sizes import M2M100

PAD, BOS, EOS = 1, 0, 2
"""The ids that every fairseq dictionary gives its special symbols, and Hugging Face's M2M100 and NLLB-200 too."""

_SAME = {
    "encoder_layers": "encoder_layers",
    "decoder_layers": "decoder_layers",
    "encoder_ffn_dim": "encoder_ffn_embed_dim",
    "decoder_ffn_dim": "decoder_ffn_embed_dim",
    "encoder_attention_heads": "encoder_attention_heads",
    "decoder_attention_heads": "decoder_attention_heads",
    "dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
    "encoder_layerdrop": "encoder_layerdrop",
    "decoder_layerdrop": "decoder_layerdrop",
}
"""fairseq's name of each setting, by Hugging Face's name."""

_SIZES = tuple(name for name in _SAME if name.endswith(("layers", "dim", "heads")))
_DEFAULTS = {  # of transformers' M2M100Config, for settings that config.json does not have
    **{name: 12 for name in _SIZES if name.endswith("layers")},
    **{name: 4096 for name in _SIZES if name.endswith("dim")},
    **{name: 16 for name in _SIZES if name.endswith("heads")},
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "activation_dropout": 0.0,
    "encoder_layerdrop": 0.05,
    "decoder_layerdrop": 0.05,
}
_ACTIVATIONS = {  # fairseq's names, by transformers' names; not swish, which fails in fairseq
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu_accurate",
    "gelu_fast": "gelu_accurate",
    "gelu_pytorch_tanh": "gelu_accurate",
    "tanh": "tanh",
    "linear": "linear",
}
_EXPORTED_ACTIVATIONS = {
    **{name: name for name in ("relu", "gelu", "tanh", "linear")},
    "gelu_accurate": "gelu_new",
    "gelu_fast": "gelu_new",
}
_MOST_LAYERS = 10_000  # more would fill the memory with names of weights before one is missed
_ALIASES = {"hidden_size": "d_model", "num_hidden_layers": "encoder_layers"}
_ALIASES["num_attention_heads"] = "encoder_attention_heads"
_REQUIRED = {  # by fairseq's name: the value built into Hugging Face's model, and fairseq's default
    "encoder_normalize_before": (True, False),
    "decoder_normalize_before": (True, False),
    "encoder_learned_pos": (False, False),
    "decoder_learned_pos": (False, False),
    "no_token_positional_embeddings": (False, False),
    "layernorm_embedding": (False, False),
    "no_decoder_final_norm": (False, False),
    "adaptive_input": (False, False),
    "cross_self_attention": (False, False),
    "no_cross_attention": (False, False),
}


def fairseq_args(config: Mapping[str, Any], label: str) -> Namespace:
    """The arguments of the stock fairseq Transformer that a ``config.json`` describes.

    Args:
        config: the content of ``config.json``.
        label: its path, for messages.

    Returns:
        Arguments of the architecture ``transformer``, with the language tokens where M2M100 has them.

    Raises:
        UserError: it describes a model of another type, or one that stock fairseq cannot compute.
    """
    model_type = config.get("model_type")
    if model_type != "m2m_100":
        raise UserError(f"{label} describes a model of type {model_type!r}; expected m2m_100 (M2M100 or NLLB-200)")
    config = _without_aliases(config, label)
    sizes = {name: config.get(name, _DEFAULTS[name]) for name in _SAME}
    width, positions = config.get("d_model", 1024), config.get("max_position_embeddings", 1024)
    numbers = {**{name: sizes[name] for name in _SIZES}, "d_model": width, "max_position_embeddings": positions}
    for name, value in numbers.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"{label}: {name} is {value!r}; expected a whole number of at least 1")
        if value > (most := _MOST_LAYERS if name.endswith("layers") else 2**31):
            raise UserError(f"{label}: {name} is {value!r}; expected at most {most:,}")
    activation = config.get("activation_function", "relu")
    if activation not in _ACTIVATIONS:
        raise UserError(f"{label}: fairseq has no activation {activation!r}; it has {some_of(_ACTIVATIONS)}")
    _check_values(config, sizes, width, label)
    if not config.get("tie_word_embeddings", True):
        raise UserError(f"{label}: its embeddings are not tied; expected tied embeddings, as in M2M100")
    start, pad = config.get("decoder_start_token_id", EOS), config.get("pad_token_id", PAD)
    if pad != PAD:  # fairseq counts positions from it
        raise UserError(f"{label}: pad_token_id is {pad}; expected {PAD}, from which fairseq counts the positions")
    if [start] != _listed(config.get("eos_token_id", EOS)):
        raise UserError(
            f"{label}: decoder_start_token_id is {start} and eos_token_id {config.get('eos_token_id', EOS)}; expected "
            "one id for both, since fairseq starts each target with eos"
        )
    return Namespace(
        arch="transformer",
        task="translation_multi_simple_epoch",
        criterion="label_smoothed_cross_entropy",
        source_lang=None,
        target_lang=None,
        encoder_langtok="src",
        decoder_langtok=True,
        lang_tok_style="multilingual",
        **{name: sizes[key] for key, name in _SAME.items()},
        encoder_embed_dim=width,
        decoder_embed_dim=width,
        max_source_positions=positions,
        max_target_positions=positions,
        activation_fn=_ACTIVATIONS[activation],
        no_scale_embedding=not config.get("scale_embedding", True),
        share_all_embeddings=True,
        share_decoder_input_output_embed=True,
        **{name: required for name, (required, _) in _REQUIRED.items()},
    )


def _without_aliases(config: Mapping[str, Any], label: str) -> dict[str, Any]:
    """Settings by the names of M2M100Config; transformers accepts other names for some of them."""
    settings = dict(config)
    for alias, name in _ALIASES.items():
        if alias in config and settings.setdefault(name, config[alias]) != config[alias]:
            raise UserError(
                f"{label}: {alias} is {config[alias]!r} and {name} {settings[name]!r}; expected them to be equal"
            )
    return settings


def _check_values(config: Mapping[str, Any], sizes: Mapping[str, Any], width: int, label: str) -> None:
    for name, value in sizes.items():
        is_share = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
        if name not in _SIZES and not is_share:
            raise UserError(f"{label}: {name} is {value!r}; expected a number from 0 to 1")
        if name.endswith("heads") and width % value:
            raise UserError(f"{label}: d_model is {width}, which is not divisible by {name} ({value})")
    for name in ("scale_embedding", "tie_word_embeddings"):
        if not isinstance(config.get(name, True), bool):
            raise UserError(f"{label}: {name} is {config[name]!r}; expected true or false")
    if config.get("quantization_config"):
        raise UserError(
            f"{label}: its weights are quantised (quantization_config); give the folder of the original model"
        )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def huggingface_config(args: Namespace, vocabulary: int, label: str) -> dict[str, Any]:
    """The ``config.json`` of the model that fairseq's arguments describe.

    Args:
        args: a checkpoint's arguments.
        vocabulary: number of embeddings.
        label: the checkpoint, for messages.

    Raises:
        UserError: Hugging Face's M2M100 cannot compute such a model.
    """
    for name, (required, default) in _REQUIRED.items():
        value = getattr(args, name, None)
        if bool(default if value is None else value) != required:
            given = "" if required else "no "
            raise UserError(
                f"{label} was trained with {name}={value}, but Hugging Face's M2M100 has {given}--"
                f"{name.replace('_', '-')}; it cannot be exported in that format"
            )
    activation = getattr(args, "activation_fn", None) or "relu"
    if activation not in _EXPORTED_ACTIVATIONS:
        raise UserError(f"{label} uses --activation-fn {activation}, which Hugging Face's M2M100 does not have")
    if args.encoder_embed_dim != args.decoder_embed_dim:
        raise UserError(
            f"{label} has an encoder of width {args.encoder_embed_dim} and a decoder of {args.decoder_embed_dim}; "
            "Hugging Face's M2M100 has one width"
        )
    values = {key: getattr(args, name, None) for key, name in _SAME.items()}
    return {
        "architectures": ["M2M100ForConditionalGeneration"],
        "model_type": "m2m_100",
        "is_encoder_decoder": True,
        "vocab_size": vocabulary,
        "d_model": args.encoder_embed_dim,
        **{key: 0.0 if value is None else value for key, value in values.items()},
        "activation_function": _EXPORTED_ACTIVATIONS[activation],
        "scale_embedding": not getattr(args, "no_scale_embedding", False),
        "max_position_embeddings": getattr(args, "max_target_positions", None) or 1024,
        "tie_word_embeddings": True,
        "use_cache": True,
        "bos_token_id": BOS,
        "pad_token_id": PAD,
        "eos_token_id": EOS,
        "decoder_start_token_id": EOS,
    }


def training_flags(args: Namespace) -> str:
    """Our ``--arch`` for a model of these arguments, and the other flags that it needs."""
    same = {"activation_fn": "relu", "max_source_positions": 1024, "max_target_positions": 1024}
    commands: list[list[str]] = []
    for name, size in M2M100.items():
        published = {**size.arguments(), **same}
        flags = [
            f"--{key.replace('_', '-')} {vars(args)[key]}" for key in published if vars(args)[key] != published[key]
        ]
        flags += ["--no-scale-embedding"] if args.no_scale_embedding else []
        commands.append([f"--arch {name}", *flags])
    shortest: list[str] = min(commands, key=len)
    return " ".join(shortest)
