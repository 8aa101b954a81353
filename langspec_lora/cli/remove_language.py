"""``langspec-lora remove-language``: a checkpoint without the pairs of some languages."""

from __future__ import annotations

import argparse
from pathlib import Path

from langspec_lora.flags import add_base_flag
from langspec_lora.values import names_of

HELP = "leave languages out of a checkpoint's adapters"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("checkpoint", type=Path, metavar="CK", help="checkpoint with adapters")
    parser.add_argument("--langs", required=True, metavar="A,B", help="the languages to leave out")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the checkpoint to write")
    add_base_flag(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")


def run(args: argparse.Namespace) -> int:
    """Writes the checkpoint and says which languages it has."""
    from langspec_lora.adapters.edit import remove_languages
    from langspec_lora.checkpoints.stored_model import StoredModel
    from langspec_lora.files import check_file

    check_file(args.out, args.overwrite)
    source = StoredModel(args.checkpoint, args.base_checkpoint)
    adapters = remove_languages(source.adapters, names_of(args.langs, "--langs"))
    source.write(adapters, args.out)
    print(f"written: {args.out}, with pairs for {', '.join(adapters.languages.names)}")
    return 0
