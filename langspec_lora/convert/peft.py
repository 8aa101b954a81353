"""LoRA folders of Hugging Face's PEFT: written from a checkpoint's adapters, and read as adapters on a base model."""

from __future__ import annotations

from argparse import Namespace
from itertools import permutations
from pathlib import Path

from langspec_lora.checkpoints.arguments import untrained_arguments
from langspec_lora.checkpoints.assembly import adapted_checkpoint
from langspec_lora.checkpoints.stored_model import StoredModel
from langspec_lora.config import activation_sides
from langspec_lora.convert import check_flags, check_one_direction, say
from langspec_lora.convert.hf.peft_folder import PEFT_FILES, base_model_name, export_lora, import_lora
from langspec_lora.files import check_file, check_folder
from langspec_lora.languages import PAPER_RESOURCES, read_resources
from langspec_lora.sites import POSITIONS
from langspec_lora.tensor_files import write_checkpoint

_FILES = {"fixed_dictionary": "--fixed-dictionary", "sentencepiece_model": "--sentencepiece-model"}


def export(args: Namespace) -> list[Path]:
    """Writes the LoRA folder of a direction, or with ``--all`` one for each direction below ``--out``."""
    check_flags(args, "--format peft", {}, _FILES)
    if args.all:
        check_flags(args, "--all", {}, {"source_lang": "--source-lang", "target_lang": "--target-lang"})
    else:
        check_one_direction(args, "--format peft without --all")
    source = StoredModel(args.checkpoint, args.base_checkpoint)
    adapters = source.adapters
    sizes = {name: tuple(value.shape) for name, value in source.base.items()}
    folders = {(args.source_lang, args.target_lang): args.out}
    if args.all:
        folders = {direction: args.out / "-".join(direction) for direction in permutations(adapters.languages.names, 2)}
    for folder in folders.values():
        check_folder(folder, PEFT_FILES, args.overwrite)
    for direction, folder in folders.items():
        export_lora(adapters, *direction, sizes, folder, args.overwrite)
    return [folder / name for folder in folders.values() for name in PEFT_FILES]


def import_checkpoint(args: Namespace) -> list[Path]:
    """Writes a checkpoint of ours in which a LoRA has become the adapters of its two languages."""
    check_flags(
        args,
        "--from peft",
        {"base": "--base"},
        {
            "langs": "--langs",
            "sentencepiece_model": "--sentencepiece-model",
            "added_languages": "--added-languages",
        },
    )
    check_one_direction(args, "--from peft")
    check_file(args.out, args.overwrite)
    resources = read_resources(args.lang_resources) if args.lang_resources else PAPER_RESOURCES
    source = StoredModel(args.base, args.base_checkpoint)
    trained, sizes = untrained_arguments(source.args), {name: tuple(value.shape) for name, value in source.base.items()}
    for stack in POSITIONS:
        flag = f"{stack}_activation_direction"
        setattr(trained, flag, getattr(args, flag))
    directions = {stack: activation_sides(trained, stack) for stack in POSITIONS}
    adapters = import_lora(args.path, args.source_lang, args.target_lang, sizes, directions, resources)
    write_checkpoint(adapted_checkpoint(source.base, trained, adapters, {}), args.out)
    name = base_model_name(args.path)
    if name:
        say(f"the LoRA was trained on {name}: its outputs are the same only if --base {args.base} is that model")
    return [args.out]
