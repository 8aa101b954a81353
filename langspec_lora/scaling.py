"""The factor that an adapter's product is multiplied by: ``--lora-alpha`` and ``--lora-scaling``.

Trained B are stored as they are trained, without the factor, so that a training resumes bit for bit. Whatever reads
adapters as data gets B with the factor in it (:func:`langspec_lora.adapters.packed.adapters_of`), and writes no factor.
"""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from langspec_lora.errors import UserError
from langspec_lora.naming import some_of

SCALINGS: Mapping[str, Callable[[float, int], float]] = {
    "rank": lambda alpha, rank: alpha / rank,
    "root": lambda alpha, rank: alpha / math.sqrt(rank),
    "constant": lambda alpha, rank: alpha,
}
"""The factor from alpha and the rank: Hu et al., "LoRA" (ICLR 2022, section 4.1); Kalajdzievski, "A Rank Stabilization
Scaling Factor for Fine-Tuning with LoRA" (2023); Hayou et al., "LoRA+" (ICML 2024), with whose two learning rates a
constant factor is the same if the optimizer is Adam."""


LEAST, MOST = 1e-4, 1e4
"""The range of alpha; far outside, a factor of single precision would be 0 or infinite."""


def is_alpha(value: float) -> bool:
    """Whether a number can be alpha."""
    return LEAST <= value <= MOST


@dataclass(frozen=True)
class Scaling:
    """How the products of a model's adapters are scaled.

    Attributes:
        alpha: in the range of :func:`is_alpha`.
        by: one of :data:`SCALINGS`.
    """

    alpha: float
    by: str

    def factor(self, rank: int) -> float:
        """The factor of an adapter.

        Args:
            rank: its rank, before anything is pruned.
        """
        return SCALINGS[self.by](self.alpha, rank)

    def of_rows(self, ranks: Iterable[int]) -> list[float]:
        """The factor of each packed row of adapters of these ranks, ``R`` numbers."""
        return [factor for rank in ranks for factor in [self.factor(rank)] * rank]

    def __str__(self) -> str:
        alpha = str(self.alpha).removesuffix(".0")
        return f"--lora-alpha {alpha} --lora-scaling {self.by}"


def scaling_of(args: Namespace) -> Scaling | None:
    """How a model scales its adapters, or None if it does not.

    Args:
        args: the arguments of a training, or those that a checkpoint stores; earlier versions stored neither flag.

    Raises:
        UserError: ``--lora-scaling`` is unknown.
    """
    alpha, by = getattr(args, "lora_alpha", None), getattr(args, "lora_scaling", None)
    if by is not None and by not in SCALINGS:
        raise UserError(f"--lora-scaling {by}: expected {some_of(SCALINGS)}")
    return None if alpha is None else Scaling(alpha, by or next(iter(SCALINGS)))
