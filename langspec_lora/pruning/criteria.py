"""What is pruned first: a score for each entry, or for each component, of which the smallest are pruned."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from langspec_lora.pruning.blocks import Block
from langspec_lora.pruning.choices import ENTRY, FIRST_ORDER, MAGNITUDE, RANDOM, RANK


@dataclass(frozen=True)
class Known:
    """What a criterion may use besides the matrices.

    Attributes:
        seed: the training's seed.
        names: the names of the keys, by side; without them, their numbers are used.
        squares: the mean square of each entry's gradient, ``(R, f)``, by parameter.
    """

    seed: int = 1
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    squares: Mapping[Tensor, Tensor] = field(default_factory=dict)


def magnitude(block: Block, known: Known) -> Tensor:
    """The absolute value of each entry, ``(r, f)``, of B with its scaling: what the product has of it."""
    return block.scaled.float().abs()


def random(block: Block, known: Known) -> Tensor:
    """A number from 0 to 1 for each entry, ``(r, f)``: the control, which tells nothing of the entries.

    It depends only on the seed, the site and the key, so that it is the same in all epochs and processes.
    """
    return _random(block, known, block.values.size(1))


def first_order(block: Block, known: Known) -> Tensor:
    """|w|·√E[g²] of each entry, ``(r, f)``: to first order, how much the loss changes if the entry becomes zero.

    The saliency is |w·g| (Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019, equation 7).
    The gradient of a single batch is noise, so the root of Adam's running mean of g² stands for |g|. A scaling of B
    needs no factor here: it divides w by what it multiplies g by.
    """
    squares = known.squares[block.parameter][block.rows]
    return block.values.float().abs() * squares.float().sqrt()


def component_magnitude(block: Block, known: Known) -> Tensor:
    """The norm of what each component adds to the weight, ``(r, 1)``: ‖b aᵀ‖ = ‖a‖·‖b‖ for its rows of A and B."""
    a, b = block.linear.lora_A.detach()[block.rows].float(), block.linear.scaled_b(block.rows).detach().float()
    return a.norm(dim=1, keepdim=True) * b.norm(dim=1, keepdim=True)


def component_random(block: Block, known: Known) -> Tensor:
    """As :func:`random`, one number for each component, ``(r, 1)``."""
    return _random(block, known, 1)


def component_first_order(block: Block, known: Known) -> Tensor:
    """The sum of :func:`first_order` over each row of B, ``(r, 1)``: these entries become zero if it is pruned."""
    return first_order(block, known).sum(1, keepdim=True)


SCORES: Mapping[str, Mapping[str, Callable[[Block, Known], Tensor]]] = {
    ENTRY: {MAGNITUDE: magnitude, RANDOM: random, FIRST_ORDER: first_order},
    RANK: {MAGNITUDE: component_magnitude, RANDOM: component_random, FIRST_ORDER: component_first_order},
}
"""The function of a criterion, by what is pruned as a whole and by its name."""


def seed_of(*what: object) -> int:
    """A seed that depends on nothing but the given words and numbers."""
    digest = hashlib.sha256(" ".join(map(str, what)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # torch takes 63 bits


def _random(block: Block, known: Known, width: int) -> Tensor:
    names = known.names.get(block.linear.side)
    key = block.key if names is None else names[block.key]
    generator = torch.Generator().manual_seed(seed_of(known.seed, block.site, block.part, key))
    return torch.rand(len(block.values), width, generator=generator).to(block.values.device)
