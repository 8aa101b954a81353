"""What a training with learned directions has found: the weights of each layer, and the winners' adapters alone."""

from __future__ import annotations

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


def learned_layers(adapters: Adapters) -> list[LearnedLayer]:
    """The layers whose directions were learned, in the order of the model."""
    return [LearnedLayer(*layer, adapters.weights(layer)[0]) for layer in adapters.mixture]


def fixed_sides(adapters: Adapters) -> dict[str, tuple[str, ...]]:
    """The side of each layer of ``encoder`` and ``decoder`` once every learned one is that of the larger weight.

    A layer that is not adapted has the side that was learned of the one before it, or else the target.
    """
    winners = {(found.stack, found.layer): found.side for found in learned_layers(adapters)}
    fixed: dict[str, tuple[str, ...]] = {}
    for stack in STACKS:
        sides: list[str] = []
        for layer, side in enumerate(adapters.sides[stack]):
            before = next((name for name in reversed(sides) if name in (SOURCE, TARGET)), TARGET)
            sides.append(winners.get((stack, layer), before) if side == LEARNED else side)
        fixed[stack] = tuple(sides)
    return fixed


def activation_direction_flags(adapters: Adapters) -> str:
    """The flags of a training in which the winners are fixed."""
    sides = fixed_sides(adapters)
    return " ".join(f"--{stack}-activation-direction {'_'.join(sides[stack])}" for stack in STACKS)


def fix_directions(adapters: Adapters) -> Adapters:
    """Keeps of each layer that mixes source and target only the adapters of the larger weight.

    Their B is multiplied by that weight, so that they add exactly what they added to the mixture.

    Raises:
        UserError: no layer mixes them.
    """
    if not adapters.mixture:
        raise UserError("its directions are fixed already: no layer mixes the adapters of source and target")
    sides = fixed_sides(adapters)
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
