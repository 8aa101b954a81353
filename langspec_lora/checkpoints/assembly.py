"""Checkpoints made from a base model and adapters, and the training arguments that they store."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from langspec_lora.adapters.checks import check_shapes, check_values
from langspec_lora.adapters.entries import adapter_shapes
from langspec_lora.adapters.packed import Adapters, adapter_entries
from langspec_lora.checkpoints.arguments import MODEL_SETTINGS, TOKEN_ORDER, stored_langs
from langspec_lora.config import AdapterConfig
from langspec_lora.errors import UserError
from langspec_lora.flags import AbsentFlag, AdapterFlags, BaseFlag, DirectionsFlag, PruningFlags, ScoreFlags
from langspec_lora.keys import ADAPTER_KEYS, LANGUAGE
from langspec_lora.languages import languages_to_json
from langspec_lora.sites import POSITIONS

_ANY_SIZE = "langspec_transformer_lora"  # our architecture that takes all sizes from the arguments
_OF_THE_RUN = (
    "save_adapters_only",
    "user_dir",
    "finetune_from_model",
    "lang_resources",
    "lang_groups",
    "train_parts",
    "shared_rank",
    "train_languages",
)


def adapted_checkpoint(
    base: Mapping[str, Tensor], args: Namespace, adapters: Adapters, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """A checkpoint with adapters that training can start from and generation can use.

    Args:
        base: entries of the base model.
        args: the arguments that the base model was built from.
        adapters: its adapters.
        settings: what :func:`~langspec_lora.checkpoints.arguments.model_settings` returned for the adapters' training.

    Raises:
        UserError: the adapters do not fit the base model, or a number of theirs is wrong.
    """
    args = adapted_arguments(args, adapters, settings)
    state = adapter_entries(adapters)
    try:
        expected = adapter_shapes(args, AdapterConfig.from_args(args))
    except AttributeError as error:
        raise UserError(f"the base model is not a Transformer that can be adapted ({error})") from error
    check_shapes({name: tuple(value.shape) for name, value in state.items()}, expected, "the adapter")
    check_values(state, "the adapter")
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


def adapted_arguments(base: Namespace, adapters: Adapters, settings: Mapping[str, Any]) -> Namespace:
    """The arguments of a model that adds adapters to a base model.

    Args:
        base: the arguments that the base model was built from.
        adapters: the adapters.
        settings: what :func:`~langspec_lora.checkpoints.arguments.model_settings` returned for the adapters' training.

    Raises:
        UserError: the adapters' positions differ between the layers of a stack.
    """
    args = Namespace(**{**_defaults(), **vars(base)})
    for name in _OF_THE_RUN:
        setattr(args, name, None)
    for name in MODEL_SETTINGS:
        if name in settings:
            setattr(args, name, settings[name])
    args.arch = args._name = str(settings.get("arch") or _ANY_SIZE)
    args.task = "translation_multi_simple_epoch_lora"
    args.add_lora, args.freeze_original_parameters, args.language_num = True, True, None
    args.dim, args.start_idx = adapters.dim, adapters.start
    args.lora_dropout = AdapterFlags.lora_dropout  # it is of the training
    args.lora_alpha = args.lora_scaling = None  # B has the scaling in it
    args.weight_learning, args.weight_learning_lr = False, None  # the sides below say which layers learn
    args.adapter_key = adapters.key if adapters.key in ADAPTER_KEYS else LANGUAGE  # or the sides below say more
    # Only appended: a dictionary without language tokens gets them in the order of this list.
    langs = stored_langs(base)
    args.langs = [*langs, *(name for name in adapters.languages.names if name not in langs)]
    args.adapter_languages = languages_to_json(adapters.languages)
    for level, rank in zip(adapters.languages.levels, adapters.languages.ranks, strict=True):
        setattr(args, f"{level}_rank", rank)
    for stack, positions in POSITIONS.items():
        sites = [site for site in adapters.packed if site.stack == stack]
        layers = sorted({site.layer for site in sites})
        used = [name for name in positions if any(site.position == name for site in sites)]
        if len(sites) != len(layers) * len(used):
            raise UserError(
                f"the {stack}'s adapters have different positions in different layers; expected the same in every layer"
            )
        setattr(args, f"{stack}_lora_layer", "_".join(map(str, layers)) or "none")
        setattr(args, f"{stack}_lora_position", "_".join(used) or None)
        setattr(args, f"{stack}_activation_direction", "_".join(adapters.sides[stack]))
    return args


def untrained_arguments(args: Namespace) -> Namespace:
    """The arguments of a base model, with the settings of any pruning set back to their defaults."""
    return Namespace(**{**vars(args), **vars(PruningFlags())})


def stock_arguments(args: Namespace, arch: str = "transformer") -> Namespace:
    """The arguments of the same model without adapters, for fairseq without this plugin.

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


def _defaults() -> dict[str, Any]:
    """Our flags and their defaults."""
    groups = (AdapterFlags(), PruningFlags(), BaseFlag(), AbsentFlag(), DirectionsFlag(), ScoreFlags())
    return {name: value for group in groups for name, value in vars(group).items()}
