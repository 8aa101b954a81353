"""Writes LoRA folders of Hugging Face's PEFT from adapters, and reads them as adapters on a base model."""

from __future__ import annotations

import shutil
from argparse import Namespace
from collections.abc import Collection, Mapping
from itertools import permutations
from pathlib import Path

from langspec_lora.adapters.packed import Adapters
from langspec_lora.checkpoints.assembly import adapted_checkpoint, untrained_arguments
from langspec_lora.checkpoints.stored_model import StoredModel
from langspec_lora.config import activation_sides
from langspec_lora.convert import DIRECTION, check_adapted, check_flags, check_one_direction, say
from langspec_lora.convert.hf.peft_folder import PEFT_FILES, base_model_name, export_lora, import_lora
from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError, collect_errors
from langspec_lora.files import below, check_file, check_folder
from langspec_lora.languages import PAPER_RESOURCES
from langspec_lora.progress import Progress
from langspec_lora.resources import read_resources
from langspec_lora.sites import POSITIONS, SOURCE, TARGET
from langspec_lora.tensor_files import write_checkpoint

_MUCH = 10**9  # bytes
_SIDES = tuple(f"{stack}_activation_direction" for stack in POSITIONS)


def export(args: Namespace) -> list[Path]:
    """Writes the LoRA folder of a direction, or with ``--all`` one for each direction below ``--out``."""
    with collect_errors() as errors:
        with errors.check():
            check_flags(args, "--format peft", takes=(*DIRECTION, "all"))
        with errors.check():
            if args.all:
                check_flags(args, "--all", takes=("all",))
            else:
                check_one_direction(args, "--format peft without --all")
        with errors.check():
            check_folder(args.out, () if args.all else PEFT_FILES, args.overwrite)
        model = StoredModel.with_adapters(args.checkpoint, args.base_checkpoint)
        adapters = model.adapters
        with errors.check():
            model.check_base_is_found()
        with errors.check():
            check_adapted(args, adapters.languages)
        folders = {(args.source_lang, args.target_lang): args.out}
        if args.all:
            pairs = adapters.languages.direction_ranks or map("-".join, permutations(adapters.languages.names, 2))
            folders = {Direction.parse(pair): below(args.out, pair) for pair in pairs}
            for folder in folders.values():
                check_folder(folder, PEFT_FILES, args.overwrite)
    shapes = _shapes(model)
    if args.all:
        _check_space(args.out, folders.values(), _bytes_of_all(adapters, shapes))
    bar = Progress(folders.items(), desc="exporting", unit="direction", disable=len(folders) == 1 or None)
    for (source, target), folder in bar:
        export_lora(adapters, source, target, shapes, folder, args.overwrite)
    return [folder / name for folder in folders.values() for name in PEFT_FILES]


def _bytes_of_all(adapters: Adapters, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """The size of the tensors of all directions: each language is the source of all others, and their target."""
    table, total = adapters.languages, 0
    count = len(table.direction_ranks) or len(table) * (len(table) - 1)
    for site, part in adapters.packed.items():
        keys = adapters.keys(site)
        row = sum(shapes[f"{site.path}.weight"]) * part.a.element_size()
        total += row * sum(keys.ranks) * count // len(keys.ranks)
    return total


def _check_space(out: Path, folders: Collection[Path], needed: int) -> None:
    """Says how much ``--all`` writes, and refuses it if the disk is too small: hours later it would be full.

    Raises:
        UserError: it does not fit.
    """
    needed -= sum(path.stat().st_size for folder in folders for path in folder.glob(PEFT_FILES[1]))  # are replaced
    there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(there).free
    size = f"--all writes {len(folders):,} folders, {needed / 1e9:,.1f} GB in all"
    if needed > free:
        raise UserError(
            f"{size}, but {there} has {free / 1e9:,.1f} GB of space; export the directions that you need with -s and "
            "-t, or give another --out"
        )
    if needed > _MUCH:
        say(size)


def import_checkpoint(args: Namespace) -> list[Path]:
    """Writes a checkpoint with a LoRA as the adapters of two languages."""
    with collect_errors() as errors:
        with errors.check():
            check_flags(args, "--from peft", takes=(*DIRECTION, *_SIDES, "lang_resources"), needs=("base",))
        with errors.check():
            check_one_direction(args, "--from peft")
        with errors.check():
            check_file(args.out, args.overwrite)
        with errors.check():
            resources = read_resources(args.lang_resources) if args.lang_resources else PAPER_RESOURCES
        with errors.check():
            name = base_model_name(args.path)
        if args.base is not None:
            model = StoredModel(args.base, args.base_checkpoint)
            with errors.check():
                model.check_base_is_found()
            untrained = untrained_arguments(model.args)
            for flag in _SIDES:
                setattr(untrained, flag, getattr(args, flag))
            sides = {}
            for stack in POSITIONS:
                with errors.check():
                    sides[stack] = activation_sides(untrained, stack)
                    if not set(sides[stack]) <= {SOURCE, TARGET}:
                        raise UserError(
                            f"--{stack}-activation-direction: a LoRA becomes adapters of languages; expected src or tgt"
                        )
    adapters = import_lora(args.path, args.source_lang, args.target_lang, _shapes(model), sides, resources)
    write_checkpoint(adapted_checkpoint(model.base, untrained, adapters, {}), args.out)
    if name:
        say(f"the LoRA was trained on {name}: its outputs are the same only if --base {args.base} is that model")
    return [args.out]


def _shapes(model: StoredModel) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in model.base.items()}
