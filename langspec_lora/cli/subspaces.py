"""``langspec-lora subspaces``: how large a subspace each language needs, and the ranks that follow for a budget."""

# Imports in functions: they keep torch out of --help.

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from langspec_lora.errors import UserError, collect_errors
from langspec_lora.files import check_folder, whole_folder
from langspec_lora.notes import show, show_json
from langspec_lora.values import number_of_parameters

if TYPE_CHECKING:
    from langspec_lora.report.subspaces import Estimate

EXAMPLE = "seed1/checkpoint15.pt seed2/checkpoint15.pt --out subspaces"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument(
        "checkpoints",
        type=Path,
        nargs="+",
        metavar="CK",
        help="checkpoint or adapter folder; several of trainings that differ in --seed only give means and spreads",
    )
    parser.add_argument(
        "--budget",
        metavar="N",
        help="parameters that the suggested ranks may have, such as 15M (default: as many as its adapters have)",
    )
    parser.add_argument(
        "--keep",
        type=float,
        default=0.8,
        metavar="SHARE",
        help="share of what survives that the suggested positions, or layers, hold",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for the ranks as YAML, maps as PNG and SVG, and tables"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files in the folder")
    parser.add_argument("--json", action="store_true", help="print JSON, for other programs")


def run(args: argparse.Namespace) -> int:
    """Prints the estimate and the flags that follow from it, and writes its files."""
    from langspec_lora.report.subspace_tables import as_json, as_text
    from langspec_lora.report.subspaces import estimate

    budget = None
    with collect_errors() as errors:
        with errors.check():
            if args.budget is not None:
                budget = number_of_parameters(args.budget, "--budget")
        with errors.check():
            if not 0 < args.keep <= 1:
                raise UserError(f"--keep {args.keep:g}: expected a share above 0, up to 1, such as 0.8")
        with errors.check():
            if args.out is not None:
                from langspec_lora.report.subspace_files import FILES

                check_folder(args.out, FILES, args.overwrite)
        errors.raise_found()
        found = estimate(args.checkpoints, budget, args.keep)
    if args.json:
        show_json(as_json(found))
    else:
        show(as_text(found, args.out))
    if args.out is not None:
        _write(found, args.out, args.overwrite)
    return 0


def _write(found: Estimate, out: Path, overwrite: bool) -> None:
    from langspec_lora.report.subspace_files import FILES, write_files

    with whole_folder(out, FILES, overwrite) as partial:
        names = write_files(found, partial)
    show("\nwritten:", *(f"  {out / name}" for name in names), file=sys.stderr)
