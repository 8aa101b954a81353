"""``langspec-lora make-example``: makes the built-in example's text, SentencePiece model and binarised data."""

# Imports in functions: they keep NumPy out of --help.

from __future__ import annotations

import argparse
import time
from pathlib import Path

from langspec_lora.example.corpus import SIZES
from langspec_lora.example.grammar import CODES, LANGUAGES
from langspec_lora.naming import some_of
from langspec_lora.notes import show

EXAMPLE = "example"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to make; an earlier run's folder is kept")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="seed for drawing the sentences")


def run(args: argparse.Namespace) -> int:
    """Makes the folder and prints what it holds."""
    from langspec_lora.example.build import make_example

    started = time.monotonic()
    if not make_example(args.out, seed=args.seed):
        show(f"{args.out}: complete, made with the same settings")
        return 0
    levels = {level: [one.code for one in LANGUAGES if one.level == level] for level in ("high", "med", "low")}
    show("; ".join(f"{level}: {' '.join(codes)}" for level, codes in levels.items()))
    show(some_of(f"sentence pairs per {levels} language pair: {count}" for levels, count in SIZES.pretrain.items()))
    show(f"multi-parallel in {len(CODES)} languages: {SIZES.finetune} train, {SIZES.valid} valid, {SIZES.test} test")
    show(f"{args.out}: made in {time.monotonic() - started:.0f} s")
    return 0
