"""``langspec-lora export``: writes a checkpoint's adapters, or the model of a direction, in another format."""

from __future__ import annotations

import argparse
from pathlib import Path

from langspec_lora.cli.written import print_written
from langspec_lora.convert import EXPORTS, carry_out
from langspec_lora.flags import add_base_flag

EXAMPLE = "checkpoints/checkpoint_best.pt --format adapter --out adapter"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("checkpoint", type=Path, metavar="CK", help="checkpoint with adapters")
    parser.add_argument("--format", choices=tuple(EXPORTS), required=True, help="format to write")
    parser.add_argument("--out", type=Path, required=True, metavar="PATH", help="file or folder to write")
    parser.add_argument("-s", "--source-lang", metavar="LANG", help="source language of the direction")
    parser.add_argument("-t", "--target-lang", metavar="LANG", help="target language of the direction")
    parser.add_argument("--all", action="store_true", help="for peft: write a folder for each direction in --out")
    parser.add_argument(
        "--fixed-dictionary",
        type=Path,
        metavar="FILE",
        help="for huggingface: dictionary of the model (default: found as by translate)",
    )
    parser.add_argument(
        "--sentencepiece-model",
        "--spm",
        type=Path,
        metavar="FILE",
        help="for huggingface: SentencePiece model of the model (default: found as by translate)",
    )
    add_base_flag(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace what --out holds")


def run(args: argparse.Namespace) -> int:
    """Exports and prints which files it wrote."""
    print_written(carry_out(EXPORTS, args.format, args))
    return 0
