"""The published sizes of M2M100."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from langspec_lora.sites import STACKS


class Size(NamedTuple):
    """The size of a Transformer with equal encoder and decoder.

    Attributes:
        layers: number of layers of each stack.
        width: features between the layers.
        ffn: features between fc1 and fc2.
        heads: attention heads.
    """

    layers: int
    width: int
    ffn: int
    heads: int = 16

    def arguments(self) -> dict[str, Any]:
        """fairseq's arguments for this size."""
        values = {
            "layers": self.layers,
            "embed_dim": self.width,
            "ffn_embed_dim": self.ffn,
            "attention_heads": self.heads,
        }
        return {f"{stack}_{name}": value for stack in STACKS for name, value in values.items()}


M2M100: Mapping[str, Size] = {
    "langspec_m2m100_lora_base": Size(layers=12, width=1024, ffn=4096),
    "langspec_m2m100_lora_175m": Size(layers=6, width=512, ffn=2048),
    "langspec_m2m100_lora_1_2b": Size(layers=24, width=1024, ffn=8192),
}
"""The sizes by the name of our architecture. All are pre-norm, with ReLU and 1,024 positions."""
