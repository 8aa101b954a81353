"""``langspec-lora inspect``: what a checkpoint or an adapter folder holds."""

# Imports in functions: they keep torch out of --help.

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from langspec_lora.errors import collect_errors
from langspec_lora.files import check_folder
from langspec_lora.flags import add_base_flag
from langspec_lora.notes import show, show_json

EXAMPLE = "checkpoints/checkpoint_best.pt --out pictures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("path", type=Path, metavar="CK", help="checkpoint, or adapter folder")
    parser.add_argument(
        "--json", action="store_true", help="print JSON, with every adapter at every site, for other programs"
    )
    add_base_flag(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for heat maps of what survives, as PNG and SVG")


def run(args: argparse.Namespace) -> int:
    """Prints what the file holds, and draws it."""
    from langspec_lora.report.inspection import as_text, draw_survival, inspect

    with collect_errors() as errors:
        with errors.check():
            if args.out is not None:
                check_folder(args.out, (), overwrite=True)
        found = inspect(args.path, args.base_checkpoint)
    if args.json:
        show_json(found.content)
    else:
        show(as_text(found))
    if args.out is not None:
        show("\nwritten:", *(f"  {path}" for path in draw_survival(found, args.out)), file=sys.stderr)
    return 0
