"""``langspec-lora prepare-flores``: binarises FLORES-101 for the published commands."""

# Imports in functions: they keep NumPy out of --help.

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

from langspec_lora.errors import collect_errors
from langspec_lora.notes import note, show
from langspec_lora.resources import read_resources

EXAMPLE = "--languages configs/languages/twelve.yaml --out flores12"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument(
        "--languages",
        required=True,
        metavar="FILE",
        help="YAML file of languages with their FLORES codes, such as configs/languages/twelve.yaml",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to make; a second run continues")
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="DIR",
        help="unpacked archive, with dev/CODE.dev and devtest/CODE.devtest (default: download the official one)",
    )
    parser.add_argument(
        "--spm", type=Path, metavar="FILE", help="SentencePiece model of the model to fine-tune (default: train one)"
    )
    parser.add_argument("--dict", type=Path, dest="dictionary", metavar="FILE", help="dictionary that belongs to --spm")
    parser.add_argument(
        "--vocab-size",
        type=int,
        default=8000,
        metavar="N",
        help="size of the SentencePiece model, if one is trained (on dev only)",
    )
    parser.add_argument(
        "--valid-lines",
        type=int,
        default=100,
        metavar="N",
        help="use devtest lines 1 to N as validation set; all of devtest is the test set",
    )
    parser.add_argument(
        "--apart",
        action="store_true",
        help="leave the validation lines out of the test set; for choices by validation",
    )


def run(args: argparse.Namespace) -> int:
    """Makes the folder and prints what it holds."""
    from langspec_lora.cli.next_commands import NextData, next_commands
    from langspec_lora.data.binarise import SHARED
    from langspec_lora.data.flores import PAIRS, check_options, flores_codes, prepare
    from langspec_lora.data.headers import count_sentences

    started = time.monotonic()
    with collect_errors() as errors:
        with errors.check():
            resources = read_resources(args.languages)
            flores_codes(resources)
        check_options(args.source, args.spm, args.dictionary, args.vocab_size, args.valid_lines)
    prepared = prepare(
        args.out,
        resources,
        args.source,
        args.spm,
        args.dictionary,
        args.vocab_size,
        args.valid_lines,
        say=note,
        apart=args.apart,
    )
    names = ",".join(resources.levels)
    if prepared.summary is None:
        show(f"{prepared.data_bin}: complete, made from the same text and settings")
    else:
        summary = prepared.summary
        show(
            f"{prepared.data_bin}: {len(resources.levels)} languages, {summary.names // 2:,} bitexts from "
            f"{summary.sides} sides written once; {summary.sentences:,} sentences, {summary.tokens:,} tokens, "
            f"{summary.unknown / summary.tokens:.2%} unknown; {time.monotonic() - started:.0f} s"
        )
    show(f"dictionary: {prepared.vocabulary:,} entries")
    test = (
        "test: the other lines of devtest"
        if args.apart
        else "test: all of devtest (so the validation lines are test lines too)"
    )
    show(f"train: dev; valid: devtest lines 1 to {args.valid_lines}; {test}")
    show(f"--langs {names}")
    for text in prepared.notes:
        show(f"note: {text}")
    languages = list(resources.levels)
    side = next((prepared.data_bin / SHARED).glob(f"train.{languages[0]}.*.idx")).with_suffix("")
    data = NextData(
        data_bin=prepared.data_bin,
        out=args.out,
        languages=languages,
        lines=(count_sentences(str(side)) or 0) * math.comb(len(languages), 2),
        levels=Path(args.languages),
        pairs=args.out / PAIRS,
        dictionary=args.dictionary,
        has_test=True,
    )
    show("", "# Next commands, from this folder:", next_commands(data))
    return 0
