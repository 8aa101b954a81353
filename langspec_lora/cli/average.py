"""``langspec-lora average``: averages several checkpoints of one training."""

# Imports in functions: they keep torch out of --help.

from __future__ import annotations

import argparse
from pathlib import Path

from langspec_lora.errors import UserError, collect_errors
from langspec_lora.files import check_file
from langspec_lora.flags import add_base_flag
from langspec_lora.notes import show

EXAMPLE = "checkpoints/checkpoint14.pt checkpoints/checkpoint15.pt --out average.pt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("checkpoints", type=Path, nargs="+", metavar="CK", help="checkpoints of one training")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="checkpoint to write")
    add_base_flag(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")


def run(args: argparse.Namespace) -> int:
    """Writes the checkpoint."""
    from langspec_lora.adapters.averaging import average
    from langspec_lora.checkpoints.stored_model import StoredModel

    stored = []
    with collect_errors() as errors:
        with errors.check():
            check_file(args.out, args.overwrite)
        with errors.check():
            if len(args.checkpoints) < 2:
                raise UserError("one checkpoint was given; give two or more to average")
        for path in args.checkpoints:
            with errors.check():
                stored.append(StoredModel.with_adapters(path, args.base_checkpoint))
        errors.raise_found()
        stored[0].check_base_is_found()
    adapters = average([one.adapters for one in stored], [str(one) for one in stored])
    for other in stored[1:]:
        if other.fingerprint != stored[0].fingerprint:
            raise UserError(
                f"{other} and {stored[0]} have different base models; give checkpoints of a training with a frozen base"
            )
    stored[0].write(adapters, args.out)
    show(f"written: {args.out}, the average of {len(stored)} checkpoints")
    return 0
