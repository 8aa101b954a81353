"""Whether a checkpoint fits the model it is meant for, before anything is built."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Mapping

from langspec_lora.adapters.checks import check_adapters_are_whole, check_entries, check_languages, check_shapes
from langspec_lora.adapters.entries import adapter_shapes, is_adapter_entry
from langspec_lora.checkpoints.argument_checks import check_model_arguments, check_model_sizes
from langspec_lora.checkpoints.arguments import stored_config, stored_langs, stored_languages
from langspec_lora.checkpoints.base import outline_with_base, stored_base_path
from langspec_lora.checkpoints.outline import Outline, read_outline
from langspec_lora.checkpoints.starting_point import starting_checkpoint
from langspec_lora.config import AdapterConfig
from langspec_lora.errors import UserError
from langspec_lora.sites import POSITIONS

_EMBEDDING = "encoder.embed_tokens.weight"


_LAYER = re.compile(r"^(encoder|decoder)\.layers\.(\d+)\.")


def check_training_checkpoint(args: Namespace, config: AdapterConfig | None, vocabulary: int) -> None:
    """Makes sure that the checkpoint a training command starts from fits its model.

    Args:
        args: the arguments of the training command.
        config: which adapters the model will have, or None.
        vocabulary: number of entries of the dictionary, language tokens included.

    Raises:
        UserError: the file is missing, damaged, hostile, of another size or dictionary, or holds other adapters.
    """
    start = starting_checkpoint(args)
    if start is None:
        return
    path, resumes = start
    outline = outline_with_base(read_outline(path), stored_base_path(args))
    _check_sizes(outline, args, vocabulary)
    expected = {} if config is None else adapter_shapes(args, config)
    source = f"checkpoint {path}"
    if not check_entries(_adapter_entries(outline), expected, source):
        return
    held = stored_languages(outline)
    if held is None or config is None:
        return
    check_languages(held, config.languages, source)
    if resumes and held.names != config.languages.names:
        raise UserError(
            f"{source} was trained with --langs {','.join(held.names)}, and the optimizer's state follows that order; "
            "resume with the same --langs, or start a new run with --finetune-from-model"
        )
    if held.names == config.languages.names:
        check_shapes(outline.shapes, expected, source)


def check_generation_checkpoints(
    paths: list[str], languages: list[str], vocabulary: int, base_checkpoint: str | None = None
) -> None:
    """Makes sure that checkpoints can be loaded for generation.

    Args:
        paths: the files, of one model or of an ensemble.
        languages: names of the languages that will be translated from and to.
        vocabulary: number of entries of the dictionary, language tokens included.
        base_checkpoint: where the base of checkpoints lies that hold adapters only, in place of what they say.

    Raises:
        UserError: a file is missing, damaged, hostile, of another dictionary, lacks part of its adapters, or knows not
            all languages.
    """
    for path in paths:
        outline, source = outline_with_base(read_outline(path), base_checkpoint), f"checkpoint {path}"
        _check_vocabulary(outline, vocabulary)
        check_model_sizes(outline)
        args = outline.model_args
        if not hasattr(args, "add_lora") or not args.add_lora:
            continue  # a stock model
        check_model_arguments(args)
        expected = adapter_shapes(args, stored_config(args, source))
        check_adapters_are_whole(_adapter_entries(outline), expected, source)
        check_shapes(outline.shapes, expected, source)
        held = stored_languages(outline)
        unknown = [] if held is None else [name for name in languages if name not in held.names]
        if unknown:
            raise UserError(f"{source} has no adapters for {', '.join(unknown)}; it knows {', '.join(held.names)}")


def _adapter_entries(outline: Outline) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in outline.shapes.items() if is_adapter_entry(name)}


def _check_sizes(outline: Outline, args: Namespace, vocabulary: int) -> None:
    found, source = outline.shapes, f"checkpoint {outline.path}"
    if _EMBEDDING not in found:
        raise UserError(f"{source} holds no Transformer (no {_EMBEDDING}); give an M2M100-like model")
    _check_vocabulary(outline, vocabulary)
    for stack in POSITIONS:
        _check_stack(found, args, stack, source)


def _check_vocabulary(outline: Outline, vocabulary: int) -> None:
    size = (*outline.shapes.get(_EMBEDDING, (vocabulary,)), 0)[0]
    if size != vocabulary:
        raise UserError(
            f"checkpoint {outline.path} has a vocabulary of {size}, the dictionary (with the language tokens of "
            f"--langs) {vocabulary}; give the model's own dictionary with --fixed-dictionary, and in --langs only "
            f"languages that the model has tokens for{_lacking_tokens(outline.model_args, size - vocabulary)}"
        )


def _lacking_tokens(args: Namespace | None, count: int) -> str:
    """What helps those whose dictionary is the model's own, but lacks what the model's training appended to it."""
    if count <= 0:
        return ""
    langs = stored_langs(args)
    if langs:
        appended = f"what its training appended after the tokens of its {len(langs)} languages, such as <mask>"
    else:
        appended = (
            "what its training appended: a token __xx__ for each of its --langs, in their order, and what came after"
        )
    return (
        f". If it is the model's own, as NLLB's is published, it lacks {count} words, {appended}; write them into a "
        "copy of the dictionary, a line '__xx__ 1' each, or take the dict.txt that "
        "'langspec-lora import --from huggingface' writes"
    )


def _check_stack(found: Mapping[str, tuple[int, ...]], args: Namespace, stack: str, source: str) -> None:
    matches = (_LAYER.match(name) for name in found)
    layers = {int(match[2]) for match in matches if match and match[1] == stack}
    ffn, width = (*found.get(f"{stack}.layers.0.fc1.weight", ()), None, None)[:2]
    for flag, has, wanted in (
        (f"--{stack}-layers", len(layers), getattr(args, f"{stack}_layers")),
        (f"--{stack}-embed-dim", width, getattr(args, f"{stack}_embed_dim")),
        (f"--{stack}-ffn-embed-dim", ffn, getattr(args, f"{stack}_ffn_embed_dim")),
    ):
        if has != wanted:
            raise UserError(
                f"{source} is of another size: {flag} is {has} there and {wanted} in the command; "
                f"give {flag} {has}, or the --arch of the checkpoint's size"
            )
