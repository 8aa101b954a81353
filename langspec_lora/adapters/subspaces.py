"""How large a subspace each adapter uses at each site: what survives of B, living rows, effective rank of B A.

Where the entries of a layer compete in pruning (``--pruning-scope layer``), what survives of a language's B tells how
large a subspace it needs beside the others: intrinsic subspace estimation (Cao et al., EMNLP 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langspec_lora.adapters.counts import Cell, count_adapters
from langspec_lora.adapters.packed import Adapters
from langspec_lora.keys import PackedLayout
from langspec_lora.sites import Site

Group = TypeVar("Group", bound=Hashable)
Values = NDArray[np.float64]

_BATCH = 1 << 24  # entries of matrices that are decomposed at once: 128 MiB


@dataclass(frozen=True)
class Subspaces:
    """The subspaces of S sets of adapters (checkpoints of several seeds) with the same N adapters at sites.

    Attributes:
        cells: the N adapters, each of a key at a site; their counts are those of the first set.
        ranks: rank of each, ``(N,)``.
        largest: the largest rank that its B A can have, ``(N,)``.
        prunable: entries of its B, ``(N,)``.
        living: entries of its B that are not pruned, ``(S, N)``.
        rows: rows of its B with such an entry, ``(S, N)``.
        effective: effective rank of its B A, see :func:`effective_ranks`, ``(S, N)``.
    """

    cells: Sequence[Cell]
    ranks: Values
    largest: Values
    prunable: Values
    living: Values
    rows: Values
    effective: Values

    def __len__(self) -> int:
        return len(self.living)

    def groups(self, key: Callable[[Cell], Group]) -> dict[Group, list[int]]:
        """The numbers of the cells that share a key, in the order in which the keys first appear."""
        found: dict[Group, list[int]] = {}
        for number, cell in enumerate(self.cells):
            found.setdefault(key(cell), []).append(number)
        return found

    def surviving(self, cells: Sequence[int] | slice = slice(None)) -> Values:
        """The share of B's entries that are not pruned, over some cells, in each set, ``(S,)``."""
        return self.living[:, cells].sum(1) / self.prunable[cells].sum()

    def demand(self, cells: Sequence[int]) -> Values:
        """How much more of some keys' B survives than of the layers that they are in, ``(S,)``, a share.

        If all keys needed the same, as much would survive of each as of its layer. The mean over the layers, each
        counted once, of what survives there of these keys, less what survives there of all keys.

        Args:
            cells: numbers of the keys' cells.
        """
        layers = self.groups(lambda cell: cell.site[:2])
        own: dict[tuple[str, int], list[int]] = {}
        for number in cells:
            own.setdefault(self.cells[number].site[:2], []).append(number)
        return np.mean([self.surviving(own[layer]) - self.surviving(layers[layer]) for layer in own], axis=0)

    def is_equal_by_rule(self, key: Callable[[Cell], Hashable]) -> bool:
        """Whether the same share of B survives in all groups of cells, as far as whole entries allow.

        So it is where pruning takes the same share of each group (of each language, of each layer), whatever they need.

        Args:
            key: the group of a cell.
        """
        groups = list(self.groups(key).values())
        living = np.stack([self.living[:, cells].sum(1) for cells in groups])  # (G, S)
        entries = np.array([self.prunable[cells].sum() for cells in groups])[:, None]
        return bool((((living - 0.5) / entries).max(0) <= ((living + 0.5) / entries).min(0)).all())


def measure(sets: Sequence[Adapters], left_out: Collection[tuple[str, str]] = ()) -> Subspaces:
    """Measures the subspaces of sets of adapters that have the same keys, ranks and sites.

    Args:
        sets: the sets, at least one.
        left_out: keys that are not measured, each with the side of its layers.
    """
    first = sets[0]
    columns = [_columns(adapters) for adapters in sets]
    cells = count_adapters(first)
    kept = [number for number, cell in enumerate(cells) if (first.side(cell.site), cell.key) not in left_out]
    ranks, largest = _sizes(first)
    living, rows, effective = (np.stack(values)[:, kept] for values in zip(*columns, strict=True))
    prunable = np.array([cell.count.prunable for cell in cells], dtype=float)
    return Subspaces(
        [cells[number] for number in kept], ranks[kept], largest[kept], prunable[kept], living, rows, effective
    )


def _sizes(adapters: Adapters) -> tuple[Values, Values]:
    """Rank of each adapter and the largest that its B A can have, in the order of :func:`count_adapters`."""
    ranks: list[int] = []
    largest: list[int] = []
    for site, (a, b, _) in adapters.packed.items():
        own = adapters.keys(site).ranks
        ranks += own
        largest += [min(rank, a.size(1), b.size(1)) for rank in own]
    return np.array(ranks, dtype=np.float64), np.array(largest, dtype=np.float64)


def _columns(adapters: Adapters) -> tuple[Values, Values, Values]:
    """Living entries, living rows and effective rank of each adapter, in the order of :func:`count_adapters`."""
    living, rows, effective = [], [], []
    for site, (_, _, mask) in adapters.packed.items():
        per_row = mask.count_nonzero(1)  # (R,)
        for own in per_row.split(adapters.keys(site).ranks):
            living.append(int(own.sum()))
            rows.append(int(own.count_nonzero()))
        effective.append(effective_ranks(adapters, site))
    return np.array(living, dtype=np.float64), np.array(rows, dtype=np.float64), np.concatenate(effective)


def effective_ranks(adapters: Adapters, site: Site) -> Values:
    """The effective rank of B A of each key at a site, ``(K,)``.

    The exponential of the entropy of the singular values, each divided by their sum (Roy & Vetterli, "The effective
    rank: a measure of effective dimensionality", EUSIPCO 2007): k for k equal singular values, less for unequal ones; 0
    for a matrix of zeros.

    Args:
        adapters: the adapters.
        site: the adapted linear.
    """
    a, b, _ = adapters.packed[site]
    ranks = adapters.keys(site).ranks
    layout = PackedLayout(ranks)
    found = np.zeros(len(ranks))
    for rank in set(ranks):
        keys = [key for key, own in enumerate(ranks) if own == rank]
        step = max(1, _BATCH // (rank * (a.size(1) + b.size(1))))
        for start in range(0, len(keys), step):
            some = keys[start : start + step]
            blocks = ((torch.stack([matrix[layout.slice(key)] for key in some])).double() for matrix in (a, b))
            found[some] = _entropy_ranks(_singular_values(*blocks)).numpy()
    return found


def _singular_values(a: Tensor, b: Tensor) -> Tensor:
    """The singular values of the products of B ``(n, r, d_out)``, transposed, and A ``(n, r, d_in)``."""
    # Of the r × r product of their triangular factors, as the product itself is d_out × d_in.
    triangles = [torch.linalg.qr(matrix.transpose(1, 2), mode="r").R for matrix in (b, a)]  # (n, ≤ r, r)
    return torch.linalg.svdvals(triangles[0] @ triangles[1].transpose(1, 2))


def _entropy_ranks(values: Tensor) -> Tensor:
    shares = values / values.sum(1, keepdim=True).clamp_min(torch.finfo(values.dtype).tiny)
    return torch.where(values.sum(1) > 0, torch.special.entr(shares).sum(1).exp(), 0.0)
