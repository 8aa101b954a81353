"""Checks a checkpoint against the model it is meant for, before anything is built."""

from __future__ import annotations

import ast
import re
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langspec_lora.checkpoints.adapter_state import (
    MANIFEST,
    MASK_EPOCH,
    check_entries,
    check_languages,
    check_shapes,
    is_adapter_entry,
    language_manifest,
)
from langspec_lora.checkpoints.base import layout_with_base, stored_base_path
from langspec_lora.checkpoints.layout import CheckpointLayout, read_layout
from langspec_lora.checkpoints.model_arguments import check_model_arguments, check_model_sizes
from langspec_lora.config import POSITIONS, AdapterConfig, languages_from_json
from langspec_lora.errors import UserError
from langspec_lora.languages import LanguageTable

TOKEN_ORDER = "dictionary_langs"
"""The argument of our checkpoints that names the languages in the order of their tokens in the vocabulary.

``--langs`` of a fine-tuning may name fewer, in another order; see :mod:`langspec_lora.checkpoints.token_order`.
"""

_EMBEDDING = "encoder.embed_tokens.weight"
_EVALUATED = ("adaptive_softmax_cutoff", "xformers_att_config")  # by fairseq.utils.eval_str_list and eval_str_dict
_LAYER = re.compile(r"^(encoder|decoder)\.layers\.(\d+)\.")


def linear_size(args: Namespace, stack: str, position: str) -> tuple[int, int]:
    """Input and output width of the linear at a position.

    Args:
        args: fairseq's arguments.
        stack: ``encoder`` or ``decoder``.
        position: a name of :data:`~langspec_lora.config.POSITIONS`.
    """
    width, ffn = getattr(args, f"{stack}_embed_dim"), getattr(args, f"{stack}_ffn_embed_dim")
    sizes = {"fc1": (width, ffn), "fc2": (ffn, width)}
    if position in ("crossk", "crossv"):
        return args.encoder_embed_dim, width
    return sizes.get(position, (width, width))


