"""``langspec-lora average``: the mean of several checkpoints of one training."""

from __future__ import annotations

import argparse
from pathlib import Path

from langspec_lora.errors import UserError
from langspec_lora.flags import add_base_flag

HELP = "average the adapters of several checkpoints of one training"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("checkpoints", type=Path, nargs="+", metavar="CK", help="checkpoints of one training")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the checkpoint to write")
    add_base_flag(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")


def run(args: argparse.Namespace) -> int:
    """Writes the checkpoint."""
    from langspec_lora.adapters.edit import average
    from langspec_lora.checkpoints.stored_model import StoredModel
    from langspec_lora.files import check_file

    check_file(args.out, args.overwrite)
    if len(args.checkpoints) < 2:
        raise UserError("one checkpoint is its own average; name two or more")
    sources = [StoredModel(path, args.base_checkpoint) for path in args.checkpoints]
    adapters = average([source.adapters for source in sources], [str(source) for source in sources])
    for other in sources[1:]:
        if other.fingerprint != sources[0].fingerprint:
            raise UserError(
                f"{other} and {sources[0]} stand on different base models, or train theirs; only the adapters of "
                "trainings that keep one base frozen are averaged here"
            )
    sources[0].write(adapters, args.out)
    print(f"written: {args.out}, the average of {len(sources)} checkpoints")
    return 0
