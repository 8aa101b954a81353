"""``langspec-lora fix-directions``: keeps in each layer the side that a training with learned directions chose."""

# Imports in functions: they keep torch out of --help.

from __future__ import annotations

import argparse
from pathlib import Path

from langspec_lora.errors import UserError, collect_errors
from langspec_lora.files import check_file
from langspec_lora.flags import add_base_flag
from langspec_lora.notes import show

EXAMPLE = "learned/checkpoint_best.pt --out fixed.pt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    help = "checkpoint of a training with --weight-learning True"
    parser.add_argument("checkpoint", type=Path, metavar="CK", help=help)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="checkpoint to write")
    add_base_flag(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")


def run(args: argparse.Namespace) -> int:
    """Writes the checkpoint and prints the flags of its directions."""
    from langspec_lora.adapters.learned_directions import activation_direction_flags, fix_directions
    from langspec_lora.checkpoints.stored_model import StoredModel

    with collect_errors() as errors:
        with errors.check():
            check_file(args.out, args.overwrite)
        with errors.check():
            stored = StoredModel.with_adapters(args.checkpoint, args.base_checkpoint)
            stored.check_base_is_found()
        errors.raise_found()
        try:
            fixed = fix_directions(stored.adapters)
        except UserError as error:
            raise UserError(f"{stored}: {error}") from None
    flags = activation_direction_flags(fixed.sides)
    stored.write(fixed, args.out)
    show(f"written: {args.out}")
    show("to train further, or anew: " + " ".join(f"{flag} {value}" for flag, value in flags.items()))
    return 0
