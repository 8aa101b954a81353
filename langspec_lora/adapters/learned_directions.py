"""What a training with learned directions has found: the weights of each layer, and the winners' adapters alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from langspec_lora.adapters.packed import Adapters, PackedMatrices
from langspec_lora.errors import UserError
from langspec_lora.sites import LEARNED, SOURCE, STACKS, TARGET


@dataclass(frozen=True)
class LearnedLayer:
    """The weights of one layer.

    Attributes:
        stack: ``encoder`` or ``decoder``.
        layer: its index.
        source: the weight of the source's adapter; that of the target's is one minus it.
    """

    stack: str
    layer: int
    source: float

    @property
    def side(self) -> str:
        """The side of the larger weight."""
        return SOURCE if self.source >= 0.5 else TARGET


def learned_layers(weights: Mapping[tuple[str, int], tuple[float, float]]) -> list[LearnedLayer]:
    """The layers whose directions were learned.

    Args:
        weights: the weights of source and target by stack and layer, in the order of the model.
    """
    return [LearnedLayer(*layer, source) for layer, (source, _) in weights.items()]


def fixed_sides(sides: Mapping[str, tuple[str, ...]], layers: Iterable[LearnedLayer]) -> dict[str, tuple[str, ...]]:
    """The side of each layer of ``encoder`` and ``decoder`` once every learned one is that of the larger weight.

    A layer that is not adapted gets the side of the one before it, or else the target.

    Args:
        sides: the sides of a training that learns some.
        layers: what it has learned.
    """
    winners = {(found.stack, found.layer): found.side for found in layers}
    fixed: dict[str, tuple[str, ...]] = {}
    for stack in STACKS:
        own: list[str] = []
        for layer, side in enumerate(sides[stack]):
            before = next((name for name in reversed(own) if name in (SOURCE, TARGET)), TARGET)
            own.append(winners.get((stack, layer), before) if side == LEARNED else side)
        fixed[stack] = tuple(own)
    return fixed


def activation_direction_flags(fixed: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """The flags of a training with fixed directions, with their values.

    Args:
        fixed: what :func:`fixed_sides` returned.
    """
    return {f"--{stack}-activation-direction": "_".join(fixed[stack]) for stack in STACKS}


def sides_of_winners(adapters: Adapters) -> dict[str, tuple[str, ...]]:
    """What :func:`fixed_sides` says of some adapters."""
    weights = {layer: adapters.weights(layer) for layer in adapters.mixture}
    return fixed_sides(adapters.sides, learned_layers(weights))


def fix_directions(adapters: Adapters) -> Adapters:
    """Keeps of each layer that mixes source and target only the adapters of the larger weight.

    Their B is multiplied by that weight, so that they add exactly what they added to the mixture.

    Raises:
        UserError: no layer mixes them.
    """
    if not adapters.mixture:
        raise UserError("its directions are fixed already: no layer mixes the adapters of source and target")
    sides = sides_of_winners(adapters)
    packed = {}
    for site, (a, b, mask) in adapters.packed.items():
        if adapters.side(site) == LEARNED:
            weights = adapters.weights(site[:2])
            is_target = sides[site.stack][site.layer] == TARGET
            half = len(a) // 2
            rows = slice(half, None) if is_target else slice(half)
            weighted = (b[rows].float() * weights[is_target]).to(b.dtype)
            packed[site] = PackedMatrices(a[rows], weighted, mask[rows])
        else:
            packed[site] = PackedMatrices(a, b, mask)
    return replace(adapters, sides=sides, packed=packed, mixture={})
