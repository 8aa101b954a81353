"""The linear layers of a Transformer that can be adapted: their names, module paths and widths."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Mapping
from typing import NamedTuple

POSITIONS: Mapping[str, Mapping[str, str]] = {
    "encoder": {
        "q": "self_attn.q_proj",
        "k": "self_attn.k_proj",
        "v": "self_attn.v_proj",
        "fc1": "fc1",
        "fc2": "fc2",
    },
    "decoder": {
        "q": "self_attn.q_proj",
        "k": "self_attn.k_proj",
        "v": "self_attn.v_proj",
        "crossq": "encoder_attn.q_proj",
        "crossk": "encoder_attn.k_proj",
        "crossv": "encoder_attn.v_proj",
        "fc1": "fc1",
        "fc2": "fc2",
    },
}
"""The positions that can be adapted, by stack, each with its linear layer's path in a fairseq layer.

The flags join their names by ``_``, so a name contains none.
"""

STACKS = tuple(POSITIONS)

SOURCE, TARGET, DIRECTION, SHARED, LEARNED = "src", "tgt", "direction", "shared", "learned"
SIDES = (SOURCE, TARGET, DIRECTION, SHARED, LEARNED)
"""What selects the adapter of a layer (the flags' activation direction): the source language, the target language, the
two together, or neither; or source and target each select one, in a proportion that is learned."""

PRINCIPAL = "principal"
INITS: Mapping[str, int] = {"rank": 0, "standard": 1, PRINCIPAL: 0}
"""How LoRA A ``(r, d)`` is drawn: from U(-1/√n, 1/√n), with n its size along this axis. A principal A is drawn only
until the base weights are known, see :mod:`langspec_lora.lora.principal`."""


class Site(NamedTuple):
    """One linear that can be adapted.

    Attributes:
        stack: ``encoder`` or ``decoder``.
        layer: index of the layer in its stack.
        position: name of the position, such as ``q`` or ``fc1``.
    """

    stack: str
    layer: int
    position: str

    def __str__(self) -> str:
        return f"{self.stack}.{self.layer}.{self.position}"

    @property
    def path_in_layer(self) -> str:
        """The linear's path within its layer, such as ``self_attn.q_proj``."""
        return POSITIONS[self.stack][self.position]

    @property
    def path(self) -> str:
        """The linear's path within a fairseq model, such as ``encoder.layers.0.self_attn.q_proj``."""
        return f"{self.stack}.layers.{self.layer}.{self.path_in_layer}"


def in_model_order(site: Site) -> tuple[int, ...]:
    """A key that sorts sites as the model has them, in whatever order flags name their layers and positions."""
    return STACKS.index(site.stack), site.layer, list(POSITIONS[site.stack]).index(site.position)


def sites_of(layers: Mapping[str, Iterable[int]], positions: Mapping[str, Iterable[str]] = POSITIONS) -> list[Site]:
    """Every site in some layers, stack by stack and layer by layer.

    Args:
        layers: indices of the layers, by stack.
        positions: names of the positions, by stack; by default all.
    """
    return [
        Site(stack, layer, position) for stack in layers for layer in layers[stack] for position in positions[stack]
    ]


def linear_size(args: Namespace, site: Site) -> tuple[int, int]:
    """Input and output width of the linear at a site.

    Args:
        args: fairseq's arguments.
        site: which linear.
    """
    width, ffn = getattr(args, f"{site.stack}_embed_dim"), getattr(args, f"{site.stack}_ffn_embed_dim")
    if site.position in ("crossk", "crossv"):
        return args.encoder_embed_dim, width
    return {"fc1": (width, ffn), "fc2": (ffn, width)}.get(site.position, (width, width))
