"""Decides whether a training saves its checkpoints without their base, and finds the base of such a checkpoint."""

from __future__ import annotations

import os
from argparse import Namespace
from fnmatch import fnmatch
from pathlib import Path

from langspec_lora.adapters.entries import BASE
from langspec_lora.checkpoints.outline import read_outline
from langspec_lora.checkpoints.starting_point import starting_checkpoint
from langspec_lora.errors import UserError


def stored_base_path(args: Namespace | None) -> str | None:
    """The path of the base when a checkpoint was saved without it; None if its arguments do not say."""
    path = getattr(args, "base_checkpoint", None)
    return path if isinstance(path, str) else None


def found_base(path: str | None, label: str) -> Path:
    """The file of the base of a checkpoint that was saved without it.

    Args:
        path: its path; None if it is not known.
        label: the checkpoint, for messages.

    Raises:
        UserError: the path is not known, or is no file.
    """
    if not path or not os.path.isfile(path):  # noqa: PTH113  Path.is_file raises for folders that may not be entered
        raise UserError(
            f"{label} holds adapters only, and its base{f' {path}' if path else ''} was not found; give the model that "
            "the training started from as --base-checkpoint"
        )
    return Path(path)


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
