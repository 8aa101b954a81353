"""``langspec-lora ranks``: the ranks at which different adapters have equally many parameters."""

# Imports in functions: they keep torch out of --help.

from __future__ import annotations

import argparse
from argparse import Namespace
from pathlib import Path
from typing import Any

from langspec_lora.errors import UserError, collect_errors
from langspec_lora.flags import AdapterFlags
from langspec_lora.notes import show
from langspec_lora.settings import add_flags, check_values
from langspec_lora.sizes import M2M100
from langspec_lora.values import content_of, number_of_parameters

EXAMPLE = "--budget 15.4M --langs en,fr,it,de,nl,zh,ja,ko,oc,or,sd,wo --dim 1024"

_LEFT_OUT = (
    *("add_lora", "freeze_original_parameters", "train_parts", "train_languages", "adapter_key", "shared_rank"),
    *("save_adapters_only", "language_num", "lora_init"),
    *("lora_alpha", "lora_scaling", "lora_dropout"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("--budget", required=True, metavar="N", help="trainable parameters, such as 15M or 300k")
    model = parser.add_mutually_exclusive_group()
    model.add_argument(
        "--arch",
        default="langspec_m2m100_lora_base",
        choices=tuple(M2M100),
        help="size of the model (default: %(default)s)",
    )
    model.add_argument("--base", type=Path, metavar="FILE", help="checkpoint whose size to take")
    parser.add_argument("--langs", required=True, metavar="A,B,…", help="languages")
    parser.add_argument(
        "--lang-pairs", metavar="A-B,…", help="directions, or a file of them, for an adapter of each direction"
    )
    add_flags(parser, AdapterFlags, without=_LEFT_OUT)


def run(args: argparse.Namespace) -> int:
    """Prints a line for each kind of adapters: their parameters, their share of the budget, their flags."""
    from langspec_lora.adapters.budget import fit_ranks

    with collect_errors() as errors:
        with errors.check():
            budget = number_of_parameters(args.budget, "--budget")
        with errors.check():
            check_values(args)
        with errors.check():
            sizes = _sizes(args)
        with errors.check():
            pairs = content_of(args.lang_pairs) if args.lang_pairs else None
    flags = {**vars(AdapterFlags()), **vars(args), **sizes, "lang_pairs": pairs, "lang_groups": None}
    given = Namespace(**flags)
    fits = fit_ranks(given, _variants(args), budget)
    widest = max(len(fit.variant.name) for fit in fits)
    for fit in fits:
        differing = {**fit.variant.flags, **fit.ranks}.items()
        words = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in differing if value is not None)
        share = f"{100 * fit.parameters / budget:6.1f} %"
        what = f"{share}  {words}" if fit.ranks else "       —   rank 1 exceeds the budget"
        show(f"{fit.variant.name:<{widest}}  {fit.parameters:>14,} {what}")
    return 0


def _sizes(args: argparse.Namespace) -> dict[str, Any]:
    if args.base is None:
        return M2M100[args.arch].arguments()
    from langspec_lora.checkpoints.outline import read_outline

    outline = read_outline(args.base)
    names = M2M100["langspec_m2m100_lora_base"].arguments()
    missing = [name for name in names if not hasattr(outline.model_args, name)]
    if missing:
        raise UserError(f"checkpoint {args.base} does not say its {missing[0]}; give its size as --arch")
    return {name: getattr(outline.model_args, name) for name in names}


def _variants(args: Namespace) -> list[Any]:
    from langspec_lora.adapters.budget import Variant
    from langspec_lora.sites import POSITIONS

    variants = [Variant("of languages", {})]
    if args.lang_groups:
        variants.append(Variant("of groups", {"adapter_key": "group", "lang_groups": args.lang_groups}))
    if args.lang_pairs:
        sides = {f"{stack}_activation_direction": None for stack in POSITIONS}
        variants.append(Variant("of directions", {"adapter_key": "direction", **sides}))
    variants.append(Variant("shared by all languages", {"adapter_key": "shared"}))
    for name, is_kept in (("FC layers", True), ("attention", False)):
        positions = {
            f"{stack}_lora_position": "_".join(p for p in POSITIONS[stack] if p.startswith("fc") == is_kept)
            for stack in POSITIONS
        }
        variants.append(Variant(f"of languages, {name} only", positions))
    return variants
