"""``langspec-lora prepare-flores``: FLORES-101 as data for the published commands."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path

HELP = "make binarised data for all directions of a set of languages from FLORES-101"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument(
        "--languages",
        required=True,
        metavar="FILE",
        help="YAML file of languages with their FLORES codes, such as configs/languages/twelve.yaml",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to make; run again, it goes on")
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="DIR",
        help="unpacked archive, with dev/CODE.dev and devtest/CODE.devtest (default: the official one, downloaded)",
    )
    parser.add_argument("--spm", type=Path, metavar="FILE", help="the model's SentencePiece model (default: trained)")
    parser.add_argument("--dict", type=Path, dest="dictionary", metavar="FILE", help="the dictionary that goes with it")
    parser.add_argument(
        "--vocab-size",
        type=int,
        default=8000,
        metavar="N",
        help="size of the SentencePiece model that is trained, on the training side only (default: 8000)",
    )
    parser.add_argument(
        "--valid-lines",
        type=int,
        default=100,
        metavar="N",
        help="devtest lines 1 to N are the validation set (default: 100); all of devtest is the test set",
    )


def run(args: argparse.Namespace) -> int:
    """Makes the folder and says what it holds."""
    logging.getLogger("fairseq").setLevel(logging.WARNING)
    from langspec_lora.data.flores import prepare
    from langspec_lora.languages import read_resources

    started = time.monotonic()
    resources = read_resources(args.languages)
    prepared = prepare(
        args.out,
        resources,
        args.source,
        args.spm,
        args.dictionary,
        args.vocab_size,
        args.valid_lines,
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    names = ",".join(resources.levels)
    if prepared.summary is None:
        print(f"{prepared.data_bin}: all is there, made from the same text and settings")
    else:
        summary = prepared.summary
        print(
            f"{prepared.data_bin}: {len(resources.levels)} languages, {summary.names // 2:,} bitexts from "
            f"{summary.sides} sides written once; {summary.sentences:,} sentences, {summary.tokens:,} tokens, "
            f"{summary.unknown / summary.tokens:.2%} unknown; {time.monotonic() - started:.0f} s"
        )
    print(f"dictionary: {prepared.vocabulary:,} entries")
    print(
        f"train: dev; valid: devtest lines 1 to {args.valid_lines}; test: all of devtest "
        "(so the validation lines are test lines too)"
    )
    print(f"--langs {names}")
    for note in prepared.notes:
        print(f"note: {note}")
    return 0
