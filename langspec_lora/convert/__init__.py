"""What adapters and models are exported to and imported from; each format is a module of this package.

A format is a function that takes the command's flags and returns the files it has written. It is named here and
imported only when it is asked for.
"""

from __future__ import annotations

import importlib
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

from langspec_lora.errors import UserError
from langspec_lora.notes import note

EXPORTS: Mapping[str, str] = {
    "adapter": "adapter.export",
    "merged": "merged.export",
    "huggingface": "huggingface.export",
    "peft": "peft.export",
}
"""``langspec-lora export --format``: name, and the module and function that write it."""

IMPORTS: Mapping[str, str] = {
    "adapter": "adapter.import_checkpoint",
    "lslo": "lslo.import_checkpoint",
    "huggingface": "huggingface.import_base",
    "peft": "peft.import_checkpoint",
}
"""``langspec-lora import --from``: likewise."""

HUGGINGFACE_EXPORT = {
    "all": "--all",
    "fixed_dictionary": "--fixed-dictionary",
    "sentencepiece_model": "--sentencepiece-model",
}
"""Flags of ``export`` that only Hugging Face's formats take, by their attribute."""

HUGGINGFACE_IMPORT = {
    "source_lang": "--source-lang",
    "target_lang": "--target-lang",
    "sentencepiece_model": "--sentencepiece-model",
    "added_languages": "--added-languages",
    "encoder_activation_direction": "--encoder-activation-direction",
    "decoder_activation_direction": "--decoder-activation-direction",
}
"""Likewise of ``import``."""


def carry_out(table: Mapping[str, str], name: str, args: Namespace) -> list[Path]:
    """Exports to or imports from a format.

    Args:
        table: :data:`EXPORTS` or :data:`IMPORTS`.
        name: the format.
        args: the command's flags.

    Returns:
        The files that were written.

    Raises:
        UserError: flags or files are wrong, or something would be overwritten.
    """
    module, function = table[name].split(".")
    return getattr(importlib.import_module(f"{__name__}.{module}"), function)(args)


def check_flags(args: Namespace, option: str, needed: Mapping[str, str], unknown: Mapping[str, str]) -> None:
    """Makes sure that a format has the flags it needs, and no others.

    Args:
        args: the command's flags.
        option: how the format was asked for, such as ``--format merged``.
        needed: flags that must be given, by their attribute.
        unknown: flags that must not be.

    Raises:
        UserError: naming the first that is wrong.
    """
    for attribute, flag in needed.items():
        if not getattr(args, attribute):
            raise UserError(f"{option} needs {flag}; give it too")
    for attribute, flag in unknown.items():
        if getattr(args, attribute):
            raise UserError(f"{option} does not take {flag}; leave it out")


def check_one_direction(args: Namespace, option: str) -> None:
    """Makes sure that ``--source-lang`` and ``--target-lang`` are given and differ.

    Raises:
        UserError: they are not, or do not.
    """
    check_flags(args, option, {"source_lang": "--source-lang", "target_lang": "--target-lang"}, {})
    if args.source_lang == args.target_lang:
        raise UserError(f"source and target language are both {args.source_lang!r}; give two different ones")


def say(remark: str) -> None:
    """Tells the user something that is neither an error nor a result."""
    note(remark)
