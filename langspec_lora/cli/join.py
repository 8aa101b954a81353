"""``langspec-lora join``: joins the adapters of two trainings on one base."""

# Imports in functions: they keep torch out of --help.

from __future__ import annotations

import argparse
from pathlib import Path

from langspec_lora.errors import UserError, collect_errors
from langspec_lora.files import check_file
from langspec_lora.flags import add_base_flag
from langspec_lora.naming import some_of
from langspec_lora.notes import show

EXAMPLE = "first/checkpoint_best.pt second/checkpoint_best.pt --prefer A --out joined.pt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("first", type=Path, metavar="A", help="checkpoint with adapters, or adapter folder")
    parser.add_argument("second", type=Path, metavar="B", help="a second one; A or B must be a checkpoint")
    parser.add_argument("--prefer", choices=("A", "B"), help="which adapters to keep for a language that both have")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="checkpoint to write")
    add_base_flag(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")


def run(args: argparse.Namespace) -> int:
    """Writes the checkpoint and prints which languages it has."""
    from langspec_lora.adapters.edit import join
    from langspec_lora.checkpoints.fingerprint import check_same_base
    from langspec_lora.checkpoints.stored_model import StoredModel

    with collect_errors() as errors:
        with errors.check():
            check_file(args.out, args.overwrite)
        with errors.check():
            first = StoredModel.with_adapters(args.first, args.base_checkpoint)
        with errors.check():
            second = StoredModel.with_adapters(args.second, args.base_checkpoint)
        errors.raise_found()
        written = first if first.is_checkpoint else second
        with errors.check():
            written.check_base_is_found()
        for flag in ("encoder_langtok", "decoder_langtok"):
            one, other = first.settings.get(flag), second.settings.get(flag)
            with errors.check():
                if one != other:
                    name = f"--{flag.replace('_', '-')}"
                    raise UserError(
                        f"A was trained with {name} {one} and B with {other}; give two trained with the same {name}"
                    )
        adapters = join(first.adapters, second.adapters, args.prefer)
    if not (first.has_fingerprint(second.fingerprint) or second.has_fingerprint(first.fingerprint)):
        check_same_base(second.fingerprint, first.fingerprint, f"the base of {args.second}", str(args.first))
    written.write(adapters, args.out)
    show(f"written: {args.out}, with adapters for {some_of(adapters.languages.names)}")
    return 0
