"""``langspec-lora export``: a checkpoint's adapters, or the model of a direction, in another format."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from langspec_lora.cli.written import print_written
from langspec_lora.convert import EXPORTS, carry_out
from langspec_lora.flags import add_base_flag

HELP = "write the adapters as one small file, or a direction as a model of fairseq, or for Hugging Face"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("checkpoint", type=Path, metavar="CK", help="checkpoint with adapters")
    parser.add_argument("--format", choices=tuple(EXPORTS), required=True, help="what to write")
    parser.add_argument("--out", type=Path, required=True, metavar="PATH", help="the file or folder to write")
    parser.add_argument("-s", "--source-lang", metavar="LANG", help="source language of the direction")
    parser.add_argument("-t", "--target-lang", metavar="LANG", help="its target language")
    parser.add_argument("--all", action="store_true", help="of format peft: a folder for each direction, below --out")
    parser.add_argument(
        "--fixed-dictionary",
        type=Path,
        metavar="FILE",
        help="of format huggingface: the model's dictionary, for the tokenizer (default: found as translate does)",
    )
    parser.add_argument(
        "--sentencepiece-model",
        "--spm",
        type=Path,
        metavar="FILE",
        help="and the SentencePiece model that belongs to it (default: likewise)",
    )
    add_base_flag(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")


def run(args: argparse.Namespace) -> int:
    """Exports and prints what was written."""
    # Before fairseq sets up logging of its own.
    logging.basicConfig(level=logging.WARNING, format="langspec-lora: %(message)s", stream=sys.stderr)
    print_written(carry_out(EXPORTS, args.format, args))
    return 0
