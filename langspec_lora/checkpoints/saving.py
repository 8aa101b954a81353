"""Saves the checkpoints of fairseq-train with or without the base, and never half a file."""

from __future__ import annotations

import os
import shutil
from argparse import Namespace
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

from fairseq.file_io import PathManager

from langspec_lora.adapters.entries import BASE
from langspec_lora.checkpoints.base import stored_base_path
from langspec_lora.checkpoints.outline import read_outline
from langspec_lora.checkpoints.starting_point import starting_checkpoint
from langspec_lora.errors import UserError


def settle_base(args: Namespace, frozen: bool) -> None:
    """Decides whether checkpoints are saved without their base, and where the base is; sets both in the arguments.

    Args:
        args: the arguments of the training command.
        frozen: whether only adapters train.

    Raises:
        UserError: ``--save-adapters-only True`` was given but the base would not be found again, or
            ``--base-checkpoint`` although the starting checkpoint holds its base.
    """
    start, resumes = starting_checkpoint(args) or (None, False)
    outline = None if start is None else read_outline(start)
    if start is not None and outline is not None and BASE in outline.shapes:
        base = args.base_checkpoint or _base_of_start(args, start, stored_base_path(outline.model_args))
    elif args.base_checkpoint:
        raise UserError(
            f"--base-checkpoint {args.base_checkpoint} is for checkpoints that hold adapters only, and this "
            "training does not start from one; leave it out, or give it as --finetune-from-model"
        )
    else:
        base = args.finetune_from_model if start is not None and start == args.finetune_from_model else None
    wanted, stays = args.save_adapters_only, base is not None and not _is_overwritten(base, args.save_dir)
    if wanted and not frozen:
        raise UserError(
            "--save-adapters-only True was given, but the base is trained as well; leave it out, or freeze the base"
        )
    if wanted and base is None:
        raise UserError(
            "--save-adapters-only True needs a permanent base file; start with --finetune-from-model"
            + (", since the checkpoint to resume from holds its base" if resumes else "")
        )
    if wanted and not stays:
        raise UserError(
            f"--save-adapters-only True needs a permanent base file, but {base} is in --save-dir, where fairseq "
            "may overwrite or delete it; move it, or give another --save-dir"
        )
    args.save_adapters_only = frozen and stays if wanted is None else wanted
    # Not Path.resolve: a link may point elsewhere later.
    args.base_checkpoint = str(Path(base).absolute()) if base else None


def _base_of_start(args: Namespace, start: str, stored: str | None) -> str | None:
    """The path of the base: the stored one, or that of the training command, whichever is a file."""
    candidates = [path for path in (stored, args.finetune_from_model) if path and path != start]
    return next(filter(os.path.isfile, candidates), stored)


def _is_overwritten(base: str, save_dir: str) -> bool:
    """Whether fairseq may overwrite or delete this file in the save folder."""
    named, folder = Path(base).absolute(), Path(save_dir).resolve()
    places = (named.parent.resolve() / named.name, named.resolve())  # the link itself, and its target
    return any(place.parent == folder and fnmatch(place.name, "checkpoint*.pt") for place in places)


def copy_checkpoints_whole() -> None:
    """Replaces the copying of ``fairseq.checkpoint_utils.save_checkpoint`` for the rest of the process.

    Fairseq writes ``checkpoint15.pt`` under another name and renames it, but then copies it byte by byte over
    ``checkpoint_last.pt`` and ``checkpoint_best.pt``: a run that is killed meanwhile would resume from half a file.
    Files that are not on a local disk are copied as before.
    """
    if not isinstance(PathManager.copy, _CopyWhole):
        PathManager.copy = staticmethod(_CopyWhole(PathManager.copy))


class _CopyWhole:
    """Fairseq's ``PathManager.copy``, with :func:`copy_whole` for local files."""

    def __init__(self, stock: Callable[..., bool]) -> None:
        self._stock = stock

    def __call__(self, src_path: str, dst_path: str, overwrite: bool = False) -> bool:
        copies = self._stock if "://" in src_path + dst_path else copy_whole
        return copies(src_path, dst_path, overwrite=overwrite)


def copy_whole(original: str, target: str, overwrite: bool = False) -> bool:
    """Copies a file so that a kill leaves the target either as it was or complete.

    Args:
        original: the file to copy.
        target: path of the copy.
        overwrite: whether the copy may replace a file.

    Raises:
        FileExistsError: ``target`` exists, and ``overwrite`` is False.
        OSError: the copy cannot be written.
    """
    if not overwrite and Path(target).exists():
        raise FileExistsError(target)
    partial = Path(f"{target}.tmp")  # fairseq's name for an unfinished file
    try:
        shutil.copyfile(original, partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return True
