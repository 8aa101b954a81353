"""A dictionary that leaves language tokens out of texts."""

from __future__ import annotations

from typing import Any

from fairseq.data import Dictionary
from torch import Tensor


class WithoutTokens(Dictionary):
    """A view of a dictionary that converts hypotheses to text as fairseq-generate does.

    ``fairseq-generate`` names the symbols to leave out. fairseq's hub interface (``from_pretrained(…).translate``) does
    not, so its translations would start with ``__fr__``.
    """

    left_out: frozenset[int] = frozenset()

    @classmethod
    def of(cls, dictionary: Dictionary, tokens: Tensor | None) -> Dictionary:
        """Makes a view that shares the entries; without tokens, returns the dictionary itself.

        Args:
            dictionary: the dictionary.
            tokens: ids to leave out, ``(tokens,)``.
        """
        if tokens is None:
            return dictionary
        view = cls.__new__(cls)
        view.__dict__ = dictionary.__dict__ | {"left_out": frozenset(tokens.tolist())}
        return view

    def string(
        self,
        tensor: Any,
        bpe_symbol: str | None = None,
        escape_unk: bool = False,
        extra_symbols_to_ignore: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> str:
        """See fairseq's dictionary."""
        ignored = self.left_out if extra_symbols_to_ignore is None else extra_symbols_to_ignore
        return super().string(tensor, bpe_symbol, escape_unk, ignored, *args, **kwargs)
