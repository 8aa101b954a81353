"""``langspec-lora ablate``: what the adapters of a language, a layer or a position are worth."""

# Imports in functions: they keep torch and fairseq out of --help.

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from langspec_lora.ablation.options import AblationOptions
from langspec_lora.errors import collect_errors
from langspec_lora.generation import BatchLimits
from langspec_lora.inference.model_spec import ModelSpec
from langspec_lora.notes import show
from langspec_lora.settings import add_flags, read_flags

EXAMPLE = "checkpoints/checkpoint_best.pt data-bin --out ablation"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("checkpoint", type=Path, metavar="CK", help="checkpoint with adapters")
    parser.add_argument("data_bin", type=Path, metavar="DATA_BIN", help="binarised folder")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for tables as CSV and JSON, and heat maps")
    parser.add_argument("--json", action="store_true", help="print JSON, for other programs")
    add_flags(parser, AblationOptions)
    add_flags(parser.add_argument_group("model"), ModelSpec, without=("sentencepiece_model", "langs"))
    add_flags(parser.add_argument_group("batches"), BatchLimits)


def run(args: argparse.Namespace) -> int:
    """Measures, prints what was found, and writes it."""
    from langspec_lora.ablation.run import as_json, measure, prepare, write
    from langspec_lora.ablation.tables import as_text

    with collect_errors() as errors:
        limits = errors.attempt(lambda: read_flags(args, BatchLimits), BatchLimits())
        model = read_flags(args, ModelSpec, checkpoints=(args.checkpoint,), langs=())
        given = {"data_bin": args.data_bin, "model": model, "out": args.out, "limits": limits}
        options = errors.attempt(lambda: read_flags(args, AblationOptions, **given), AblationOptions(**given))
        ablation = prepare(options)
    found = measure(ablation)
    # Printed before it is written: where the disk is full, the terminal still has it.
    if args.json:
        print(as_json(found), end="")
    else:
        show(as_text(found))
    if options.out is not None:
        show("\nwritten:", *(f"  {path}" for path in write(found, options.out, options.overwrite)), file=sys.stderr)
    return 0
