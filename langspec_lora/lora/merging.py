"""Adds the adapters of one direction to the base weights, so that decoding is as fast as with the base model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from langspec_lora.lora.linear import LanguageSpecificLinear


@torch.no_grad()
def merged_weight(linear: LanguageSpecificLinear, source: int, target: int) -> Tensor:
    """``W + B_k A_k`` of one direction, computed in single precision or better and rounded once.

    Args:
        linear: an adapted linear.
        source: the source language's id in the model.
        target: the target language's.

    Returns:
        ``(d_out, d_in)``, of the weight's type; the linear stays as it is.
    """
    a, b = (torch.cat(parts) for parts in zip(*linear.parts(source, target), strict=True))
    return add_low_rank(linear.weight, a, b, linear.slice)


@torch.no_grad()
def add_low_rank(weight: Tensor, a: Tensor, b: Tensor, part: slice | None = None) -> Tensor:
    """``W + B A``, computed in single precision or better and rounded once.

    Args:
        weight: ``(d_out, d_in)``.
        a: ``(r, d_in)``, or as wide as the slice.
        b: ``(r, d_out)``, likewise.
        part: the features of input and output that the adapter covers; None for all.

    Returns:
        ``(d_out, d_in)``, of the weight's type; the weight stays as it is.
    """
    dtype = torch.promote_types(weight.dtype, torch.float32)
    a, b = a.to(dtype), b.to(dtype)
    if part is None:
        return torch.addmm(weight.to(dtype), b.t(), a).to(weight.dtype)
    merged = weight.to(dtype, copy=True)
    merged[part, part].addmm_(b.t(), a)
    return merged.to(weight.dtype)


class MergedWeights:
    """The merged weights of one direction, in addition to the base weights, which are never changed.

    So after the direction the model uses the base again, bit for bit, and a model that is saved at any time has base
    and adapters. The merged weights are kept for the next batch of the direction, and computed again if an adapter or a
    base weight has changed. They take as much memory as the adapted base weights.

    Args:
        linears: the adapted linears of one model.
    """

    def __init__(self, linears: Iterable[LanguageSpecificLinear]) -> None:
        self._linears: Sequence[LanguageSpecificLinear] = tuple(linears)
        self._made_for: tuple | None = None

    @contextmanager
    def using(self, source: int, target: int) -> Iterator[None]:
        """Uses the merged weights of a direction within a ``with`` block.

        The language ids of batches are ignored there: all sentences are treated as this direction.

        Args:
            source: the source language's id in the model.
            target: the target language's, likewise.
        """
        made_for = (source, target, *self._state())
        if made_for != self._made_for:
            self.forget()
            for linear in self._linears:
                linear.merged = merged_weight(linear, source, target)
            self._made_for = made_for
        for linear in self._linears:
            linear.computes_merged = True
        try:
            yield
        finally:
            for linear in self._linears:
                linear.computes_merged = False

    def forget(self) -> None:
        """Frees the merged weights."""
        self._made_for = None
        for linear in self._linears:
            linear.merged = None

    def _state(self) -> Iterator[tuple]:
        """A value that changes if a weight is replaced, moved or written to in place."""
        for linear in self._linears:
            for parameter in (linear.weight, linear.lora_A, linear.lora_B):
                yield parameter.data_ptr(), parameter.dtype, parameter._version
        for mixture in {linear.routing.mixture for linear in self._linears}:
            if mixture is not None:
                yield mixture.hard, mixture.logits.data_ptr(), mixture.logits._version
