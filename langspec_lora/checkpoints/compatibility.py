"""Checks that a checkpoint fits the model of a command, before anything is built."""

from __future__ import annotations

from argparse import Namespace

from langspec_lora.adapters.checks import (
    check_adapters_are_whole,
    check_agreement,
    check_entries,
    check_languages,
    check_shapes,
    check_values,
)
from langspec_lora.adapters.entries import MANIFEST, SCALING, adapter_shapes, is_adapter_entry
from langspec_lora.checkpoints.argument_checks import check_model_arguments, check_model_sizes
from langspec_lora.checkpoints.arguments import stored_config, stored_langs, stored_languages
from langspec_lora.checkpoints.base_location import stored_base_path
from langspec_lora.checkpoints.left_out_base import outline_with_base
from langspec_lora.checkpoints.loading import is_mapped, load_checkpoint, model_entries
from langspec_lora.checkpoints.outline import Outline, read_outline
from langspec_lora.checkpoints.starting_point import starting_checkpoint
from langspec_lora.checkpoints.zip_records import check_sums
from langspec_lora.config import AdapterConfig
from langspec_lora.errors import UserError, collect_errors
from langspec_lora.keys import check_directions
from langspec_lora.naming import some_of, unlike
from langspec_lora.sites import POSITIONS

_EMBEDDING = "encoder.embed_tokens.weight"


def check_training_checkpoint(args: Namespace, config: AdapterConfig | None, vocabulary: int) -> None:
    """Checks that the checkpoint that a training command starts from fits its model.

    Args:
        args: the arguments of the training command.
        config: which adapters the model will have; None for a model without.
        vocabulary: number of entries of the dictionary, language tokens included.

    Raises:
        UserError: the file is missing, damaged or hostile, has another size or vocabulary, or holds other adapters.
    """
    start = starting_checkpoint(args)
    if start is None:
        return
    path, resumes = start
    outline = outline_with_base(read_outline(path), stored_base_path(args))
    check_sums(path)
    _check_sizes(outline, args, vocabulary)
    expected = {} if config is None else adapter_shapes(args, config)
    expected.pop(SCALING, None)  # B is converted where it differs
    label = f"checkpoint {path}"
    if not check_entries(_adapter_entries(outline), expected, label):
        return
    _check_adapters(outline, label)
    held = stored_languages(outline)
    if held is None or config is None:
        return
    check_languages(held, config.languages, label)
    if resumes and held.names != config.languages.names:
        then, now = unlike(held.names, config.languages.names, ",")
        raise UserError(
            f"{label} was trained with --langs {then}, and its optimizer state follows that order, but this command "
            f"has {now}; resume with the same --langs, or start a new run with --finetune-from-model"
        )
    if held.names == config.languages.names:
        check_shapes(outline.shapes, expected, label)


def check_generation_checkpoints(
    paths: list[str],
    languages: list[str],
    vocabulary: int,
    base_checkpoint: str | None = None,
    direction: tuple[str, str] | None = None,
) -> None:
    """Checks that checkpoints can be loaded for generation.

    Args:
        paths: the files of one model or of an ensemble.
        languages: the languages that will be translated from and to.
        vocabulary: number of entries of the dictionary, language tokens included.
        base_checkpoint: path of the base of checkpoints without it; None for the path that each stores.
        direction: the only direction that will be translated, or None.

    Raises:
        UserError: a file is missing, damaged or hostile, has another vocabulary, or lacks adapters, languages or the
            direction.
    """
    with collect_errors() as errors:
        for path in paths:
            with errors.check():
                outline = outline_with_base(read_outline(path), base_checkpoint)
                _check_generation_checkpoint(outline, languages, vocabulary)
                held = stored_languages(outline)
                if held is not None and direction is not None:
                    check_directions(held, [direction])


def _check_generation_checkpoint(outline: Outline, languages: list[str], vocabulary: int) -> None:
    label = f"checkpoint {outline.path}"
    check_sums(outline.path)
    _check_vocabulary(outline, vocabulary)
    check_model_sizes(outline)
    args = outline.model_args
    if args is None or not getattr(args, "add_lora", False):
        if args is not None and not hasattr(args, "add_lora") and _adapter_entries(outline):
            raise UserError(f"{label} holds adapters, but its arguments lack add_lora; give a whole checkpoint")
        return  # a stock model
    check_model_arguments(args)
    expected = adapter_shapes(args, stored_config(args, label))
    check_adapters_are_whole(_adapter_entries(outline), expected, label)
    check_shapes(outline.shapes, expected, label)
    _check_adapters(outline, label)
    held = stored_languages(outline)
    unknown = [name for name in languages if held is not None and name not in held.names]
    if held is not None and unknown:
        raise UserError(f"{label} has no adapters for {some_of(unknown)}; it knows {some_of(held.names)}")


def _check_adapters(outline: Outline, label: str) -> None:
    """Checks the adapters' numbers and languages before a model is built, where the rest need not be read for it.

    Otherwise, their numbers are checked when the model gets them.
    """
    if not is_mapped(outline.path):
        return
    entries = model_entries(load_checkpoint(outline.path))
    check_values({name: value for name, value in entries.items() if is_adapter_entry(name)}, label)
    held = stored_languages(outline)
    if held is not None and MANIFEST in entries:
        check_agreement(entries[MANIFEST], held, label)


def _adapter_entries(outline: Outline) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in outline.shapes.items() if is_adapter_entry(name)}


def _check_sizes(outline: Outline, args: Namespace, vocabulary: int) -> None:
    if _EMBEDDING not in outline.shapes:
        raise UserError(
            f"checkpoint {outline.path} does not hold a Transformer (no {_EMBEDDING}); give a model like M2M100"
        )
    _check_vocabulary(outline, vocabulary)
    for stack in POSITIONS:
        _check_stack(outline, args, stack)


def _check_vocabulary(outline: Outline, vocabulary: int) -> None:
    size = (*outline.shapes.get(_EMBEDDING, (vocabulary,)), 0)[0]
    if size != vocabulary:
        raise UserError(
            f"checkpoint {outline.path} has a vocabulary of {size}, but the dictionary (with the language tokens of "
            f"--langs) has {vocabulary}; give the model's dictionary with --fixed-dictionary, and name in --langs only "
            f"languages that the model has tokens for{_missing_tokens(outline.model_args, size - vocabulary)}"
        )


def _missing_tokens(args: Namespace | None, count: int) -> str:
    """A hint for users who gave the model's dictionary, but without the tokens that its training appended."""
    if count <= 0:
        return ""
    langs = stored_langs(args)
    if langs:
        appended = f"those that its training appended after the tokens of its {len(langs)} languages, such as <mask>"
    else:
        appended = (
            "those that its training appended: a token __xx__ for each of its --langs, in their order, and any others"
        )
    return (
        f". If it is the model's dictionary as published (like NLLB's), it lacks {count} tokens, {appended}; append "
        "them to a copy of the dictionary, one line '__xx__ 1' each, or use the dict.txt that "
        "'langspec-lora import --from huggingface' writes"
    )


def _check_stack(outline: Outline, args: Namespace, stack: str) -> None:
    sizes = outline.stack_sizes(stack)
    for name in ("layers", "embed_dim", "ffn_embed_dim"):
        flag, has, wanted = f"--{stack}-{name.replace('_', '-')}", sizes.get(name), getattr(args, f"{stack}_{name}")
        if has != wanted:
            raise UserError(
                f"checkpoint {outline.path} has another size: {flag} is {has} there and {wanted} in the command; "
                f"give {flag} {has}, or the --arch of that size"
            )
