"""Whole checkpoints put together from a base model and adapters, as fairseq loads them."""

from __future__ import annotations

import argparse
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from langspec_lora.checkpoints.adapter_state import MANIFEST, MASK_EPOCH, check_shapes, language_manifest
from langspec_lora.checkpoints.adapters import Adapters, linear_name
from langspec_lora.checkpoints.preflight import TOKEN_ORDER, adapter_shapes, stored_langs
from langspec_lora.config import (
    POSITIONS,
    AdapterConfig,
    add_absent_flag,
    add_adapter_flags,
    add_base_flag,
    add_pruning_flags,
    languages_to_json,
)
from langspec_lora.errors import UserError

_SETTINGS = ("encoder_langtok", "decoder_langtok", "lora_init")
_ANY_SIZE = "langspec_transformer_lora"
_OF_THE_RUN = ("save_adapters_only", "user_dir", "finetune_from_model", "lang_resources", "train_languages")


def model_settings(args: Namespace) -> dict[str, Any]:
    """Flags of a training that the model depends on beside its pairs; see :class:`~.adapter_file.AdapterFile`."""
    settings = {name: getattr(args, name) for name in _SETTINGS if hasattr(args, name)}
    return {"arch": architecture(args), **settings}


def architecture(args: Namespace) -> str:
    """The name of the architecture that a model was built from."""
    return str(getattr(args, "_name", None) or getattr(args, "arch", None) or "")


def adapter_entries(adapters: Adapters) -> dict[str, Tensor]:
    """The adapters as entries of a model's state."""
    state = {
        MANIFEST: language_manifest(adapters.languages),
        MASK_EPOCH: torch.tensor([adapters.mask_epoch]),
    }
    for place, pairs in adapters.pairs.items():
        for part, value in zip(("A", "B", "mask"), pairs, strict=True):
            state[f"{linear_name(place)}.lora_{part}"] = value.contiguous()
    return state


def adapted_checkpoint(
    base: Mapping[str, Tensor], args: Namespace, adapters: Adapters, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """A checkpoint of ours that training can start from and generation can use.

    Args:
        base: entries of the base model.
        args: the arguments that the base model was built from.
        adapters: its pairs.
        settings: what :func:`model_settings` returned for the training of the pairs.

    Raises:
        UserError: the pairs do not have the base model's sizes.
    """
    args = adapted_arguments(args, adapters, settings)
    state = adapter_entries(adapters)
    try:
        expected = adapter_shapes(args, AdapterConfig.from_args(args))
    except AttributeError as error:
        raise UserError(f"the base model is no Transformer that can be adapted ({error})") from error
    check_shapes({name: tuple(value.shape) for name, value in state.items()}, expected, "the adapter")
    return checkpoint_of(args, {**base, **state})


def adapted_arguments(base: Namespace, adapters: Adapters, settings: Mapping[str, Any]) -> Namespace:
    """The arguments of the model that adds pairs to a base model.

    Args:
        base: the arguments that the base model was built from.
        adapters: the pairs.
        settings: what :func:`model_settings` returned for the training of the pairs.

    Raises:
        UserError: the pairs do not stand at the same positions in every layer of a stack.
    """
    args = Namespace(**{**_defaults(), **vars(base)})
    for name in _OF_THE_RUN:
        setattr(args, name, None)
    for name in _SETTINGS:
        if name in settings:
            setattr(args, name, settings[name])
    args.arch = args._name = str(settings.get("arch") or _ANY_SIZE)
    args.task = "translation_multi_simple_epoch_lora"
    args.add_lora, args.freeze_original_parameters, args.language_num = True, True, None
    args.dim, args.start_idx = adapters.dim, adapters.start
    # Languages only join the list: a dictionary without language tokens gets them in its order.
    langs = stored_langs(base)
    args.langs = [*langs, *(name for name in adapters.languages.names if name not in langs)]
    args.adapter_languages = languages_to_json(adapters.languages)
    for level, rank in zip(adapters.languages.levels, adapters.languages.ranks, strict=True):
        setattr(args, f"{level}_rank", rank)
    for stack, positions in POSITIONS.items():
        found = [place for place in adapters.pairs if place.stack == stack]
        layers = sorted({place.layer for place in found})
        used = [name for name in positions if any(place.position == name for place in found)]
        if len(found) != len(layers) * len(used):
            raise UserError(
                f"the {stack}'s pairs stand at different positions in its layers; expected the same in every layer"
            )
        setattr(args, f"{stack}_lora_layer", "_".join(map(str, layers)) or "none")
        setattr(args, f"{stack}_lora_position", "_".join(used) or None)
        setattr(args, f"{stack}_activation_direction", "_".join(adapters.directions[stack]))
    return args


def untrained_arguments(args: Namespace) -> Namespace:
    """The arguments of a base model without what they say of the pairs that it was trained with."""
    parser = argparse.ArgumentParser()
    add_pruning_flags(parser)
    return Namespace(**{**vars(args), **vars(parser.parse_args([]))})


def stock_arguments(args: Namespace, arch: str = "transformer") -> Namespace:
    """The arguments of the same model without pairs, for fairseq without this plugin.

    Args:
        args: the arguments that the model was built from.
        arch: a stock architecture; sizes come from the arguments.
    """
    ours = {*_defaults(), "adapter_languages"}
    stock = Namespace(**{name: value for name, value in vars(args).items() if name not in ours})
    for name in _OF_THE_RUN:
        if hasattr(stock, name):
            setattr(stock, name, None)
    stock.arch = stock._name = arch
    stock.task = "translation_multi_simple_epoch"
    if order := vars(stock).pop(TOKEN_ORDER, None):
        stock.langs = order  # stock fairseq appends a dictionary's missing tokens in this order
    return stock


def checkpoint_of(args: Namespace, model: Mapping[str, Tensor]) -> dict[str, Any]:
    """What fairseq would save of a model before its first update.

    Args:
        args: the arguments that the model is built from.
        model: its entries.
    """
    history = {"criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {}, "num_updates": 0}
    return {
        "args": args,
        "cfg": None,
        "model": dict(model),
        "optimizer_history": [history],
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}},
        "last_optimizer_state": None,
    }


def _defaults() -> dict[str, Any]:
    """Our flags and their defaults."""
    parser = argparse.ArgumentParser()
    add_adapter_flags(parser)
    add_pruning_flags(parser)
    add_base_flag(parser)
    add_absent_flag(parser)
    return vars(parser.parse_args([]))
