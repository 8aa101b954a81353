"""What competes in pruning: the rows of A or B that belong to one key, and their masks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from langspec_lora.lora import LanguageSpecificLinear
from langspec_lora.pruning.scopes import group_key
from langspec_lora.sites import LEARNED, Site

SMALLEST = 2.0**-24
"""The smallest positive number of half precision: what an entry of A becomes that is zero without being pruned."""

_A_MASK = "lora_A_mask"


class Block(NamedTuple):
    """One key's B matrix, or A matrix, at one site: rows of a packed tensor.

    Attributes:
        linear: the adapted linear.
        rows: the key's rows of its packed tensors.
        part: ``B`` or ``A``; A has a mask after :func:`add_a_masks`.
        site: the site.
        key: the key's number.
    """

    linear: LanguageSpecificLinear
    rows: slice
    part: str = "B"
    site: Site | None = None
    key: int = 0

    @property
    def parameter(self) -> nn.Parameter:
        """The packed parameter, ``(R, f)``."""
        return self.linear.lora_B if self.part == "B" else self.linear.lora_A

    @property
    def values(self) -> Tensor:
        """The entries, ``(r_l, f)``, a view."""
        return self.parameter.data[self.rows]

    @property
    def scaled(self) -> Tensor:
        """The entries as they enter the adapter's product, ``(r_l, f)``: those of B with its scaling."""
        return self.linear.scaled_b(self.rows).detach() if self.part == "B" else self.values

    @property
    def mask(self) -> Tensor:
        """1 for entries that are kept, 0 for pruned entries, ``(r_l, f)``, a view."""
        whole: Tensor = getattr(self.linear, "lora_mask" if self.part == "B" else _A_MASK)
        return whole[self.rows]


def group_blocks(
    linears: Mapping[Site, LanguageSpecificLinear], keys: Mapping[str, Sequence[int]], scope: str, part: str = "B"
) -> list[list[Block]]:
    """Groups all B matrices, or all A matrices, by the entries that compete with each other.

    Args:
        linears: the adapted linears of a model by their site.
        keys: the keys that take part, by side.
        scope: one of :data:`~langspec_lora.pruning.scopes.SCOPES`.
        part: ``B`` or ``A``.

    Returns:
        One list of blocks for each group.
    """
    groups: dict[Hashable, list[Block]] = defaultdict(list)
    for site, linear in linears.items():
        for key in keys[linear.side]:
            # The adapters of a language as a source and as a target compete with each other.
            owner = key % linear.routing.layout.keys_as_source if linear.side == LEARNED else key
            block = Block(linear, linear.layout.slice(key), part, site, key)
            groups[group_key(scope, site, linear.side, owner)].append(block)
    return list(groups.values())


def all_keys(linears: Iterable[LanguageSpecificLinear]) -> dict[str, Sequence[int]]:
    """Every key of the linears, by side."""
    return {linear.side: range(len(linear.layout.ranks)) for linear in linears}


def add_a_masks(linears: Iterable[LanguageSpecificLinear]) -> None:
    """Gives every A a mask. It is not saved: exactly the pruned entries of A are zero, see :func:`apply_a_masks`."""
    for linear in linears:
        mask = torch.ones_like(linear.lora_A, dtype=torch.uint8, requires_grad=False)
        linear.register_buffer(_A_MASK, mask, persistent=False)  # so that it moves to the model's device


def a_mask(linear: LanguageSpecificLinear) -> Tensor | None:
    """The mask of a linear's A, uint8 ``(R, f_in)``; None if A is not pruned."""
    return getattr(linear, _A_MASK, None)


@torch.no_grad()
def read_a_masks(linears: Iterable[LanguageSpecificLinear]) -> None:
    """Sets the masks of A to what its zeros say."""
    for linear in linears:
        getattr(linear, _A_MASK).copy_(linear.lora_A != 0)


@torch.no_grad()
def apply_a_masks(linears: Iterable[LanguageSpecificLinear], rows: Mapping[str, Tensor] | None = None) -> None:
    """Sets every pruned entry of A to exactly zero, in place, and no other entry.

    A is drawn from a continuous distribution, so other entries are hardly ever zero; but half precision rounds small
    numbers to zero, and a new run may let pruned entries train again. These become :data:`SMALLEST`.

    Args:
        linears: the adapted linears of a model, whose A have masks.
        rows: by side, True for the packed rows to change, bool ``(R, 1)``; None for all.
    """
    for linear in linears:
        a, pruned = linear.lora_A, getattr(linear, _A_MASK) == 0
        zero = (a == 0) & ~pruned
        if rows is not None:
            own = rows[linear.side].to(a.device)
            pruned, zero = pruned & own, zero & own
        a.masked_fill_(zero, SMALLEST).masked_fill_(pruned, 0)
