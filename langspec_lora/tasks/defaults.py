"""Defaults of scripts/train.sh and scripts/evaluate.sh: languages, directions, sizes, from the data and the model."""

# Imports in functions: torch takes seconds, and a script that is given everything needs none.

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from langspec_lora.data.directions import Direction, find_directions, side_path
from langspec_lora.data.headers import count_sentences
from langspec_lora.errors import UserError, collect_errors
from langspec_lora.files import read_lines
from langspec_lora.languages import PAPER_LEVELS
from langspec_lora.naming import some_of
from langspec_lora.resources import read_resources
from langspec_lora.values import content_of, names_of

if TYPE_CHECKING:
    from langspec_lora.checkpoints.outline import Outline

_LAYER = re.compile(r"(encoder|decoder)\.layers\.(\d+)\.fc1\.weight")
_HEADS = 16  # of every published M2M100


@dataclass(frozen=True)
class Defaults:
    """The defaults that were found.

    Attributes:
        values: by the name of the script's variable.
        notes: one sentence about each thing that was left out.
    """

    values: Mapping[str, str]
    notes: Sequence[str]


def training_defaults(
    data_bin: Path,
    base: Path,
    langs: str | None = None,
    lang_pairs: str | None = None,
    lang_resources: str | None = None,
) -> Defaults:
    """Finds the languages, directions and sizes of a training.

    Args:
        data_bin: the binarised folder.
        base: the checkpoint to fine-tune.
        langs: the languages; by default those with adapters in the base, then those of the training data.
        lang_pairs: the directions, or a file of them; by default all of the training data between the languages.
        lang_resources: a file of levels, which also orders the languages.

    Returns:
        ``LANGS``, ``LANG_PAIRS``, ``ARCH``, ``ENCODER_LAYERS``, ``DECODER_LAYERS``, ``DIM``, and ``SIZES``: further
        flags for the architecture.

    Raises:
        UserError: a file is missing or damaged, or the data have no such direction.
    """
    from langspec_lora.checkpoints.arguments import stored_languages
    from langspec_lora.checkpoints.left_out_base import outline_with_base
    from langspec_lora.checkpoints.outline import read_outline
    from langspec_lora.convert.hf.config_json import training_flags

    with collect_errors() as errors:
        with errors.check():
            outline = outline_with_base(read_outline(base))
            args = _sized_arguments(outline)
            architecture, *sizes = training_flags(args).removeprefix("--arch ").split(" ")
        with errors.check():
            order = list(read_resources(lang_resources).levels if lang_resources else PAPER_LEVELS)
        available, given, names = _available(data_bin, "train", langs, lang_pairs)
    if langs is None:
        held = stored_languages(outline)
        names = list(dict.fromkeys([*(held.names if held else ()), *_ordered(names, order)]))
    directions, notes = _directions(available, names, given, "trained")
    return Defaults(
        {
            "LANGS": ",".join(names),
            "LANG_PAIRS": directions,
            "ARCH": architecture,
            "ENCODER_LAYERS": str(args.encoder_layers),
            "DECODER_LAYERS": str(args.decoder_layers),
            "DIM": str(min(args.encoder_embed_dim, args.decoder_embed_dim)),
            "SIZES": " ".join(sizes),
        },
        notes,
    )


def evaluation_defaults(
    data_bin: Path,
    checkpoint: Path,
    langs: str | None = None,
    lang_pairs: str | None = None,
    references: str | None = None,
) -> Defaults:
    """Finds the languages, directions and references of an evaluation.

    Args:
        data_bin: the binarised folder.
        checkpoint: the model.
        langs: the model's languages; by default those of its training, or of the test data if it does not name them.
        lang_pairs: the directions, or a file of them; by default all of the test data between the languages.
        references: folder with ``test.LANG``, or ``data``; by default a folder ``mono`` in or next to the data, if it
            has all of them.

    Returns:
        ``LANGS``, ``LANG_PAIRS`` and ``REFERENCES``: the folder; empty means the targets in the data.

    Raises:
        UserError: a file is missing or damaged, the data have no such direction, or the number of references is not
            the number of sentences.
    """
    with collect_errors() as errors:
        stored: tuple[str, ...] = ()
        with errors.check():
            if langs is None:
                from langspec_lora.checkpoints.arguments import stored_langs
                from langspec_lora.checkpoints.outline import read_outline

                stored = stored_langs(read_outline(checkpoint).model_args)
        available, given, names = _available(data_bin, "test", langs, lang_pairs)
    if langs is None:
        names = list(stored) or _ordered(names, list(PAPER_LEVELS))
    directions, notes = _directions(available, names, given, "evaluated")
    folder = _references(data_bin, _parsed(directions), references)
    return Defaults({"LANGS": ",".join(names), "LANG_PAIRS": directions, "REFERENCES": folder}, notes)


