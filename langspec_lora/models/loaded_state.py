"""Makes the state of a checkpoint fit the adapters of a model, before fairseq loads it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from langspec_lora.adapters.checks import check_entries, check_languages, check_shapes, check_values
from langspec_lora.adapters.entries import MANIFEST, MATRIX_ENTRY, is_adapter_entry, language_manifest, read_manifest
from langspec_lora.languages import LanguageTable


def complete_state(state: dict[str, Tensor], model: Mapping[str, Tensor], languages: LanguageTable | None) -> None:
    """Makes a checkpoint's state fit the model's adapters, in place.

    Args:
        state: the checkpoint's entries; a base checkpoint gets the model's fresh adapters.
        model: the model's entries.
        languages: the model's languages, or None for a model without adapters.

    Raises:
        UserError: the checkpoint holds only part of the adapters, other adapters than the model, or invalid numbers.
    """
    check_values(state)
    fresh = {name: value for name, value in model.items() if is_adapter_entry(name)}
    shapes = {name: tuple(value.shape) for name, value in state.items() if is_adapter_entry(name)}
    if not check_entries(shapes, {name: tuple(value.shape) for name, value in fresh.items()}):
        state.update({name: value.detach().clone() for name, value in fresh.items()})
        return
    assert languages is not None  # a model without adapters takes none
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
    for name in [name for name in state if MATRIX_ENTRY.search(name)]:
        state[name] = state[name][rows]
