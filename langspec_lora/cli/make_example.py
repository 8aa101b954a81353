"""``langspec-lora make-example``: makes the built-in example's text, SentencePiece model and binarised data."""

# Imports in functions: they keep NumPy out of --help.

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

from langspec_lora.errors import UserError, collect_errors
from langspec_lora.example.corpus import SIZES, VOCABULARY
from langspec_lora.example.grammar import CODES, LANGUAGES
from langspec_lora.naming import some_of
from langspec_lora.notes import show

EXAMPLE = "example"

_SIZES = {
    "finetune": ("multi-parallel sentences to fine-tune on", 1, 10_000),
    "valid": ("held-out sentences for development", 1, 1_000),
    "test": ("held-out sentences for the test", 1, 1_000),
}
_LEAST_VOCABULARY = 300  # its characters and language tokens take part of it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to make; an earlier run's folder is kept")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="seed for drawing the sentences")
    for name, (what, least, most) in _SIZES.items():
        size = getattr(SIZES, name)
        flag = f"--{name}-lines"
        parser.add_argument(flag, type=int, default=size, metavar="N", help=f"{what}, {least} to {most:,}")
    parser.add_argument(
        "--vocab-size", type=int, default=VOCABULARY, metavar="N", help="largest size of the SentencePiece model"
    )


def run(args: argparse.Namespace) -> int:
    """Makes the folder and prints what it holds."""
    from langspec_lora.example.build import make_example

    started = time.monotonic()
    counts = {name: getattr(args, f"{name}_lines") for name in _SIZES}
    with collect_errors() as errors:
        for name, (_, least, most) in _SIZES.items():
            with errors.check():
                if not least <= counts[name] <= most:
                    raise UserError(f"--{name}-lines {counts[name]}: expected {least} to {most:,}")
        with errors.check():
            if args.vocab_size < _LEAST_VOCABULARY:
                raise UserError(f"--vocab-size {args.vocab_size}: expected at least {_LEAST_VOCABULARY}")
    sizes = replace(SIZES, **counts)
    if not make_example(args.out, sizes, args.seed, args.vocab_size):
        show(f"{args.out}: complete, made with the same settings")
        return 0
    levels = {level: [one.code for one in LANGUAGES if one.level == level] for level in ("high", "med", "low")}
    show("; ".join(f"{level}: {' '.join(codes)}" for level, codes in levels.items()))
    show(some_of(f"sentence pairs per {levels} language pair: {count}" for levels, count in sizes.pretrain.items()))
    show(f"multi-parallel in {len(CODES)} languages: {sizes.finetune} train, {sizes.valid} valid, {sizes.test} test")
    show(f"{args.out}: made in {time.monotonic() - started:.0f} s")
    return 0
