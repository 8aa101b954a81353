"""Whether entries of a state are the adapters of a model: all of them, of its sizes, with possible numbers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from langspec_lora.adapters.entries import (
    _PAIR_ENTRY,
    NO_WEIGHTS,
)
from langspec_lora.errors import UserError
from langspec_lora.languages import LanguageTable


def check_adapters_are_whole(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], source: str
) -> None:
    """Makes sure that a checkpoint which was trained with adapters holds them all.

    Args:
        found: shapes of the checkpoint's adapter entries, by name.
        expected: shapes of those that its arguments say, by name.
        source: how to call the checkpoint in a message.

    Raises:
        UserError: some or all of them are missing, or there are others.
    """
    if not check_entries(found, expected, source):
        raise UserError(f"{source} was trained with adapters but holds none; give a whole checkpoint")


def check_entries(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], source: str = "the checkpoint"
) -> bool:
    """Compares the adapters that a checkpoint holds with those that the model wants.

    Args:
        found: shapes of the checkpoint's adapter entries, by name.
        expected: shapes of the model's adapter entries, by name.
        source: how to call the checkpoint in a message.

    Returns:
        Whether the checkpoint holds adapters; False for a base checkpoint, which is fine.

    Raises:
        UserError: it holds only part of them, or others than the model has.
    """
    present = {name for name in found if _PAIR_ENTRY.search(name)}
    if not present:
        return False
    if not expected:
        raise UserError(
            f"{source} holds adapters, but --add-lora False was given; leave it out, or give a base checkpoint"
        )
    extra = sorted(present - set(expected))
    missing = sorted(set(expected) - set(found))
    if missing:
        raise UserError(
            f"{source} holds only part of the adapters: {len(missing)} of {len(expected)} entries are missing, "
            f"{missing[0]} first; give a whole checkpoint, or the same layers and positions as in its training"
        )
    if extra:
        raise UserError(
            f"{source} holds adapters that the model has not, {extra[0]} first; "
            "give the same --encoder/decoder-lora-layer and -position as in its training"
        )
    return True


def check_shapes(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], source: str = "the checkpoint"
) -> None:
    """Makes sure that the adapters of a checkpoint have the model's sizes.

    Raises:
        UserError: naming the first that has not.
    """
    for name in sorted(expected):
        if _PAIR_ENTRY.search(name) and tuple(found[name]) != tuple(expected[name]):
            raise UserError(
                f"{source} has {name} of size {tuple(found[name])}, the model {tuple(expected[name])}; "
                "give the same ranks, --dim and languages as in its training"
            )


def check_values(state: Mapping[str, Tensor], source: str = "the checkpoint") -> None:
    """Makes sure that the numbers of a model can be numbers of a model.

    torch copies any number into any parameter, and fairseq's search passes over NaN: a damaged model translates, into
    nothing or nonsense. Of the base the vectors are looked at (norms and biases), which a training that diverged spoils
    with all the rest; its matrices would take as long as reading them.

    Args:
        state: the model's entries.
        source: how to call the checkpoint in a message.

    Raises:
        UserError: a number is infinite or none; an adapter holds whole numbers; a mask holds others than 0 and 1, or
            says that an entry is pruned which is there.
    """
    again = "take the file from its source again, or an earlier checkpoint of the training"
    for name, value in state.items():
        if name.endswith(NO_WEIGHTS):
            continue
        part = match[1] if (match := _PAIR_ENTRY.search(name)) else None
        if part == "mask":
            matrix = state.get(f"{name.removesuffix('mask')}B")
            if not ((value == 0) | (value == 1)).all():
                raise UserError(f"{source} has numbers other than 0 and 1 in {name}; {again}")
            if matrix is not None and matrix.shape == value.shape and matrix[value == 0].any():
                raise UserError(
                    f"{source} has entries in {name.removesuffix('mask')}B that its mask says are pruned; {again} "
                    "(an average of checkpoints is taken by 'langspec-lora average')"
                )
        elif part is not None and not value.is_floating_point():
            raise UserError(f"{source} has whole numbers in {name}; {again}")
        elif (part is not None or value.dim() == 1) and not torch.isfinite(value).all():
            raise UserError(f"{source} has numbers in {name} that are infinite or none (NaN); {again}")


def check_languages(held: LanguageTable, wanted: LanguageTable, source: str = "the checkpoint") -> None:
    """Makes sure that a checkpoint has adapters for all wanted languages, of the wanted ranks.

    Raises:
        UserError: it lacks a language, or has one at another rank.
    """
    unknown = [name for name in wanted.names if name not in held.names]
    if unknown:
        raise UserError(f"{source} has no adapters for {', '.join(unknown)}; it knows {', '.join(held.names)}")
    for name, rank in zip(wanted.names, wanted.ranks, strict=True):
        other = held.ranks[held.names.index(name)]
        if other != rank:
            raise UserError(f"{source} has adapters of rank {other} for {name}, but rank {rank} was given; use {other}")
