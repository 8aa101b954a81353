"""Makes the state of a checkpoint fit the adapters of a model, before fairseq loads it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from langspec_lora.adapters.checks import check_entries, check_languages, check_shapes, check_values
from langspec_lora.adapters.entries import (
    MANIFEST,
    MIXTURE_LOGITS,
    MIXTURE_RATE,
    is_adapter_entry,
    language_manifest,
    read_manifest,
)
from langspec_lora.config import AdapterConfig
from langspec_lora.keys import Keys, PackedLayout, keys_of


def complete_state(state: dict[str, Tensor], model: Mapping[str, Tensor], config: AdapterConfig | None) -> None:
    """Makes a checkpoint's state fit the model's adapters, in place.

    Args:
        state: the checkpoint's entries; a base checkpoint gets the model's fresh adapters.
        model: the model's entries.
        config: which adapters the model has, or None.

    Raises:
        UserError: the checkpoint holds only part of the adapters, other adapters than the model, or invalid numbers.
    """
    check_values(state)
    fresh = {name: value for name, value in model.items() if is_adapter_entry(name)}
    shapes = {name: tuple(value.shape) for name, value in state.items() if is_adapter_entry(name)}
    if not check_entries(shapes, {name: tuple(value.shape) for name, value in fresh.items()}):
        state.update({name: value.detach().clone() for name, value in fresh.items()})
        return
    assert config is not None  # a model without adapters takes none
    _sort_by_key(state, config)
    if MIXTURE_RATE in state:  # the weights stay the same if they go on learning at another rate
        rate = model[MIXTURE_RATE].to(state[MIXTURE_RATE])
        if not torch.equal(rate, state[MIXTURE_RATE]):
            state[MIXTURE_LOGITS] = state[MIXTURE_LOGITS] * (state[MIXTURE_RATE] / rate)
            state[MIXTURE_RATE] = rate
    check_shapes(
        {name: tuple(value.shape) for name, value in state.items()},
        {name: tuple(value.shape) for name, value in fresh.items()},
    )


def _sort_by_key(state: dict[str, Tensor], config: AdapterConfig) -> None:
    held, wanted = read_manifest(state[MANIFEST]), config.languages
    check_languages(held, wanted)
    state[MANIFEST] = language_manifest(wanted)
    orders = {side: _order(keys_of(held, side), keys_of(wanted, side)) for side in config.sides}
    for site in config.sites:
        order = orders[config.side(site)]
        for name in (f"{site.path}.lora_{part}" for part in ("A", "B", "mask")):
            if order is not None and name in state:
                state[name] = state[name][order]


def _order(held: Keys, wanted: Keys) -> list[int] | None:
    """The rows of the wanted keys among those of the held ones; None if they are the same."""
    if held.names == wanted.names:
        return None
    layout, places = PackedLayout(held.ranks), {name: place for place, name in enumerate(held.names)}
    return [row for name in wanted.names for row in range(layout.rows)[layout.slice(places[name])]]
