"""A frozen linear layer with packed low-rank adapters, one for each key: h = W x + b + B_k A_k x."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from langspec_lora.keys import PackedLayout
from langspec_lora.lora.factors import times
from langspec_lora.lora.functional import LanguageSpecificLinearFunction
from langspec_lora.lora.routing import LanguageRouting
from langspec_lora.sites import INITS


def draw_a(a: Tensor, init: str, generator: torch.Generator | None = None) -> None:
    """Draws the A of a new adapter, in place.

    Args:
        a: ``(r, d_in)``, one key's rows.
        init: ``"rank"``: from U(-1/√r, 1/√r), as the released implementation does; ``"standard"``: from
            U(-1/√d, 1/√d) with d the number of features that A reads; ``"principal"``: as ``"rank"``, see
            :func:`~langspec_lora.lora.principal.set_principal`.
        generator: the random number generator.
    """
    if init not in INITS:
        raise ValueError(f"init {init!r}: expected {' or '.join(INITS)}")
    bound = 1 / math.sqrt(a.size(INITS[init]))
    a.uniform_(-bound, bound, generator=generator)


class LanguageSpecificLinear(nn.Linear):
    """A linear layer that adds a low-rank update of the sentence's key, usually its language.

    The update is ``B_k A_k x`` (Cao et al., EMNLP 2024, section 3; Hu et al., 2022), with ``k`` the key of the sentence
    (see :mod:`langspec_lora.keys`), times alpha / r or another factor only if the routing has a scaling. ``weight`` and
    ``bias`` keep their names, so base checkpoints load unchanged. The adapters of all keys are packed in two parameters
    and a buffer:

    * ``lora_A (R, d_in)`` and ``lora_B (R, d_out)``, with ``R`` the sum of all ranks;
    * ``lora_mask (R, d_out)``, uint8: 1 for entries of ``lora_B`` that are kept, 0 for pruned entries.

    ``lora_B`` starts at zero, so a fresh layer computes what the base layer computes.

    Args:
        linear: the layer to adapt; its parameters are taken over, not copied.
        routing: the languages of the current batch and the layout of the adapters.
        side: what selects the adapter, see :data:`~langspec_lora.sites.SIDES`.
        dim: 0 adapts the whole layer; otherwise the adapter reads features ``start`` to ``start + dim`` of the input
            and adds to the same features of the output.
        start: first feature of that slice.
        init: how A is drawn, see :func:`draw_a`.
        mixes: where source and target are mixed, the place of this layer in the routing's mixture.
        dropout: in training, the share of the entries that A reads which are zero, the others divided by the rest.
    """

    lora_mask: Tensor

    def __init__(
        self,
        linear: nn.Linear,
        routing: LanguageRouting,
        side: str,
        dim: int = 0,
        start: int = 0,
        init: str = "rank",
        mixes: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        nn.Module.__init__(self)
        self._stock = (linear,)  # in a tuple, so that its parameters are not registered twice
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.side, self.mixes, self.dropout = side, mixes, dropout
        self.slice = slice(start, start + dim) if dim else None
        # In a tuple, so that the one routing of the model is not registered again in each of its linears.
        self._routing = (routing,)
        layout = self.layout
        self.lora_A = nn.Parameter(linear.weight.new_empty(layout.rows, dim or linear.in_features))
        self.lora_B = nn.Parameter(linear.weight.new_zeros(layout.rows, dim or linear.out_features))
        self.register_buffer("lora_mask", torch.ones_like(self.lora_B, dtype=torch.uint8, requires_grad=False))
        self.reset_adapters(init)
        self.merged: Tensor | None = None  # see MergedWeights
        self.computes_merged = False

    def without_adapters(self) -> nn.Linear:
        """The module that this one replaced, with the current weight and bias."""
        linear = self._stock[0]
        linear.weight, linear.bias = self.weight, self.bias
        return linear

    @property
    def routing(self) -> LanguageRouting:
        """The languages of the current batch."""
        return self._routing[0]

    @property
    def layout(self) -> PackedLayout:
        """Which rows belong to which key."""
        return self.routing.layout.packed[self.side]

    def parts(self, source: int, target: int) -> list[tuple[Tensor, Tensor]]:
        """The adapters that sentences of one direction use.

        Args:
            source: the source language's id in the model.
            target: the target language's.

        Returns:
            ``A (r, f_in)`` and ``B (r, f_out)`` of each, B with its scaling, and its weight if several are mixed.
        """
        rows = [self.layout.slice(key) for key in self.routing.layout.keys(self.side, source, target)]
        if self.mixes is None:
            return [(self.lora_A[own], self.scaled_b(own)) for own in rows]
        assert self.routing.mixture is not None
        weights = self.routing.mixture.weights()[self.mixes]
        return [(self.lora_A[own], self.scaled_b(own) * weight) for own, weight in zip(rows, weights, strict=True)]

    def scaled_b(self, rows: slice | None = None) -> Tensor:
        """B as it enters the product: with the routing's scaling, but without the weights of source and target.

        Args:
            rows: packed rows; None for all.

        Returns:
            ``(rows, f_out)``, of the type of ``lora_B``; ``lora_B`` or a view of it if there is no scaling.
        """
        b: Tensor = self.lora_B
        factors = self.routing.factors(self.side, b)
        if rows is not None:
            b, factors = b[rows], None if factors is None else factors[rows]
        return b if factors is None else times(b, factors)

    def _weighted_b(self) -> Tensor:
        b = self.scaled_b()
        return b if self.mixes is None else b * self.routing.row_weights(self.mixes)

    @torch.no_grad()
    def reset_adapters(self, init: str) -> None:
        """Draws A anew and sets B to zero.

        Args:
            init: ``"rank"`` or ``"standard"``.
        """
        for key in range(len(self.layout.ranks)):
            draw_a(self.lora_A[self.layout.slice(key)], init)
        self.lora_B.zero_()

    def forward(self, input: Tensor) -> Tensor:
        """Applies the layer.

        Args:
            input: ``(time, batch, d_in)``.

        Returns:
            ``(time, batch, d_out)``.
        """
        if self.computes_merged:
            assert self.merged is not None
            return F.linear(input, self.merged, self.bias)
        selected = self.routing.select(self.side, input.size(1))
        rows, foreign = selected.rows, selected.foreign
        output = LanguageSpecificLinearFunction.apply(
            *(input, self.weight, self.bias, self.lora_A, self._weighted_b(), rows, foreign, self.slice),
            self._dropped(input),
        )
        return output.view(*input.shape[:-1], self.out_features)

    def _dropped(self, input: Tensor) -> Tensor | None:
        """What A reads after dropout, ``(time, batch, f_in)``; None without dropout, which then draws no numbers."""
        if not (self.training and self.dropout):
            return None
        return F.dropout(input if self.slice is None else input[..., self.slice], self.dropout)

    def extra_repr(self) -> str:
        """What ``print`` shows of the layer."""
        covered = "all" if self.slice is None else f"{self.slice.start}:{self.slice.stop}"
        return f"{super().extra_repr()}, selected_by={self.side}, rows={self.layout.rows}, features={covered}"
