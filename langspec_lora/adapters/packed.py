"""The adapters of all keys as plain data, packed by site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from langspec_lora.adapters.entries import (
    MANIFEST,
    MASK_EPOCH,
    MIXTURE_LOGITS,
    MIXTURE_RATE,
    language_manifest,
    read_manifest,
    read_scaling,
)
from langspec_lora.config import AdapterConfig
from langspec_lora.keys import Keys, PackedLayout, key_names, keys_of, kind_of_key
from langspec_lora.languages import LanguageTable
from langspec_lora.lora import row_factors, times
from langspec_lora.sites import SIDES, Site


def adapter_entries(adapters: Adapters) -> dict[str, Tensor]:
    """The adapters as entries of a model's state."""
    state = {
        MANIFEST: language_manifest(adapters.languages),
        MASK_EPOCH: torch.tensor([adapters.mask_epoch]),
    }
    if adapters.mixture:
        state[MIXTURE_LOGITS] = torch.stack(list(adapters.mixture.values()))
        state[MIXTURE_RATE] = torch.ones(1)
    for site, matrices in adapters.packed.items():
        for part, value in zip(("A", "B", "mask"), matrices, strict=True):
            state[f"{site.path}.lora_{part}"] = value.contiguous()
    return state


class PackedMatrices(NamedTuple):
    """The adapters of all keys at one site, ``R`` the sum of all ranks.

    Attributes:
        a: ``(R, f_in)``.
        b: ``(R, f_out)``, with any scaling of the training in it.
        mask: uint8, ``(R, f_out)``: 1 for entries of ``b`` that are kept, 0 for pruned entries.
    """

    a: Tensor
    b: Tensor
    mask: Tensor

    @property
    def living(self) -> Tensor:
        """Which components (rows) are not pruned as a whole, bool ``(R,)``."""
        return (self.mask != 0).any(1)


@dataclass(frozen=True)
class Adapters:
    """All adapters of a model.

    Attributes:
        languages: names, levels and ranks, and what the adapters belong to; the rows are in the order of the keys, see
            :func:`~langspec_lora.keys.keys_of`.
        sides: for each layer of ``encoder`` and ``decoder``, what selects the adapter.
        dim: number of features of input and output that the adapters cover; 0 for all.
        start: first of these features.
        packed: the matrices by site.
        mask_epoch: the epoch in which the masks were chosen; 0 if nothing is pruned.
        mixture: for each layer, by stack and index, that mixes the adapters of source and target, the logarithms of the
            weights of both, up to a constant, ``(2,)`` single precision; in the order of the model.
    """

    languages: LanguageTable
    sides: Mapping[str, tuple[str, ...]]
    dim: int
    start: int
    packed: Mapping[Site, PackedMatrices]
    mask_epoch: int
    mixture: Mapping[tuple[str, int], Tensor] = field(default_factory=dict)

    def keys(self, site: Site) -> Keys:
        """The keys of the adapters at a site, in the order of their rows."""
        return keys_of(self.languages, self.side(site))

    def matrices(self, site: Site, source: str, target: str) -> tuple[Tensor, Tensor]:
        """The adapter that one direction uses at one site, as views; copies, one below the other, if two are mixed.

        Args:
            site: the adapted linear.
            source: the source language.
            target: the target language.

        Returns:
            ``A (r, f_in)`` and ``B (r, f_out)``; the adapter adds ``B.T @ A`` to the weight.

        Raises:
            UserError: a language or the direction has no adapter.
        """
        names = key_names(self.languages, self.side(site), source, target)
        found = [self.adapter(site, name) for name in names]
        if len(found) == 1:
            return found[0]
        weights = self.weights(site[:2])
        a, b = zip(*found, strict=True)
        weighted = [(part.float() * weight).to(part.dtype) for part, weight in zip(b, weights, strict=True)]
        return torch.cat(a), torch.cat(weighted)

    def living(self, site: Site, source: str, target: str) -> Tensor:
        """Which rows of :meth:`matrices` are not pruned as a whole, bool ``(r,)``; called like it."""
        names, living = key_names(self.languages, self.side(site), source, target), self.packed[site].living
        return torch.cat([living[self.rows(site, name)] for name in names])

    def weights(self, layer: tuple[str, int]) -> tuple[float, float]:
        """The weights of source and target in a layer that mixes them.

        Args:
            layer: its stack and index.
        """
        source, target = torch.softmax(self.mixture[layer], 0).tolist()
        return source, target

    def adapter(self, site: Site, key: str) -> tuple[Tensor, Tensor]:
        """A and B of one key at one site, as :meth:`matrices` returns those of a direction.

        Args:
            site: the adapted linear.
            key: one of the names of :meth:`keys`.
        """
        rows = self.rows(site, key)
        return self.packed[site].a[rows], self.packed[site].b[rows]

    def rows(self, site: Site, key: str) -> slice:
        """The rows of one key in the packed tensors of a site."""
        keys = self.keys(site)
        return PackedLayout(keys.ranks).slice(keys.names.index(key))

    @property
    def key(self) -> str:
        """What the adapters belong to, see :func:`~langspec_lora.keys.kind_of_key`."""
        return kind_of_key(self.languages, self.used_sides)

    @property
    def used_sides(self) -> tuple[str, ...]:
        """The sides of the adapted layers."""
        used = {self.side(site) for site in self.packed}
        return tuple(side for side in SIDES if side in used)

    @property
    def features(self) -> slice | None:
        """The features of input and output that the adapters cover; None for all."""
        return slice(self.start, self.start + self.dim) if self.dim else None

    def side(self, site: Site) -> str:
        """What selects the adapter at a site: ``src``, ``tgt``, ``direction`` or ``shared``."""
        return self.sides[site.stack][site.layer]


def adapters_of(state: Mapping[str, Tensor], config: AdapterConfig) -> Adapters:
    """The adapters in a model's state; a scaling of their products is multiplied into B.

    Args:
        state: the model's entries by name, with all entries of its adapters.
        config: which adapters the model has.

    Raises:
        UserError: the manifest of the languages, or the scaling, is damaged.
    """
    languages = read_manifest(state[MANIFEST])
    packed = {
        site: PackedMatrices(*(state[f"{site.path}.lora_{part}"] for part in ("A", "B", "mask")))
        for site in config.sites
    }
    if (scaling := read_scaling(state)) is not None:
        for site, part in packed.items():
            factors = row_factors(scaling, keys_of(languages, config.side(site)).ranks)
            packed[site] = part._replace(b=times(part.b, factors))
    sides = {stack: settings.sides for stack, settings in config.stacks.items()}
    mixture = {}
    if config.mixed_layers:
        logits = state[MIXTURE_LOGITS].float() * state[MIXTURE_RATE].float()
        mixture = dict(zip(config.mixed_layers, logits, strict=True))
    return Adapters(languages, sides, config.dim, config.start, packed, int(state[MASK_EPOCH].flatten()[0]), mixture)
