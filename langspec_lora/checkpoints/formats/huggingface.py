"""Folders of Hugging Face's ``transformers``: to them from a checkpoint, and from them as a base model."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from langspec_lora.checkpoints.formats import check_flags, check_one_direction, say
from langspec_lora.checkpoints.formats.merged import merged_weights
from langspec_lora.checkpoints.huggingface.model import IMPORTED_FILES, export_model, exported_files, import_model
from langspec_lora.checkpoints.source import Source
from langspec_lora.files import check_folder

_OPTION = "--format huggingface"


def export(args: Namespace) -> list[Path]:
    """Writes a model folder: of a direction, its pairs merged into the weights, or of the base model alone."""
    check_flags(args, _OPTION, {}, {"all": "--all"})
    files = (args.fixed_dictionary, args.sentencepiece_model)
    if any(files):
        both = {"fixed_dictionary": "--fixed-dictionary", "sentencepiece_model": "--sentencepiece-model"}
        check_flags(args, "a tokenizer", both, {})
    names = exported_files(any(files))
    check_folder(args.out, names, args.overwrite)
    direction = args.source_lang or args.target_lang
    if direction:
        check_one_direction(args, _OPTION)
    source = Source(args.checkpoint, args.base_checkpoint)
    model = source.base
    if direction:
        model = {**model, **merged_weights(model, source.adapters, args.source_lang, args.target_lang)}
    elif source.has_adapters:
        say("this is the base model alone; -s and -t merge the pairs of a direction into it")
    remark = export_model(
        model,
        source.args,
        args.out,
        str(source),
        languages=(args.source_lang, args.target_lang),
        tokenizer=files if all(files) else None,
        overwrite=args.overwrite,
    )
    if remark:
        say(remark)
    return [args.out / name for name in names if (args.out / name).is_file()]


def import_base(args: Namespace) -> list[Path]:
    """Writes ``model.pt``, ``dict.txt`` and the SentencePiece model from M2M100 or NLLB-200 for ``transformers``."""
    unknown = {
        "source_lang": "--source-lang",
        "target_lang": "--target-lang",
        "base": "--base",
        "langs": "--langs",
        "lang_resources": "--lang-resources",
        "encoder_activation_direction": "--encoder-activation-direction",
        "decoder_activation_direction": "--decoder-activation-direction",
    }
    check_flags(args, "--from huggingface", {}, unknown)
    added = None
    if args.added_languages:
        added = [] if args.added_languages == "none" else args.added_languages.split(",")
    imported = import_model(args.path, args.out, args.sentencepiece_model, args.overwrite, added)
    for remark in imported.remarks:
        say(remark)
    say(f"fine-tune it with --finetune-from-model {args.out / 'model.pt'} {imported.flags}")
    return [args.out / name for name in IMPORTED_FILES]
