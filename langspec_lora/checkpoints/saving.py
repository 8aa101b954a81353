"""What fairseq-train saves: with the base or without it, and whole whatever happens."""

from __future__ import annotations

import os
import shutil
from argparse import Namespace
from fnmatch import fnmatch
from pathlib import Path

from fairseq.file_io import PathManager

from langspec_lora.adapters.entries import BASE
from langspec_lora.checkpoints.base import stored_base_path
from langspec_lora.checkpoints.outline import read_outline
from langspec_lora.checkpoints.starting_point import starting_checkpoint
from langspec_lora.errors import UserError


def settle_base(args: Namespace, frozen: bool) -> None:
    """Decides whether checkpoints are saved without their base, and where that lies; written into the arguments.

    Args:
        args: the arguments of the training command.
        frozen: whether only adapters train.

    Raises:
        UserError: ``--save-adapters-only True`` was given where the base would not be found again, or
            ``--base-checkpoint`` where the start holds its base.
    """
    start = starting_checkpoint(args)
    outline = None if start is None else read_outline(start[0])
    if outline is not None and BASE in outline.shapes:
        base = args.base_checkpoint or _base_of_start(args, start[0], stored_base_path(outline.model_args))
    elif args.base_checkpoint:
        raise UserError(
            f"--base-checkpoint {args.base_checkpoint} belongs to checkpoints that hold adapters only, and this "
            "training starts with none; leave it out, or give it as --finetune-from-model"
        )
    else:
        base = args.finetune_from_model if start is not None and start[0] == args.finetune_from_model else None
    wanted, stays = args.save_adapters_only, base is not None and not _is_overwritten(base, args.save_dir)
    if wanted and not frozen:
        raise UserError("--save-adapters-only True was given, but the base trains as well; leave it out, or freeze it")
    if wanted and base is None:
        raise UserError(
            "--save-adapters-only True needs a base that stays where it is; start with --finetune-from-model"
            + (", since the checkpoint to resume from holds its base itself" if start and start[1] else "")
        )
    if wanted and not stays:
        raise UserError(
            f"--save-adapters-only True needs a base that stays as it is, but {base} lies in --save-dir, where fairseq "
            "may overwrite or delete it; move it, or give another --save-dir"
        )
    args.save_adapters_only = frozen and stays if wanted is None else wanted
    # Not Path.resolve: who names a link may turn it elsewhere later.
    args.base_checkpoint = str(Path(base).absolute()) if base else None


def _base_of_start(args: Namespace, start: str, stored: str | None) -> str | None:
    """Where the base lay, or where the training says that it starts."""
    candidates = [path for path in (stored, args.finetune_from_model) if path and path != start]
    return next(filter(os.path.isfile, candidates), stored)


def _is_overwritten(base: str, save_dir: str) -> bool:
    """Whether fairseq may write or delete a file of this name."""
    named, folder = Path(base).absolute(), Path(save_dir).resolve()
    places = (named.parent.resolve() / named.name, named.resolve())  # where a link lies, and where it leads
    return any(place.parent == folder and fnmatch(place.name, "checkpoint*.pt") for place in places)


def copy_checkpoints_whole() -> None:
    """Replaces the copying of ``fairseq.checkpoint_utils.save_checkpoint`` for the rest of the process.

    fairseq writes ``checkpoint15.pt`` under another name and renames it, but then copies it byte by byte over
    ``checkpoint_last.pt`` and ``checkpoint_best.pt``: whoever is killed then resumes from half a file. Files that are
    not on a local disk are copied as before.
    """
    if getattr(PathManager.copy, "is_whole", False):
        return
    stock = PathManager.copy

    def copy(src_path: str, dst_path: str, overwrite: bool = False) -> bool:
        copies = stock if "://" in src_path + dst_path else copy_whole
        return copies(src_path, dst_path, overwrite=overwrite)

    copy.is_whole = True
    PathManager.copy = staticmethod(copy)


def copy_whole(source: str, target: str, overwrite: bool = False) -> bool:
    """Copies a file so that a kill leaves the target as it was, or whole.

    Args:
        source: the file.
        target: where the copy goes.
        overwrite: whether it may replace a file there.

    Raises:
        FileExistsError: there is one, and ``overwrite`` was not given.
        OSError: it cannot be written.
    """
    if not overwrite and Path(target).exists():
        raise FileExistsError(target)
    partial = Path(f"{target}.tmp")  # as fairseq calls what it is writing
    try:
        shutil.copyfile(source, partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return True
