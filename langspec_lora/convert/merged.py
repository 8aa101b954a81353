"""One direction's model as a plain checkpoint of stock fairseq: the adapters added to the weights."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from torch import Tensor

from langspec_lora.adapters.packed import Adapters
from langspec_lora.checkpoints.arguments import stock_arguments
from langspec_lora.checkpoints.assembly import checkpoint_of
from langspec_lora.checkpoints.outdated_arguments import replace_outdated, tell_replaced
from langspec_lora.checkpoints.stored_model import StoredModel
from langspec_lora.convert import HUGGINGFACE_EXPORT, check_flags, check_one_direction
from langspec_lora.files import check_file
from langspec_lora.lora import add_low_rank
from langspec_lora.sites import SOURCE
from langspec_lora.tensor_files import write_checkpoint


def export(args: Namespace) -> list[Path]:
    """Writes a checkpoint that fairseq loads without this plugin, for ``--source-lang`` to ``--target-lang``."""
    check_flags(args, "--format merged", {}, HUGGINGFACE_EXPORT)
    check_one_direction(args, "--format merged")
    check_file(args.out, args.overwrite)
    source = StoredModel(args.checkpoint, args.base_checkpoint)
    merged = merged_weights(source.base, source.adapters, args.source_lang, args.target_lang)
    stock = stock_arguments(source.args)
    tell_replaced(replace_outdated(stock))  # fairseq without this plugin would end there
    write_checkpoint(checkpoint_of(stock, {**source.base, **merged}), args.out)
    return [args.out]


def merged_weights(base: dict[str, Tensor], adapters: Adapters, source: str, target: str) -> dict[str, Tensor]:
    """The adapted weights of one direction, by their names in the base model.

    Args:
        base: entries of the base model.
        adapters: its adapters.
        source: name of the source language.
        target: name of the target language.

    Raises:
        UserError: a language has no adapters.
    """
    merged = {}
    for site in adapters.packed:
        name = f"{site.path}.weight"
        language = source if adapters.side(site) == SOURCE else target
        merged[name] = add_low_rank(base[name], *adapters.matrices(site, language), adapters.features)
    return merged
