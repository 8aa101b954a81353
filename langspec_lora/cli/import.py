"""``langspec-lora import``: makes a fairseq checkpoint from another format."""

from __future__ import annotations

import argparse
from pathlib import Path

from langspec_lora.cli.written import print_written
from langspec_lora.convert import IMPORTS, carry_out
from langspec_lora.flags import add_base_flag
from langspec_lora.sites import POSITIONS

EXAMPLE = "adapter --from adapter --base m2m100/model.pt --out imported.pt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("path", type=Path, metavar="PATH", help="file or folder to import")
    parser.add_argument("--from", dest="format", choices=tuple(IMPORTS), required=True, help="format of PATH")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="PATH",
        help="checkpoint to write; for huggingface a folder",
    )
    parser.add_argument("--base", type=Path, metavar="CK", help="checkpoint of the base model of the adapters")
    add_base_flag(parser)
    parser.add_argument("--langs", metavar="A,B", help="for lslo: languages to import (default: all)")
    parser.add_argument(
        "--lang-resources", metavar="FILE", help="YAML file of levels and languages (default: the paper's twelve)"
    )
    parser.add_argument("-s", "--source-lang", metavar="LANG", help="for peft: source language of the LoRA")
    parser.add_argument("-t", "--target-lang", metavar="LANG", help="for peft: target language of the LoRA")
    for stack in POSITIONS:
        parser.add_argument(
            f"--{stack}-activation-direction",
            metavar="src_…_tgt",
            help=f"for peft: the side, src or tgt, of the LoRA in each {stack} layer (default: as in training)",
        )
    parser.add_argument(
        "--sentencepiece-model",
        "--spm",
        type=Path,
        metavar="FILE",
        help="for huggingface: SentencePiece model, if the folder has none",
    )
    parser.add_argument(
        "--added-languages",
        metavar="A,B",
        help="for huggingface: which of the tokens added to the tokenizer are languages, or none (default: those that "
        "look like a language code)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what --out holds")


def run(args: argparse.Namespace) -> int:
    """Imports and prints which files it wrote."""
    print_written(carry_out(IMPORTS, args.format, args))
    return 0
