"""``langspec-lora defaults``: what the scripts take where they are not told, as lines ``NAME=VALUE``."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

HELP = "print the languages, directions and sizes that scripts/train.sh and evaluate.sh take from data and model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("data_bin", type=Path, metavar="DATA_BIN", help="binarised folder")
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--base", type=Path, metavar="FILE", help="of a training: the model to fine-tune")
    model.add_argument("--checkpoint", type=Path, metavar="FILE", help="of an evaluation: the model to evaluate")
    parser.add_argument("--langs", metavar="A,B,…", help="the languages, where they are given")
    parser.add_argument("--lang-pairs", metavar="A-B,…", help="the directions, or a file of them, likewise")
    parser.add_argument(
        "--references",
        metavar="DIR",
        help="of an evaluation: folder with test.LANG, or the word data for the targets in the data",
    )
    parser.add_argument("--lang-resources", metavar="FILE", help="YAML file of levels: its order of the languages")


def run(args: argparse.Namespace) -> int:
    """Prints them; what is left out goes to the standard error."""
    logging.getLogger("fairseq").setLevel(logging.WARNING)
    from langspec_lora.tasks.defaults import evaluation_defaults, training_defaults

    given = (args.langs, args.lang_pairs)
    if args.base is not None:
        found = training_defaults(args.data_bin, args.base, *given, args.lang_resources)
    else:
        found = evaluation_defaults(args.data_bin, args.checkpoint, *given, args.references)
    for note in found.notes:
        print(f"langspec-lora: note: {note}", file=sys.stderr)
    for name, value in found.values.items():
        print(f"{name}={value}")
    return 0
