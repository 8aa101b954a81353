"""Writes the model of one direction as a stock fairseq checkpoint, with the adapters merged into the weights."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from torch import Tensor

from langspec_lora.adapters.packed import Adapters
from langspec_lora.checkpoints.assembly import checkpoint_of, stock_arguments
from langspec_lora.checkpoints.outdated_arguments import replace_outdated, tell_replaced
from langspec_lora.checkpoints.stored_model import StoredModel
from langspec_lora.convert import DIRECTION, check_adapted, check_flags, check_one_direction
from langspec_lora.errors import collect_errors
from langspec_lora.files import check_file
from langspec_lora.lora import add_low_rank
from langspec_lora.tensor_files import write_checkpoint


def export(args: Namespace) -> list[Path]:
    """Writes a checkpoint of ``--source-lang`` to ``--target-lang`` that fairseq loads without this plugin."""
    with collect_errors() as errors:
        with errors.check():
            check_flags(args, "--format merged", takes=DIRECTION)
        with errors.check():
            check_one_direction(args, "--format merged")
        with errors.check():
            check_file(args.out, args.overwrite)
        model = StoredModel.with_adapters(args.checkpoint, args.base_checkpoint)
        with errors.check():
            model.check_base_is_found()
        check_adapted(args, model.adapters.languages)
    merged = merged_weights(model.base, model.adapters, args.source_lang, args.target_lang)
    stock = stock_arguments(model.args)
    tell_replaced(replace_outdated(stock))  # fairseq without this plugin would refuse them
    write_checkpoint(checkpoint_of(stock, {**model.base, **merged}), args.out)
    return [args.out]


def merged_weights(base: dict[str, Tensor], adapters: Adapters, source: str, target: str) -> dict[str, Tensor]:
    """The weights of the adapted linears for one direction, by fairseq's names.

    Args:
        base: the base model's entries.
        adapters: its adapters.
        source: the source language.
        target: the target language.

    Raises:
        UserError: a language or the direction has no adapter.
    """
    merged = {}
    for site in adapters.packed:
        name = f"{site.path}.weight"
        merged[name] = add_low_rank(base[name], *adapters.matrices(site, source, target), adapters.features)
    return merged
