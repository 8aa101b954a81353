"""How many parameters adapters have, and how many survived pruning, by key, level, layer and position."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from torch import Tensor

from langspec_lora.adapters.entries import NO_WEIGHTS
from langspec_lora.adapters.packed import Adapters
from langspec_lora.sites import Site

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Count:
    """How many entries adapters have.

    Attributes:
        parameters: entries of A and B.
        nonzero: entries of A and B that are not zero.
        prunable: entries of B.
        living: entries of B that are not pruned.
        adapters: adapters of one key at one site.
        components: their ranks, added up.
        living_components: components of which at least one entry of B is not pruned.
    """

    parameters: int = 0
    nonzero: int = 0
    prunable: int = 0
    living: int = 0
    adapters: int = 0
    components: int = 0
    living_components: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(Count)))

    @property
    def surviving(self) -> float:
        """The share of B's entries that are not pruned."""
        return self.living / self.prunable if self.prunable else 1.0

    @property
    def rank_left(self) -> tuple[float, float]:
        """The mean of the ranks that pruning has left, and of those that the adapters were trained with."""
        return self.living_components / max(self.adapters, 1), self.components / max(self.adapters, 1)


@dataclass(frozen=True)
class Cell:
    """One key's adapter at one site.

    Attributes:
        key: the language, or what else the adapter belongs to.
        level: its resource level.
        site: the adapted linear.
        count: its entries.
    """

    key: str
    level: str
    site: Site
    count: Count


def count_adapters(adapters: Adapters) -> list[Cell]:
    """Counts the entries of every adapter."""
    cells = []
    for site, (a, b, mask) in adapters.packed.items():
        keys = adapters.keys(site)
        per_row = torch.stack([a.count_nonzero(1) + b.count_nonzero(1), mask.count_nonzero(1)])  # (2, R)
        for name, level, rank, rows in zip(*keys, per_row.split(keys.ranks, 1), strict=True):
            nonzero, living = rows.sum(1).tolist()
            components = int(rows[1].count_nonzero())
            count = Count(rank * (a.size(1) + b.size(1)), nonzero, rank * b.size(1), living, 1, rank, components)
            cells.append(Cell(name, level, site, count))
    return cells


def sum_by(cells: Iterable[Cell], key: Callable[[Cell], Key]) -> dict[Key, Count]:
    """Adds up the counts of the cells that share a key, in the order in which the keys first appear."""
    sums: dict[Key, Count] = {}
    for cell in cells:
        sums[key(cell)] = sums.get(key(cell), Count()) + cell.count
    return sums


def base_parameters(base: Mapping[str, Tensor]) -> int:
    """The number of parameters of a base model; shared parameters count once.

    Args:
        base: its entries by fairseq's names.
    """
    tied = {}
    for name, value in base.items():
        if not name.endswith(NO_WEIGHTS):
            tied[value.data_ptr(), value.shape] = value.numel()
    return sum(tied.values())
