"""The principal start of A: its rows are the base weight's right singular vectors of the largest singular values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_SMALLEST = 1e-10
"""A direction whose singular value is smaller than this root's share of the largest is none: it is only rounding."""


@torch.no_grad()
def set_principal(a: Tensor, weight: Tensor, ranks: Sequence[int], part: slice | None = None) -> None:
    """Sets each adapter's A to the principal directions of what it reads of the base weight, in place.

    An adapter of rank r gets the first r directions, each of length √(d / 3r) with d the number of features that A
    reads. So the square of A's Frobenius norm is d / 3, as it is in expectation for an A from U(-1/√r, 1/√r). If the
    weight has fewer directions, the other rows stay as they are.

    The directions are those of Meng et al., "PiSSA" (NeurIPS 2024), equation 2.

    Args:
        a: ``(R, f_in)``, drawn already, on the CPU or a GPU.
        weight: the base weight, ``(d_out, d_in)``.
        ranks: the rank of each adapter, ``R`` together.
        part: the features that A reads; None for all.
    """
    read = weight if part is None else weight[:, part]
    directions = principal_directions(read, max(ranks)).to(a)
    start = 0
    for rank in ranks:
        own = directions[:rank]
        a[start : start + len(own)] = own * math.sqrt(a.size(1) / (3 * rank))
        start += rank


def principal_directions(weight: Tensor, count: int) -> Tensor:
    """The right singular vectors of the largest singular values, largest first, in double precision on the CPU.

    They are the eigenvectors of the smaller of W Wᵀ and Wᵀ W, which takes half the time of a singular value
    decomposition; W's largest singular values, unlike its smallest, lose nothing by the square. The entry of the
    largest magnitude is positive in each, so that all processes of a training get the same.

    Args:
        weight: ``(d_out, d_in)``.
        count: how many.

    Returns:
        ``(n, d_in)`` of length 1; n is ``count``, or less if the weight has a lower rank.
    """
    weight = weight.detach().cpu().double()
    tall = weight.size(0) >= weight.size(1)
    values, vectors = torch.linalg.eigh(weight.t() @ weight if tall else weight @ weight.t())  # smallest first
    count = min(count, int((values > _SMALLEST * values[-1]).sum()))
    largest = vectors.flip(1)[:, :count].t()
    if not tall:  # they are left singular vectors
        largest = torch.nn.functional.normalize(largest @ weight, dim=1)
    place = largest.abs().argmax(1, keepdim=True)
    return largest * largest.gather(1, place).sign()
