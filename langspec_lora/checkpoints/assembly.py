"""Whole checkpoints put together from a base model and adapters, as fairseq loads them."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from langspec_lora.adapters.checks import check_shapes
from langspec_lora.adapters.entries import adapter_shapes
from langspec_lora.adapters.packed import Adapters, adapter_entries
from langspec_lora.checkpoints.arguments import adapted_arguments
from langspec_lora.config import AdapterConfig
from langspec_lora.errors import UserError


def adapted_checkpoint(
    base: Mapping[str, Tensor], args: Namespace, adapters: Adapters, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """A checkpoint of ours that training can start from and generation can use.

    Args:
        base: entries of the base model.
        args: the arguments that the base model was built from.
        adapters: its adapters.
        settings: what :func:`model_settings` returned for the training of the adapters.

    Raises:
        UserError: the adapters do not have the base model's sizes.
    """
    args = adapted_arguments(args, adapters, settings)
    state = adapter_entries(adapters)
    try:
        expected = adapter_shapes(args, AdapterConfig.from_args(args))
    except AttributeError as error:
        raise UserError(f"the base model is no Transformer that can be adapted ({error})") from error
    check_shapes({name: tuple(value.shape) for name, value in state.items()}, expected, "the adapter")
    return checkpoint_of(args, {**base, **state})


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
