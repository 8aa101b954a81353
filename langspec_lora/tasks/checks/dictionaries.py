"""The dictionaries of sources and targets: which flags give them, and whether one matrix can serve both."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from langspec_lora.errors import UserError


def check_dictionary_flags(args: Namespace) -> None:
    """Checks the flags that name dictionaries, before these are read.

    Args:
        args: the task's arguments.

    Raises:
        UserError: two flags name the same dictionary; fairseq would read one and look for the other.
    """
    for name in ("source_dict", "target_dict"):
        path = getattr(args, name, None)
        if path is not None and args.fixed_dictionary is not None:
            raise UserError(
                f"--{name.replace('_', '-')} {path} and --fixed-dictionary {args.fixed_dictionary} were both given; "
                "give one dictionary for all languages, or one for sources and one for targets"
            )


def check_shared_embeddings(args: Namespace, source: Any, target: Any) -> None:
    """Checks that embeddings are shared only where the dictionaries are the same.

    Args:
        args: the arguments of the model.
        source: fairseq's dictionary of the sources.
        target: that of the targets.

    Raises:
        UserError: they differ.
    """
    if getattr(args, "share_all_embeddings", False) and source != target:
        raise UserError(
            f"--share-all-embeddings needs one dictionary for sources and targets, but --source-dict has "
            f"{len(source)} entries and --target-dict {len(target)}, or in another order; give one, or leave the flag "
            "out"
        )
