"""``langspec-lora defaults``: prints the settings that the scripts derive from the data, as lines ``NAME=VALUE``."""

# Imports in functions: they keep torch out of --help.

from __future__ import annotations

import argparse
from pathlib import Path

from langspec_lora.notes import note

EXAMPLE = "data-bin --base m2m100/model.pt --langs en,fr"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("data_bin", type=Path, metavar="DATA_BIN", help="binarised folder")
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument(
        "--base", type=Path, metavar="FILE", help="print the settings of a training: the model to fine-tune"
    )
    model.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="print those of an evaluation: the model to evaluate"
    )
    parser.add_argument("--langs", metavar="A,B,…", help="languages (default: those of the data)")
    parser.add_argument(
        "--lang-pairs", metavar="A-B,…", help="directions, or a file of them (default: those of the data)"
    )
    parser.add_argument(
        "--references",
        metavar="DIR",
        help="for an evaluation: folder with test.LANG, or 'data' to use the binarised targets",
    )
    parser.add_argument(
        "--lang-resources",
        metavar="FILE",
        help="for a training: YAML file of levels; the languages get its order (default: the paper's)",
    )


def run(args: argparse.Namespace) -> int:
    """Prints the settings; notes on what was left out go to the standard error."""
    from langspec_lora.tasks.defaults import evaluation_defaults, training_defaults

    given = (args.langs, args.lang_pairs)
    if args.base is not None:
        found = training_defaults(args.data_bin, args.base, *given, args.lang_resources)
    else:
        found = evaluation_defaults(args.data_bin, args.checkpoint, *given, args.references)
    for text in found.notes:
        note(f"note: {text}")
    for name, value in found.values.items():
        print(f"{name}={value}")
    return 0
