"""Whether the adapter entries of a state are complete, have the model's shapes, and hold valid numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from langspec_lora.adapters.entries import (
    MASK_EPOCH,
    MATRIX_ENTRY,
    MIXTURE,
    MIXTURE_RATE,
    NO_WEIGHTS,
    is_adapter_entry,
    read_manifest,
)
from langspec_lora.errors import UserError
from langspec_lora.keys import check_directions, keys_of
from langspec_lora.languages import LanguageTable
from langspec_lora.naming import some_of, unlike
from langspec_lora.sites import DIRECTION, SHARED, SOURCE

_FLOATS = ("float32", "float16", "bfloat16", "float64")
_AGAIN = "download the file again, or use an earlier checkpoint of the training"


def check_adapters_are_whole(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], label: str
) -> None:
    """Checks that a checkpoint that was trained with adapters holds all of them.

    Args:
        found: shapes of the checkpoint's adapter entries, by name.
        expected: shapes of the entries that its arguments describe, by name.
        label: the checkpoint, for messages.

    Raises:
        UserError: entries are missing or unexpected.
    """
    if not check_entries(found, expected, label):
        raise UserError(f"{label} was trained with adapters but does not hold any; give a whole checkpoint")


def check_entries(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], label: str = "the checkpoint"
) -> bool:
    """Compares the adapters of a checkpoint with those of the model.

    Args:
        found: shapes of the checkpoint's adapter entries, by name.
        expected: shapes of the model's adapter entries, by name.
        label: the checkpoint, for messages.

    Returns:
        Whether the checkpoint holds adapters; False for a base checkpoint, which is valid too.

    Raises:
        UserError: adapters are missing, or the model does not have them.
    """
    present = {name for name in found if MATRIX_ENTRY.search(name)}
    if not present:
        return False
    if not expected:
        raise UserError(
            f"{label} holds adapters, but --add-lora False was given; leave it out, or give a base checkpoint"
        )
    extra = sorted(present - set(expected))
    missing = sorted(set(expected) - set(found))
    if missing:
        raise UserError(
            f"{label} holds only part of the adapters: {len(missing)} of {len(expected)} entries are missing, "
            f"{missing[0]} first; give a whole checkpoint, or the same layers and positions as in its training"
        )
    if extra:
        raise UserError(
            f"{label} holds adapters that the model does not have, {extra[0]} first; "
            "give the same --encoder/decoder-lora-layer and -position as in its training"
        )
    return True


def check_shapes(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], label: str = "the checkpoint"
) -> None:
    """Checks that the adapters of a checkpoint have the model's shapes.

    Raises:
        UserError: an adapter has another shape; the message names the first.
    """
    for name in sorted(expected):
        if (MATRIX_ENTRY.search(name) or name in MIXTURE) and tuple(found[name]) != tuple(expected[name]):
            raise UserError(
                f"{label} has {name} of shape {tuple(found[name])}, but the model has {tuple(expected[name])}; "
                "give the same ranks, --dim and languages as in its training"
            )


def check_dtypes(dtypes: Mapping[str, str], label: str = "the checkpoint") -> None:
    """Checks the types of the adapters' numbers: torch would convert any, complex numbers and integers too.

    Args:
        dtypes: names of torch's dtypes, such as ``float32``, of a model's entries.
        label: the checkpoint, for messages.

    Raises:
        UserError: an adapter holds other numbers than it can, or the matrices are not all of one dtype.
    """
    held: dict[str, str] = {}
    for name, dtype in dtypes.items():
        part = match[1] if (match := MATRIX_ENTRY.search(name)) else None
        numbers = ("int64",) if is_adapter_entry(name) else None
        expected = ("uint8",) if part == "mask" else _FLOATS if part or name in MIXTURE else numbers
        if expected is not None and dtype not in expected:
            raise UserError(f"{label} has {dtype} numbers in {name}; expected {' or '.join(expected)}; {_AGAIN}")
        if part in ("A", "B"):
            held.setdefault(dtype, name)
    if len(held) > 1:
        (one, first), (other, second) = list(held.items())[:2]
        raise UserError(f"{label} has {one} numbers in {first} but {other} in {second}; expected one type; {_AGAIN}")


def check_agreement(manifest: Tensor, stored: LanguageTable, label: str = "the checkpoint") -> None:
    """Checks that the two lists of languages that a checkpoint holds are the same.

    Args:
        manifest: the entry with the languages of the adapters.
        stored: the languages of the training's arguments.
        label: the checkpoint, for messages.

    Raises:
        UserError: they differ, or the manifest is damaged.
    """
    held = read_manifest(manifest)
    for what in ("names", "levels", "ranks", "groups", "group_ranks", "direction_ranks", "shared_rank"):
        one, other = (_as_list(getattr(table, what)) for table in (held, stored))
        if one != other:
            here, there = unlike(one, other, ",")
            raise UserError(
                f"{label} is damaged: its adapters' languages have the {what.replace('_', ' ')} {here}, but those of "
                f"its training have {there}; {_AGAIN}"
            )


def check_values(state: Mapping[str, Tensor], label: str = "the checkpoint") -> None:
    """Checks that the numbers of a model are finite, and its masks consistent.

    torch copies any number into any parameter, and fairseq's search skips NaN, so a damaged model still translates,
    into nothing or nonsense. Of the base, only vectors are checked (norms and biases): a training that diverged has
    damaged them too, and checking the matrices would take as long as reading them.

    Args:
        state: the model's entries.
        label: the checkpoint, for messages.

    Raises:
        UserError: a number is infinite or NaN; an adapter holds numbers of another type than it can; a mask holds
            numbers other than 0 and 1, or an entry that the mask prunes is not zero.
    """
    again = _AGAIN
    check_dtypes({name: str(value.dtype).removeprefix("torch.") for name, value in state.items()}, label)
    if MASK_EPOCH in state and not (state[MASK_EPOCH].numel() == 1 and 0 <= int(state[MASK_EPOCH]) < 2**31):
        raise UserError(f"{label} has no epoch in {MASK_EPOCH}; {again}")
    if MIXTURE_RATE in state and not (state[MIXTURE_RATE] > 0).all():
        raise UserError(f"{label} has no learning rate above 0 in {MIXTURE_RATE}; {again}")
    for name, value in state.items():
        if name.endswith(NO_WEIGHTS):
            continue
        part = match[1] if (match := MATRIX_ENTRY.search(name)) else None
        if part == "mask":
            matrix = state.get(f"{name.removesuffix('mask')}B")
            if not ((value == 0) | (value == 1)).all():
                raise UserError(f"{label} has numbers other than 0 and 1 in {name}; {again}")
            if matrix is not None and matrix.shape == value.shape and matrix[value == 0].any():
                raise UserError(
                    f"{label} has entries in {name.removesuffix('mask')}B that its mask prunes; {again} "
                    "(average checkpoints with 'langspec-lora average')"
                )
        elif (part is not None or value.dim() == 1 or name in MIXTURE) and not torch.isfinite(value).all():
            raise UserError(f"{label} has infinite numbers or NaN in {name}; {again}")


def check_languages(held: LanguageTable, wanted: LanguageTable, label: str = "the checkpoint") -> None:
    """Checks that a checkpoint has adapters for all wanted languages, with the wanted ranks.

    Raises:
        UserError: a language is missing, or has another rank.
    """
    unknown = [name for name in wanted.names if name not in held.names]
    if unknown:
        raise UserError(f"{label} has no adapters for {some_of(unknown)}; it knows {some_of(held.names)}")
    if bool(held.groups) != bool(wanted.groups):
        kinds = ["groups" if table.groups else "languages" for table in (held, wanted)]
        raise UserError(
            f"{label} has adapters of {kinds[0]}, but this command of {kinds[1]}; give the same --adapter-key"
        )
    group_of = dict(zip(held.names, held.groups, strict=False))
    for name, group in zip(wanted.names, wanted.groups, strict=False):
        if group_of[name] != group:
            raise UserError(f"{label} has {name} in group {group_of[name]}, but --lang-groups puts it into {group}")
    check_directions(held, [(pair.split("-")[0], pair.split("-")[1]) for pair in wanted.direction_ranks])
    for name, rank, other in _ranks_of_both(held, wanted):
        if other != rank:
            raise UserError(f"{label} has adapters of rank {other} for {name}, but rank {rank} was given; use {other}")


def _ranks_of_both(held: LanguageTable, wanted: LanguageTable) -> Iterator[tuple[str, int, int]]:
    """Name, wanted rank and rank in the checkpoint of every wanted key."""
    for side in (SOURCE, DIRECTION, SHARED):
        there = keys_of(held, side)
        ranks = dict(zip(there.names, there.ranks, strict=True))
        keys = keys_of(wanted, side)
        for name, rank in zip(keys.names, keys.ranks, strict=True):
            if rank and ranks[name]:
                yield name, rank, ranks[name]


def _as_list(values: Any) -> tuple:
    """Ranks by name as texts, and a single number, as a list."""
    if isinstance(values, Mapping):
        return tuple(f"{name}: {value}" for name, value in values.items())
    return tuple(values) if isinstance(values, (list, tuple)) else (values,)
