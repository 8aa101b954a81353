"""The flags of ``langspec-lora evaluate`` and ``translate``: which model, and how it generates."""

from __future__ import annotations

import argparse
from pathlib import Path

from langspec_lora.flags import add_base_flag


def add_model_flags(parser: argparse.ArgumentParser, dictionary: str) -> None:
    """Adds what the model is besides its checkpoint.

    Args:
        parser: the command's.
        dictionary: says which dictionary is the default.
    """
    model = parser.add_argument_group("model")
    model.add_argument("--fixed-dictionary", type=Path, metavar="FILE", help=f"dictionary ({dictionary})")
    add_base_flag(model)
    model.add_argument(
        "--encoder-langtok", choices=("src", "tgt", "none"), help="default: as the checkpoint was trained"
    )
    model.add_argument("--decoder-langtok", choices=("yes", "no"), help="default: as the checkpoint was trained")
    precision = model.add_mutually_exclusive_group()
    precision.add_argument("--fp16", action="store_true", help="half precision (GPU)")
    precision.add_argument("--bf16", action="store_true", help="bfloat16")
    model.add_argument("--cpu", action="store_true", help="do not use a GPU")


def add_generation_flags(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Adds what decides the hypotheses, with fairseq-generate's names and defaults.

    Returns:
        The group, for flags of one command.
    """
    generation = parser.add_argument_group("generation")
    add = generation.add_argument
    add("--beam", type=int, default=5, metavar="N", help="beam size (default: 5)")
    add("--lenpen", type=float, default=1.0, metavar="X", help="length penalty (default: 1)")
    add("--unkpen", type=float, default=0.0, metavar="X", help="unknown word penalty (default: 0)")
    add(
        "--max-len-a",
        type=float,
        default=0.0,
        metavar="A",
        help="at most A x + B tokens for a source of x (default: 0)",
    )
    add("--max-len-b", type=int, default=200, metavar="B", help="(default: 200)")
    add("--min-len", type=int, default=1, metavar="N", help="at least N tokens (default: 1)")
    add("--no-repeat-ngram-size", type=int, default=0, metavar="N", help="no n-gram of this size twice (default: off)")
    add("--temperature", type=float, default=1.0, metavar="X", help="(default: 1)")
    add("--unnormalized", action="store_true", help="compare scores without dividing by length")
    add("--match-source-len", action="store_true", help="as many tokens as the source has")
    add("--sampling", action="store_true", help="draw tokens in place of beam search")
    add("--sampling-topk", type=int, default=-1, metavar="K", help="draw from the K likeliest (default: from all)")
    add("--sampling-topp", type=float, default=-1.0, metavar="P", help="draw from the likeliest that make up P")
    add("--diverse-beam-groups", type=int, default=-1, metavar="N", help="groups of diverse beam search (default: off)")
    add("--diverse-beam-strength", type=float, default=0.5, metavar="X", help="its penalty (default: 0.5)")
    add("--diversity-rate", type=float, default=-1.0, metavar="X", help="diverse siblings' penalty (default: off)")
    add("--retain-dropout", action="store_true", help="leave dropout on")
    add("--seed", type=int, default=1, metavar="N", help="of what is drawn (default: 1)")
    add("--max-tokens", type=int, default=12000, metavar="N", help="tokens in a batch (default: 12000)")
    add("--batch-size", type=int, metavar="N", help="sentences in a batch at most (default: no limit)")
    return generation


def precision(args: argparse.Namespace) -> str:
    """``fp32``, ``fp16`` or ``bf16``."""
    return "fp16" if args.fp16 else "bf16" if args.bf16 else "fp32"


def decoder_langtok(args: argparse.Namespace) -> bool | None:
    """Whether targets start with their language token; None where the checkpoint says it."""
    return None if args.decoder_langtok is None else args.decoder_langtok == "yes"