def adapter_shapes(args: Namespace, config: AdapterConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the adapter entries of the model that the arguments describe."""
    rows = sum(config.languages.ranks)
    shapes: dict[str, tuple[int, ...]] = {
        MANIFEST: tuple(language_manifest(config.languages).shape),
        MASK_EPOCH: (1,),
    }
    for stack, settings in config.stacks.items():
        for layer in settings.layers:
            for position in settings.positions:
                width_in, width_out = linear_size(args, stack, position)
                prefix = f"{stack}.layers.{layer}.{POSITIONS[stack][position]}"
                shapes[f"{prefix}.lora_A"] = (rows, config.dim or width_in)
                shapes[f"{prefix}.lora_B"] = (rows, config.dim or width_out)
                shapes[f"{prefix}.lora_mask"] = shapes[f"{prefix}.lora_B"]
    return shapes


def starting_checkpoint(args: Namespace) -> tuple[str, bool] | None:
    """The file that fairseq-train will start from, found as fairseq finds it.

    Args:
        args: the arguments of the training command.

    Returns:
        The path and whether training resumes from it (or fine-tunes it afresh); None where it starts from nothing.
    """
    suffix = getattr(args, "checkpoint_suffix", "") or ""
    if args.restore_file != "checkpoint_last.pt":
        return args.restore_file.replace(".pt", f"{suffix}.pt"), not args.reset_optimizer
    last = Path(args.save_dir) / f"checkpoint_last{suffix}.pt"
    if last.exists():
        return str(last), not args.reset_optimizer
    if getattr(args, "continue_once", None):
        return args.continue_once, not args.reset_optimizer
    return (args.finetune_from_model, False) if args.finetune_from_model else None


def check_start_flags(args: Namespace) -> None:
    """Makes sure that a training command says in one way only what it starts from.

    Raises:
        UserError: ``--finetune-from-model`` stands beside flags that fairseq does not take with it.
    """
    resets = ("reset_optimizer", "reset_lr_scheduler", "reset_meters", "reset_dataloader")
    others = [f"--{name.replace('_', '-')}" for name in resets if getattr(args, name)]
    if args.restore_file != "checkpoint_last.pt":
        others.append(f"--restore-file {args.restore_file}")
    if args.finetune_from_model and others:
        raise UserError(
            f"{others[0]} was given beside --finetune-from-model, which starts a new run by itself; drop one of them"
        )


def check_training_checkpoint(args: Namespace, config: AdapterConfig | None, vocabulary: int) -> None:
    """Makes sure that the checkpoint a training command starts from fits its model.

    Args:
        args: the arguments of the training command.
        config: which pairs the model will have, or None.
        vocabulary: number of entries of the dictionary, language tokens included.

    Raises:
        UserError: the file is missing, damaged, hostile, of another size or dictionary, or holds other adapters.
    """
    start = starting_checkpoint(args)
    if start is None:
        return
    path, resumes = start
    layout = layout_with_base(read_layout(path), stored_base_path(args))
    _check_sizes(layout, args, vocabulary)
    expected = {} if config is None else adapter_shapes(args, config)
    source = f"checkpoint {path}"
    if not check_entries(_adapter_entries(layout), expected, source):
        return
    held = stored_languages(layout)
    if held is None or config is None:
        return
    check_languages(held, config.languages, source)
    if resumes and held.names != config.languages.names:
        raise UserError(
            f"{source} was trained with --langs {','.join(held.names)}, and the optimizer's state follows that order; "
            "resume with the same --langs, or start a new run with --finetune-from-model"
        )
    if held.names == config.languages.names:
        check_shapes(layout.shapes, expected, source)


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
        layout, source = layout_with_base(read_layout(path), base_checkpoint), f"checkpoint {path}"
        _check_vocabulary(layout, vocabulary)
        check_model_sizes(layout)
        args = layout.model_args
        if not hasattr(args, "add_lora") or not args.add_lora:
            continue  # a stock model
        check_model_arguments(args)
        expected = adapter_shapes(args, stored_config(args, source))
        check_adapters_are_whole(_adapter_entries(layout), expected, source)
        check_shapes(layout.shapes, expected, source)
        held = stored_languages(layout)
        unknown = [] if held is None else [name for name in languages if name not in held.names]
        if unknown:
            raise UserError(f"{source} has no adapters for {', '.join(unknown)}; it knows {', '.join(held.names)}")


def check_adapters_are_whole(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], source: str
) -> None:
    """Makes sure that a checkpoint which was trained with adapters holds them all.

    Args:
        found: shapes of the checkpoint's adapter entries, by name.
        expected: shapes of those that its arguments say, by name.
        source: how to call the checkpoint in a message.

    Raises:
        UserError: some or all of them are missing, or there are others.
    """
    if not check_entries(found, expected, source):
        raise UserError(f"{source} was trained with adapters but holds none; give a whole checkpoint")


def stored_config(args: Namespace, source: str) -> AdapterConfig:
    """Which pairs the model of a checkpoint has, by the arguments that it was trained with.

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


def stored_languages(layout: CheckpointLayout) -> LanguageTable | None:
    """The languages of a checkpoint's adapters, or None where it holds none."""
    text = getattr(layout.model_args, "adapter_languages", None)
    return languages_from_json(text) if text else None


def stored_langs(args: Namespace | None) -> tuple[str, ...]:
    """The ``--langs`` that a checkpoint was trained with; none where its arguments do not say."""
    langs = getattr(args, "langs", None) or ()
    if isinstance(langs, str):
        return tuple(langs.split(","))
    return tuple(langs) if isinstance(langs, (list, tuple)) else ()


def _adapter_entries(layout: CheckpointLayout) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in layout.shapes.items() if is_adapter_entry(name)}


def _check_sizes(layout: CheckpointLayout, args: Namespace, vocabulary: int) -> None:
    found, source = layout.shapes, f"checkpoint {layout.path}"
    if _EMBEDDING not in found:
        raise UserError(f"{source} holds no Transformer (no {_EMBEDDING}); give an M2M100-like model")
    _check_vocabulary(layout, vocabulary)
    for stack in POSITIONS:
        _check_stack(found, args, stack, source)


def _check_vocabulary(layout: CheckpointLayout, vocabulary: int) -> None:
    size = (*layout.shapes.get(_EMBEDDING, (vocabulary,)), 0)[0]
    if size != vocabulary:
        raise UserError(
            f"checkpoint {layout.path} has a vocabulary of {size}, the dictionary (with the language tokens of "
            f"--langs) {vocabulary}; give the model's own dictionary with --fixed-dictionary, and in --langs only "
            f"languages that the model has tokens for{_lacking_tokens(layout.model_args, size - vocabulary)}"
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
