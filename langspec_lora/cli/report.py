"""``langspec-lora report``: the table by resource group and the heat maps of one or more evaluations."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "table by resource group and heat maps of one or more evaluations"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="results folders; the first is the base")
    parser.add_argument("--names", metavar="A,B", help="what the folders are called (default: the folders' names)")
    parser.add_argument(
        "--lang-resources", metavar="FILE", help="YAML file of levels and languages (default: the paper's twelve)"
    )
    parser.add_argument("--metric", choices=("bleu", "chrf"), default="bleu", help="score to report (default: bleu)")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where to write (default: DIR, or 'report' beside the first of several)"
    )


def run(args: argparse.Namespace) -> int:
    """Writes the report and prints its table."""
    from langspec_lora.evaluation.report import write_report
    from langspec_lora.languages import PAPER_RESOURCES, read_resources

    resources = read_resources(args.lang_resources) if args.lang_resources else PAPER_RESOURCES
    out = args.out or (args.folders[0] if len(args.folders) == 1 else args.folders[0].resolve().parent / "report")
    names = args.names.split(",") if args.names else None
    report = write_report(args.folders, resources.levels, out, names, args.metric)
    print(report.table)
    print(*(f"  {note}" for note in report.notes), sep="\n")
    print("written:", *(f"  {path}" for path in report.files), sep="\n")
    return 0
