"""Learned directions: the weights with which a layer mixes the adapters of the source and the target language.

The recipe is that of Pires et al., "Learning Language-Specific Layers for Multilingual Machine Translation" (ACL 2023):
``h = W x + w_src B_s A_s x + w_tgt B_t A_t x``, with softmax weights that all positions of a layer share and that are
learned with everything else; afterwards the larger weight decides what selects the layer's adapter.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SideMixture(nn.Module):
    """The weights of source and target in each layer that mixes them.

    The softmax is taken of ``rate · logits``. Adam's steps do not depend on the size of gradients, so the weights learn
    ``rate`` times as fast as all else.

    Args:
        layers: number of layers that mix.
        rate: their learning rate, divided by that of all else.

    Attributes:
        hard: whether only the larger weight counts; the adapter of the other side is then left out.
    """

    rate: Tensor

    def __init__(self, layers: int, rate: float = 1.0) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(layers, 2))
        self.register_buffer("rate", torch.tensor([rate]))
        self.hard = False

    def weights(self) -> Tensor:
        """The weights of source and target, ``(layers, 2)``, in single precision."""
        weights = torch.softmax(self.logits.float() * self.rate.float(), -1)
        if not self.hard:
            return weights
        larger = torch.nn.functional.one_hot(weights.argmax(-1), 2)
        return weights * larger
