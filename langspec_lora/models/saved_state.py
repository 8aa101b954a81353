"""What a model saves of its adapters besides their weights, and how a checkpoint's state is made to fit it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from langspec_lora.adapters.checks import check_entries, check_languages, check_shapes, check_values
from langspec_lora.adapters.entries import _PAIR_ENTRY, MANIFEST, is_adapter_entry, language_manifest, read_manifest
from langspec_lora.languages import LanguageTable


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


class AdapterState(nn.Module):
    """What a checkpoint says of its adapters besides their weights.

    Buffers, so that every tool that copies a model's state keeps them, and whole numbers, so that averaging checkpoints
    leaves them as they are.

    Attributes:
        manifest: names, levels and ranks of the languages: the UTF-8 bytes of a JSON text, int64.
        mask_epoch: the epoch in which the pruning masks were chosen, 0 for none, int64.
    """

    def __init__(self, languages: LanguageTable) -> None:
        super().__init__()
        self.register_buffer("manifest", language_manifest(languages))
        self.register_buffer("mask_epoch", torch.zeros(1, dtype=torch.int64))
