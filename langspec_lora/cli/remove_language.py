"""``langspec-lora remove-language``: removes the adapters of some languages from a checkpoint."""

# Imports in functions: they keep torch out of --help.

from __future__ import annotations

import argparse
from pathlib import Path

from langspec_lora.errors import collect_errors
from langspec_lora.files import check_file
from langspec_lora.flags import add_base_flag
from langspec_lora.naming import some_of
from langspec_lora.notes import show
from langspec_lora.values import names_of

EXAMPLE = "checkpoints/checkpoint_best.pt --langs fr --out without_fr.pt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("checkpoint", type=Path, metavar="CK", help="checkpoint with adapters")
    parser.add_argument("--langs", required=True, metavar="A,B", help="languages to remove")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="checkpoint to write")
    add_base_flag(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")


def run(args: argparse.Namespace) -> int:
    """Writes the checkpoint and prints which languages it has."""
    from langspec_lora.adapters.edit import remove_languages
    from langspec_lora.checkpoints.stored_model import StoredModel

    with collect_errors() as errors:
        with errors.check():
            check_file(args.out, args.overwrite)
        with errors.check():
            names = names_of(args.langs, "--langs")
        with errors.check():
            stored = StoredModel.with_adapters(args.checkpoint, args.base_checkpoint)
            stored.check_base_is_found()
    adapters = remove_languages(stored.adapters, names)
    stored.write(adapters, args.out)
    show(f"written: {args.out}, with adapters for {some_of(adapters.languages.names)}")
    return 0
