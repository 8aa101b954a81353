"""The adapters' part of a model's state: which entries it has, whose they are, and how they find their language."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor

from langspec_lora.config import languages_from_json, languages_to_json
from langspec_lora.errors import UserError
from langspec_lora.languages import LanguageTable

Entry = TypeVar("Entry")

_PAIR_ENTRY = re.compile(r"\.lora_(A|B|mask)$")
_FAST_PATH_COPY = re.compile(r"^encoder\.layers\.\d+\.(in_proj|out_proj|fc1|fc2)_(weight|bias)$")
NO_WEIGHTS = ("._float_tensor", ".version")
"""How entries end that are none: one element of uninitialised memory; the format of an old fairseq."""
MANIFEST = "adapters.manifest"
MASK_EPOCH = "adapters.mask_epoch"
BASE = "adapters.base"


def is_adapter_entry(name: str) -> bool:
    """Whether an entry of a model's state belongs to the adapters."""
    return name in (MANIFEST, MASK_EPOCH, BASE) or _PAIR_ENTRY.search(name) is not None


def base_of(state: Mapping[str, Entry]) -> dict[str, Entry]:
    """The base model's entries of a model's state (or their shapes, by the same names).

    Adapters are left out, and so are the copies of weights that fairseq 0.12.2's encoder layers keep.
    """
    return {
        name: value for name, value in state.items() if not is_adapter_entry(name) and not _FAST_PATH_COPY.match(name)
    }


def language_manifest(languages: LanguageTable) -> Tensor:
    """Names, levels and ranks as the UTF-8 bytes of a JSON text, int64, ``(bytes,)``."""
    return torch.tensor(list(languages_to_json(languages).encode("utf-8")))


def read_manifest(manifest: Tensor) -> LanguageTable:
    """Reads what :func:`language_manifest` wrote.

    Raises:
        UserError: it is damaged.
    """
    try:
        return languages_from_json(bytes(manifest.flatten().tolist()).decode("utf-8"))
    except (TypeError, ValueError) as error:
        damage = f"the checkpoint's {MANIFEST} is damaged ({error})"
        raise UserError(f"{damage}; take the file from its source again") from error


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
    """Makes sure that the pairs of a checkpoint have the model's sizes.

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


def complete_state(state: dict[str, Tensor], own: Mapping[str, Tensor], languages: LanguageTable | None) -> None:
    """Makes a checkpoint's state fit the model's adapters, in place.

    Args:
        state: the checkpoint's entries; a base checkpoint gets the model's own fresh adapters.
        own: the model's entries.
        languages: the model's languages, or None for a model without adapters.

    Raises:
        UserError: the checkpoint holds only part of the adapters, or others than the model wants, or wrong numbers.
    """
    check_values(state)
    fresh = {name: value for name, value in own.items() if is_adapter_entry(name)}
    shapes = {name: tuple(value.shape) for name, value in state.items() if is_adapter_entry(name)}
    if not check_entries(shapes, {name: tuple(value.shape) for name, value in fresh.items()}):
        state.update({name: value.detach().clone() for name, value in fresh.items()})
        return
    _sort_by_language(state, languages)
    check_shapes(
        {name: tuple(value.shape) for name, value in state.items()},
        {name: tuple(value.shape) for name, value in fresh.items()},
    )


def _sort_by_language(state: dict[str, Tensor], wanted: LanguageTable) -> None:
    held = read_manifest(state[MANIFEST])
    check_languages(held, wanted)
    state[MANIFEST] = language_manifest(wanted)
    if held.names == wanted.names:
        return
    starts = dict(zip(held.names, torch.tensor((0, *held.ranks)).cumsum(0).tolist(), strict=False))
    rows = [
        row
        for name, rank in zip(wanted.names, wanted.ranks, strict=True)
        for row in range(starts[name], starts[name] + rank)
    ]
    for name in [name for name in state if _PAIR_ENTRY.search(name)]:
        state[name] = state[name][rows]


def check_languages(held: LanguageTable, wanted: LanguageTable, source: str = "the checkpoint") -> None:
    """Makes sure that a checkpoint has pairs for all wanted languages, of the wanted ranks.

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
