"""Makes the state of a checkpoint fit the adapters of a model, before fairseq loads it."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from langspec_lora.adapters.checks import check_entries, check_languages, check_shapes, check_values
from langspec_lora.adapters.entries import (
    MANIFEST,
    MIXTURE_LOGITS,
    MIXTURE_RATE,
    SCALING,
    is_adapter_entry,
    language_manifest,
    read_manifest,
    read_scaling,
    scaling_entry,
)
from langspec_lora.config import AdapterConfig
from langspec_lora.errors import UserError
from langspec_lora.keys import Keys, PackedLayout, keys_of
from langspec_lora.lora import row_factors, set_principal, times
from langspec_lora.sites import PRINCIPAL

logger = logging.getLogger(__name__)


def complete_state(state: dict[str, Tensor], model: Mapping[str, Tensor], config: AdapterConfig | None) -> None:
    """Makes a checkpoint's state fit the model's adapters, in place.

    Args:
        state: the checkpoint's entries; a base checkpoint gets the model's fresh adapters, whose A are set to its
            principal directions if the configuration says so.
        model: the model's entries.
        config: which adapters the model has, or None.

    Raises:
        UserError: the checkpoint holds only part of the adapters, other adapters than the model, or invalid numbers.
    """
    check_values(state)
    fresh = {name: value for name, value in model.items() if is_adapter_entry(name)}
    shapes = {name: tuple(value.shape) for name, value in state.items() if is_adapter_entry(name)}
    expected = {name: tuple(value.shape) for name, value in fresh.items() if name != SCALING}
    if not check_entries(shapes, expected):
        state.update({name: value.detach().clone() for name, value in fresh.items()})
        if config is not None and config.init == PRINCIPAL:
            _start_principal(state, config)
        return
    assert config is not None  # a model without adapters takes none
    _sort_by_key(state, config)
    _rescale(state, config)
    if MIXTURE_RATE in state:  # the weights stay the same if they go on learning at another rate
        rate = model[MIXTURE_RATE].to(state[MIXTURE_RATE])
        if not torch.equal(rate, state[MIXTURE_RATE]):
            state[MIXTURE_LOGITS] = state[MIXTURE_LOGITS] * (state[MIXTURE_RATE] / rate)
            state[MIXTURE_RATE] = rate
    check_shapes(
        {name: tuple(value.shape) for name, value in state.items()},
        expected,
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


def _start_principal(state: dict[str, Tensor], config: AdapterConfig) -> None:
    logger.info("computing the principal directions of %d base weights, in which A starts", len(config.sites))
    part = config.features
    for site in config.sites:
        ranks = keys_of(config.languages, config.side(site)).ranks
        weight = state[f"{site.path}.weight"]
        if not torch.isfinite(weight).all():
            raise UserError(f"the base has infinite numbers or NaN in {site.path}.weight; download it again")
        set_principal(state[f"{site.path}.lora_A"], weight, ranks, part)


def _rescale(state: dict[str, Tensor], config: AdapterConfig) -> None:
    """Divides B by the model's scaling and multiplies it by the checkpoint's, where they differ.

    The adapters then compute the same. The rows are those of the model's keys already.
    """
    held, wanted = read_scaling(state), config.scaling
    if held == wanted:
        return
    state.pop(SCALING, None)
    if wanted is not None:
        state[SCALING] = scaling_entry(wanted)
    for site in config.sites:
        ranks = keys_of(config.languages, config.side(site)).ranks
        name = f"{site.path}.lora_B"
        state[name] = times(state[name], row_factors(held, ranks) / row_factors(wanted, ranks))
    logger.info("adapters scaled by %s go on with %s; B is converted", held or "nothing", wanted or "no scaling")


def _order(held: Keys, wanted: Keys) -> list[int] | None:
    """The rows of the wanted keys among those of the held ones; None if they are the same."""
    if held.names == wanted.names:
        return None
    layout, places = PackedLayout(held.ranks), {name: place for place, name in enumerate(held.names)}
    return [row for name in wanted.names for row in range(layout.rows)[layout.slice(places[name])]]
