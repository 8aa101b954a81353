"""What the training arguments in a checkpoint say about its model."""

from __future__ import annotations

import ast
from argparse import Namespace
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from langspec_lora.checkpoints.outline import Outline
from langspec_lora.config import AdapterConfig
from langspec_lora.errors import UserError
from langspec_lora.languages import LanguageTable, check_name, languages_from_json
from langspec_lora.pruning.choices import PruningSettings
from langspec_lora.pruning_flags import pruning_from_args

TOKEN_ORDER = "dictionary_langs"
"""The argument of our checkpoints that names the languages in the order of their tokens in the vocabulary.

``--langs`` of a fine-tuning may name fewer languages, in another order; see
:mod:`langspec_lora.checkpoints.token_order`.
"""

MODEL_SETTINGS = ("encoder_langtok", "decoder_langtok", "lora_init")
"""Arguments besides the architecture that a model depends on, and that its adapters' sites do not show."""

_EVALUATED = ("adaptive_softmax_cutoff", "xformers_att_config")  # by fairseq.utils.eval_str_list and eval_str_dict


def stored_config(args: Namespace, label: str) -> AdapterConfig:
    """Which adapters the model of a checkpoint has, according to its training arguments.

    Args:
        args: the arguments.
        label: the checkpoint, for messages.

    Raises:
        UserError: the arguments are damaged.
    """
    try:
        return AdapterConfig.from_args(args)
    except (AttributeError, TypeError, ValueError) as error:  # a UserError is a ValueError
        raise UserError(f"{label} holds wrong training arguments ({error}); give a whole checkpoint") from error


def check_stored_arguments(args: Any) -> None:
    """Refuses arguments of a checkpoint that could run code when fairseq builds the model from them.

    Fairseq evaluates a few of them as Python expressions.

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
            except Exception as error:  # a parser can raise anything for a text that is not a constant
                raise UserError(
                    f"the checkpoint was refused: its argument {name} is {value[:80]!r}, which fairseq would run as "
                    "Python code; download it again"
                ) from error


def stored_languages(outline: Outline) -> LanguageTable | None:
    """The languages of a checkpoint's adapters; None if it holds no adapters."""
    text = getattr(outline.model_args, "adapter_languages", None)
    return languages_from_json(text) if text else None


def stored_langs(args: Namespace | None) -> tuple[str, ...]:
    """The ``--langs`` that a checkpoint was trained with; empty if its arguments do not say.

    Raises:
        UserError: a name cannot be a language's.
    """
    langs = getattr(args, "langs", None) or ()
    names = langs.split(",") if isinstance(langs, str) else langs if isinstance(langs, (list, tuple)) else ()
    return tuple(check_name(name, "the checkpoint's argument langs") for name in names)


def stored_directions(args: Namespace | None) -> frozenset[str]:
    """The directions, such as ``en-fr``, that a checkpoint was trained with; empty if its arguments do not say."""
    pairs = getattr(args, "lang_pairs", None) or ()
    names = pairs.split(",") if isinstance(pairs, str) else pairs if isinstance(pairs, (list, tuple)) else ()
    return frozenset(name.strip() for name in names if isinstance(name, str) and name.count("-") == 1)


def model_settings(args: Namespace) -> dict[str, Any]:
    """The settings that a model depends on besides its adapters, as an adapter folder holds them.

    Args:
        args: the arguments of its training.
    """
    settings = {name: getattr(args, name) for name in MODEL_SETTINGS if hasattr(args, name)}
    return {"arch": architecture(args), **settings}


def architecture(args: Namespace) -> str:
    """The name of the architecture that a model was built from."""
    return str(getattr(args, "_name", None) or getattr(args, "arch", None) or "")


def pruning_from_stored(args: Namespace | None) -> PruningSettings | None:
    """How a training pruned, from the arguments that its checkpoint stores; None if it did not, or they do not say."""
    with suppress(AttributeError, TypeError, ValueError):  # of another task, or another version of ours
        return pruning_from_args(args) if args else None
    return None
