"""``langspec-lora import``: a fairseq checkpoint from another format."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from langspec_lora.cli.written import print_written
from langspec_lora.convert import IMPORTS, carry_out
from langspec_lora.flags import add_base_flag
from langspec_lora.sites import POSITIONS

HELP = "make a checkpoint from an adapter folder, the released implementation, Hugging Face or PEFT"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("path", type=Path, metavar="PATH", help="the file or folder to import")
    parser.add_argument("--from", dest="format", choices=tuple(IMPORTS), required=True, help="what it is")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="PATH",
        help="the checkpoint, or for huggingface the folder, to write",
    )
    parser.add_argument("--base", type=Path, metavar="CK", help="checkpoint of the base model that adapters belong to")
    add_base_flag(parser)
    parser.add_argument(
        "--langs", metavar="A,B", help="of format lslo: languages to take over (default: those of the training)"
    )
    parser.add_argument(
        "--lang-resources", metavar="FILE", help="YAML file of levels and languages (default: the paper's twelve)"
    )
    parser.add_argument("-s", "--source-lang", metavar="LANG", help="of format peft: source language of the LoRA")
    parser.add_argument("-t", "--target-lang", metavar="LANG", help="its target language")
    for stack in POSITIONS:
        parser.add_argument(
            f"--{stack}-activation-direction",
            metavar="src_…_tgt",
            help=f"of format peft: for each {stack} layer, whose pair its LoRA becomes (default: as in training)",
        )
    parser.add_argument(
        "--sentencepiece-model",
        "--spm",
        type=Path,
        metavar="FILE",
        help="of format huggingface: the SentencePiece model, where the folder has none",
    )
    parser.add_argument(
        "--added-languages",
        metavar="A,B",
        help="of format huggingface: which tokens that were added to the tokenizer are languages, or none (default: "
        "those that are built like a language's code)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")


def run(args: argparse.Namespace) -> int:
    """Imports and prints what was written."""
    # Before fairseq sets up logging of its own.
    logging.basicConfig(level=logging.WARNING, format="langspec-lora: %(message)s", stream=sys.stderr)
    print_written(carry_out(IMPORTS, args.format, args))
    return 0
