"""Formats that adapters and models are exported to and imported from; to add one, write a module and add one line here.

- ``adapter``: the adapters alone, in our adapter folder
- ``merged``: one direction as a stock fairseq checkpoint, the adapters merged into the weights
- ``huggingface``: a model folder of Hugging Face's ``transformers``
- ``peft``: LoRA folders of Hugging Face's PEFT
- ``lslo``, ``lslo_languages``: checkpoints of the authors' released implementation
- ``hf``: what ``huggingface`` and ``peft`` are made of: weights, settings, vocabularies, tokenizers
"""

from __future__ import annotations

import importlib
from argparse import Namespace
from collections.abc import Collection, Mapping
from pathlib import Path

from langspec_lora.errors import UserError, collect_errors
from langspec_lora.keys import check_directions
from langspec_lora.languages import LanguageTable
from langspec_lora.notes import note

EXPORTS: Mapping[str, str] = {
    "adapter": "adapter.export",
    "merged": "merged.export",
    "huggingface": "huggingface.export",
    "peft": "peft.export",
}
"""``langspec-lora export --format``: the name of each format, and the module and function that write it."""

IMPORTS: Mapping[str, str] = {
    "adapter": "adapter.import_checkpoint",
    "lslo": "lslo.import_checkpoint",
    "huggingface": "huggingface.import_base",
    "peft": "peft.import_checkpoint",
}
"""``langspec-lora import --from``: the name of each format, and the module and function that read it."""

DIRECTION = ("source_lang", "target_lang")
"""The flags that choose a direction, by their attribute."""

_SOME_FORMATS_TAKE = (
    *DIRECTION,
    "all",
    "base",
    "langs",
    "lang_resources",
    "fixed_dictionary",
    "sentencepiece_model",
    "added_languages",
    "encoder_activation_direction",
    "decoder_activation_direction",
)


def carry_out(table: Mapping[str, str], name: str, args: Namespace) -> list[Path]:
    """Exports to or imports from a format; the module of the format is imported only now.

    Args:
        table: :data:`EXPORTS` or :data:`IMPORTS`.
        name: the format.
        args: the command's flags.

    Returns:
        The files that were written.

    Raises:
        UserError: flags or files are wrong, or a file exists already.
    """
    module, function = table[name].split(".")
    return getattr(importlib.import_module(f"{__name__}.{module}"), function)(args)


def check_flags(args: Namespace, option: str, takes: Collection[str] = (), needs: Collection[str] = ()) -> None:
    """Refuses flags that a format does not take, and asks for those that it needs.

    Args:
        args: the command's flags.
        option: how the user chose the format, such as ``--format merged``.
        takes: flags that may be given, by their attribute.
        needs: flags that must be given.

    Raises:
        UserError: flags are wrong; all of them are listed.
    """
    with collect_errors() as errors:
        for name in needs:
            with errors.check():
                if not getattr(args, name):
                    raise UserError(f"{option} needs {_flag(name)}; give it too")
        for name in _SOME_FORMATS_TAKE:
            with errors.check():
                if getattr(args, name, None) and name not in (*takes, *needs):
                    raise UserError(f"{option} does not take {_flag(name)}; leave it out")


def check_one_direction(args: Namespace, option: str) -> None:
    """Asks for a source and a target language that differ.

    Raises:
        UserError: one is missing, or both are the same.
    """
    with collect_errors() as errors:
        for name in DIRECTION:
            with errors.check():
                if not getattr(args, name):
                    raise UserError(f"{option} needs {_flag(name)}; give it too")
    if args.source_lang == args.target_lang:
        raise UserError(f"source and target language are both {args.source_lang!r}; give two different ones")


def check_adapted(args: Namespace, languages: LanguageTable) -> None:
    """Makes sure that ``--source-lang`` and ``--target-lang``, where they are given, and their direction have adapters.

    Raises:
        UserError: one has none.
    """
    with collect_errors() as errors:
        for name in filter(None, (args.source_lang, args.target_lang)):
            with errors.check():
                languages.id(name)
        if args.source_lang and args.target_lang:
            check_directions(languages, [(args.source_lang, args.target_lang)])


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def say(remark: str) -> None:
    """Prints a note for the user."""
    note(remark)
