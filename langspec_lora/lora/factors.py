"""The factor of each packed row, as a scaling of the adapters gives it, and B multiplied by it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from langspec_lora.scaling import Scaling


def row_factors(scaling: Scaling | None, ranks: Sequence[int]) -> Tensor:
    """What each packed row of B is multiplied by, ``(R, 1)`` in double precision; 1 without scaling.

    Args:
        scaling: the scaling.
        ranks: the rank of each key's adapter, before anything is pruned.
    """
    factors = [1.0] * sum(ranks) if scaling is None else scaling.of_rows(ranks)
    return torch.tensor(factors, dtype=torch.float64).unsqueeze(1)


def times(b: Tensor, factors: Tensor) -> Tensor:
    """``B`` with a factor for each row, computed in single precision or better and rounded once.

    Args:
        b: ``(rows, f_out)``.
        factors: ``(rows, 1)``.

    Returns:
        ``(rows, f_out)``, of the type of ``b``.
    """
    return (b * factors.to(torch.promote_types(b.dtype, torch.float32))).to(b.dtype)