def _references(data_bin: Path, directions: Sequence[Direction], given: str | None) -> str:
    if given == "data":
        return ""
    folders = [Path(given)] if given else [data_bin / "mono", data_bin.resolve().parent / "mono"]
    for folder in folders:
        files = {direction: folder / f"test.{direction.target}" for direction in directions}
        lacking = [path for path in files.values() if not path.is_file()]
        if not lacking:
            for direction, path in files.items():
                _check_length(data_bin, direction, path)
            return str(folder)
        if given:
            raise UserError(f"{lacking[0]} not found; give the folder of raw references as FLORES_MONO")
    return ""


def _check_length(data_bin: Path, direction: Direction, path: Path) -> None:
    side = side_path(data_bin, "test", direction, direction.source)
    sentences = None if side is None else count_sentences(str(side))
    lines = _count_lines(path)
    if sentences not in (None, lines):
        raise UserError(
            f"{path} has {lines} lines, but the data of {direction} have {sentences} sentences; give the folder of "
            "their references as FLORES_MONO, or FLORES_MONO=data to use the targets in the data"
        )


@cache
def _count_lines(path: Path) -> int:
    return len(read_lines(path))


def _available(
    data_bin: Path, subset: str, langs: str | None, lang_pairs: str | None
) -> tuple[list[Direction], list[Direction] | None, list[str]]:
    """The directions of the data, the given ones, and the languages: the given ones, or else those of the directions.

    Raises:
        UserError: a flag or the folder is wrong; all mistakes are listed.
    """
    with collect_errors() as errors:
        with errors.check():
            available = [] if langs and lang_pairs else find_directions(data_bin, subset)
        with errors.check():
            given = None if lang_pairs is None else _parsed(lang_pairs)
        with errors.check():
            names = None if langs is None else names_of(langs, "--langs")
    if names is None:
        names = list({name for direction in (available if given is None else given) for name in direction})
    return available, given, names


def _parsed(lang_pairs: str) -> list[Direction]:
    return [Direction.parse(pair) for pair in names_of(content_of(lang_pairs), "--lang-pairs", "en-fr,fr-en")]


def _ordered(names: Iterable[str], order: Sequence[str]) -> list[str]:
    """Sorts names by their position in ``order``; names that are not in it follow alphabetically."""
    return sorted(names, key=lambda name: (order.index(name) if name in order else len(order), name))


def _directions(
    available: Sequence[Direction], names: Sequence[str], given: Sequence[Direction] | None, done: str
) -> tuple[str, list[str]]:
    if given is not None:
        return ",".join(map(str, given)), []
    chosen = {direction for direction in available if set(direction) <= set(names)}
    if not chosen:
        raise UserError(f"the data have no direction between {some_of(names)}; give other languages or other data")
    others = sorted({name for direction in available for name in direction} - set(names))
    notes = (
        [f"the data also have {some_of(others)}, which are not among the given languages: not {done}"] if others else []
    )
    return ",".join(f"{s}-{t}" for s in names for t in names if Direction(s, t) in chosen), notes


def _sized_arguments(outline: Outline) -> Namespace:
    """The arguments of a checkpoint's model, with the sizes of its tensors."""
    stored = outline.model_args or Namespace()
    args = Namespace(
        encoder_attention_heads=getattr(stored, "encoder_attention_heads", None) or _HEADS,
        decoder_attention_heads=getattr(stored, "decoder_attention_heads", None) or _HEADS,
        activation_fn=getattr(stored, "activation_fn", None) or "relu",
        max_source_positions=getattr(stored, "max_source_positions", None) or 1024,
        max_target_positions=getattr(stored, "max_target_positions", None) or 1024,
        no_scale_embedding=bool(getattr(stored, "no_scale_embedding", False)),
    )
    found = [match for match in map(_LAYER.fullmatch, outline.shapes) if match]
    for stack in ("encoder", "decoder"):
        first = next((outline.shapes[match[0]] for match in found if match[1] == stack), None)
        if first is None or len(first) != 2:
            raise UserError(f"checkpoint {outline.path} has no Transformer; give a model like M2M100")
        setattr(args, f"{stack}_layers", sum(match[1] == stack for match in found))
        setattr(args, f"{stack}_ffn_embed_dim", first[0])
        setattr(args, f"{stack}_embed_dim", first[1])
    return args
