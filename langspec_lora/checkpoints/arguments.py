"""The training arguments that a checkpoint stores: what they say of its model, and those of a checkpoint to write."""

from __future__ import annotations

import ast
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from langspec_lora.adapters.packed import Adapters
from langspec_lora.checkpoints.outline import Outline
from langspec_lora.config import AdapterConfig
from langspec_lora.errors import UserError
from langspec_lora.flags import AbsentFlag, AdapterFlags, BaseFlag, PruningFlags
from langspec_lora.languages import LanguageTable, languages_from_json, languages_to_json
from langspec_lora.sites import POSITIONS

TOKEN_ORDER = "dictionary_langs"
"""The argument of our checkpoints that names the languages in the order of their tokens in the vocabulary.

``--langs`` of a fine-tuning may name fewer, in another order; see :mod:`langspec_lora.checkpoints.token_order`.
"""


_EVALUATED = ("adaptive_softmax_cutoff", "xformers_att_config")  # by fairseq.utils.eval_str_list and eval_str_dict


def stored_config(args: Namespace, source: str) -> AdapterConfig:
    """Which adapters the model of a checkpoint has, by the arguments that it was trained with.

    Raises:
        UserError: the arguments are damaged.
    """
    try:
        return AdapterConfig.from_args(args)
    except (AttributeError, TypeError, ValueError) as error:  # a UserError is a ValueError
        raise UserError(f"{source} holds wrong training arguments ({error}); give a whole checkpoint") from error


def check_stored_arguments(args: Any) -> None:
    """Refuses arguments of a checkpoint that could run code when fairseq builds the model from them.

    fairseq evaluates a few of them as Python expressions.

    Args:
        args: the arguments, a namespace or a mapping, nested or flat.

    Raises:
        UserError: such an argument is more than a constant.
    """
    for name, value in (vars(args) if isinstance(args, Namespace) else args).items():
        if isinstance(value, (Namespace, Mapping)):
            check_stored_arguments(value)
        elif isinstance(value, str) and str(name).endswith(_EVALUATED):
            try:
                ast.literal_eval(value)
            except Exception as error:  # whatever a parser says of a text that is no constant
                raise UserError(
                    f"the checkpoint was refused: its argument {name} is {value[:80]!r}, which fairseq would run as "
                    "Python code; take it from its source again"
                ) from error


def stored_languages(outline: Outline) -> LanguageTable | None:
    """The languages of a checkpoint's adapters, or None where it holds none."""
    text = getattr(outline.model_args, "adapter_languages", None)
    return languages_from_json(text) if text else None


def stored_langs(args: Namespace | None) -> tuple[str, ...]:
    """The ``--langs`` that a checkpoint was trained with; none where its arguments do not say."""
    langs = getattr(args, "langs", None) or ()
    if isinstance(langs, str):
        return tuple(langs.split(","))
    return tuple(langs) if isinstance(langs, (list, tuple)) else ()


_SETTINGS = ("encoder_langtok", "decoder_langtok", "lora_init")


_ANY_SIZE = "langspec_transformer_lora"


_OF_THE_RUN = ("save_adapters_only", "user_dir", "finetune_from_model", "lang_resources", "train_languages")


def model_settings(args: Namespace) -> dict[str, Any]:
    """Flags of a training that the model depends on beside its adapters; see :class:`~.adapter_file.AdapterFile`."""
    settings = {name: getattr(args, name) for name in _SETTINGS if hasattr(args, name)}
    return {"arch": architecture(args), **settings}


def architecture(args: Namespace) -> str:
    """The name of the architecture that a model was built from."""
    return str(getattr(args, "_name", None) or getattr(args, "arch", None) or "")


def adapted_arguments(base: Namespace, adapters: Adapters, settings: Mapping[str, Any]) -> Namespace:
    """The arguments of the model that adds adapters to a base model.

    Args:
        base: the arguments that the base model was built from.
        adapters: the adapters.
        settings: what :func:`model_settings` returned for the training of the adapters.

    Raises:
        UserError: the adapters do not stand at the same positions in every layer of a stack.
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
        found = [site for site in adapters.packed if site.stack == stack]
        layers = sorted({site.layer for site in found})
        used = [name for name in positions if any(site.position == name for site in found)]
        if len(found) != len(layers) * len(used):
            raise UserError(
                f"the {stack}'s adapters stand at different positions in its layers; expected the same in every layer"
            )
        setattr(args, f"{stack}_lora_layer", "_".join(map(str, layers)) or "none")
        setattr(args, f"{stack}_lora_position", "_".join(used) or None)
        setattr(args, f"{stack}_activation_direction", "_".join(adapters.sides[stack]))
    return args


def untrained_arguments(args: Namespace) -> Namespace:
    """The arguments of a base model without what they say of the adapters that it was trained with."""
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
    return {**vars(AdapterFlags()), **vars(PruningFlags()), **vars(BaseFlag()), **vars(AbsentFlag())}
