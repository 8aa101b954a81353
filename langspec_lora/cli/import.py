"""``langspec-lora import``: a fairseq checkpoint from another format."""

from __future__ import annotations

import argparse
from pathlib import Path

from langspec_lora.checkpoints.formats import IMPORTS, carry_out

HELP = "make a checkpoint from an adapter folder, or from one of the released implementation"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("path", type=Path, metavar="PATH", help="the file or folder to import")
    parser.add_argument("--from", dest="format", choices=tuple(IMPORTS), required=True, help="what it is")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the checkpoint to write")
    parser.add_argument("--base", type=Path, metavar="CK", help="checkpoint of the base model that adapters belong to")
    parser.add_argument("--langs", metavar="A,B", help="languages by their ids (default: as the checkpoint says)")
    parser.add_argument(
        "--lang-resources", metavar="FILE", help="YAML file of levels and languages (default: the paper's twelve)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")


def run(args: argparse.Namespace) -> int:
    """Imports and prints what was written."""
    for path in carry_out(IMPORTS, args.format, args):
        print(f"written: {path} ({path.stat().st_size / 1e6:.1f} MB)")
    return 0
