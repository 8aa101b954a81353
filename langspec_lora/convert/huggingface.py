"""Writes model folders of Hugging Face's ``transformers`` from a checkpoint, and reads them as base models."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from langspec_lora.checkpoints.outline import read_outline
from langspec_lora.checkpoints.stored_model import StoredModel
from langspec_lora.checkpoints.token_order import TokenOrder
from langspec_lora.checkpoints.vocabulary_files import find_vocabulary
from langspec_lora.convert import DIRECTION, check_adapted, check_flags, check_one_direction, say
from langspec_lora.convert.hf.model import (
    IMPORTED_FILES,
    MODEL_FILES,
    check_import,
    export_model,
    exported_files,
    write_import,
)
from langspec_lora.convert.hf.tokenizer_files import TOKENIZER_FILES, check_tokenizer
from langspec_lora.convert.merged import merged_weights
from langspec_lora.errors import UserError, collect_errors
from langspec_lora.files import check_folder

_OPTION = "--format huggingface"


def export(args: Namespace) -> list[Path]:
    """Writes a model folder: of one direction, with its adapters merged into the weights, or of the base model."""
    direction = args.source_lang or args.target_lang
    with collect_errors() as errors:
        with errors.check():
            check_flags(args, _OPTION, takes=(*DIRECTION, "fixed_dictionary", "sentencepiece_model"))
        with errors.check():
            if direction:
                check_one_direction(args, _OPTION)
        with errors.check():
            check_folder(args.out, MODEL_FILES, args.overwrite)
        with errors.check():
            files = _vocabulary(args)
            if files is not None:
                check_folder(args.out, exported_files(True), args.overwrite)
        model = StoredModel(args.checkpoint, args.base_checkpoint)
        with errors.check():
            model.check_base_is_found()
        if direction:
            check_adapted(args, model.adapters.languages)
    weights = model.base
    if direction:
        weights = {**weights, **merged_weights(weights, model.adapters, args.source_lang, args.target_lang)}
    elif model.has_adapters:
        say("this is the base model alone; -s and -t merge the adapters of a direction into it")
    if files is not None and not _given(args):
        files = _fitting(files, weights, model.args, (args.source_lang, args.target_lang))
    remark = export_model(
        weights,
        model.args,
        args.out,
        str(model),
        languages=(args.source_lang, args.target_lang),
        tokenizer=files,
        overwrite=args.overwrite,
    )
    if remark:
        say(remark)
    return [args.out / name for name in exported_files(files is not None) if (args.out / name).is_file()]


def _given(args: Namespace) -> bool:
    return bool(args.fixed_dictionary or args.sentencepiece_model)


def _vocabulary(args: Namespace) -> tuple[Path, Path] | None:
    """Dictionary and SentencePiece model, as given or as ``translate`` finds them; None if they are not found."""
    if os.path.isdir(args.checkpoint) or args.checkpoint.suffix == ".safetensors":  # noqa: PTH112  as in StoredModel
        return None  # an adapter folder, which StoredModel refuses later
    outline = read_outline(args.checkpoint)
    try:
        files = find_vocabulary(outline, args.fixed_dictionary, args.sentencepiece_model)
    except UserError as error:
        if _given(args):
            raise
        say(f"no tokenizer is written: {error}")
        return None
    if _given(args):
        return files
    existing = [] if args.overwrite else [name for name in TOKENIZER_FILES if (args.out / name).exists()]
    if existing:  # for example in the folder of the base itself
        say(f"no tokenizer is written: --out {args.out} already contains {existing[0]}; --overwrite replaces it")
        return None
    say(f"the tokenizer is made from {files[0]} and {files[1]}")
    return files


def _fitting(
    files: tuple[Path, Path], weights: Mapping[str, Tensor], args: Namespace, languages: Sequence[str | None]
) -> tuple[Path, Path] | None:
    """The files that were found, or None if they belong to another model; only given files must fit."""
    rows = len(weights.get("encoder.embed_tokens.weight", ()))
    try:
        check_tokenizer(*files, rows, languages, TokenOrder.of(Path(), args))
    except UserError as error:
        say(f"no tokenizer is written: {error}")
        return None
    return files


def import_base(args: Namespace) -> list[Path]:
    """Writes ``model.pt``, ``dict.txt`` and the SentencePiece model from M2M100 or NLLB-200 for ``transformers``."""
    added = None
    if args.added_languages:
        added = [] if args.added_languages == "none" else args.added_languages.split(",")
    with collect_errors() as errors:
        with errors.check():
            check_flags(args, "--from huggingface", takes=("sentencepiece_model", "added_languages"))
        model = check_import(args.path, args.out, args.sentencepiece_model, args.overwrite, added)
    imported = write_import(model, args.out, args.overwrite)
    for remark in imported.remarks:
        say(remark)
    say(f"fine-tune it with --finetune-from-model {args.out / 'model.pt'} {imported.flags}")
    return [args.out / name for name in IMPORTED_FILES]
