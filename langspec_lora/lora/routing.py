"""Which adapters the sentences of a batch use; computed once per batch for all adapted linears of a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn

from langspec_lora.errors import UserError
from langspec_lora.sites import SOURCE, TARGET

DENSE_ROWS = 128
"""Up to this many rows, projecting onto all rows and masking the foreign ones is faster than gathering rows."""


@dataclass(frozen=True)
class PackedLayout:
    """How the adapters of all languages are packed in one tensor.

    Language ``l`` has the rows ``offsets[l]`` to ``offsets[l] + ranks[l]`` of ``A (R, d_in)`` and of ``B (R, d_out)``,
    with ``R`` the sum of all ranks.

    Attributes:
        ranks: rank of each language's adapter, by language id.
    """

    ranks: tuple[int, ...]

    @property
    def offsets(self) -> tuple[int, ...]:
        """First row of each language."""
        return tuple(accumulate(self.ranks, initial=0))[:-1]

    @property
    def rows(self) -> int:
        """``R``, the number of rows of a packed tensor."""
        return sum(self.ranks)

    def slice(self, language: int) -> slice:
        """The rows of one language."""
        start = self.offsets[language]
        return slice(start, start + self.ranks[language])


@dataclass(frozen=True)
class Languages:
    """Source and target language ids of a batch, each ``(batch,)``, or ``(1,)`` if all sentences have the same."""

    source: Tensor
    target: Tensor


@dataclass(frozen=True)
class Selection:
    """The rows of a packed tensor that each sentence uses.

    Attributes:
        rows: row indices: ``(1, r_max)`` if all sentences have the same language, else ``(batch, r_max)``. A language
            of lower rank repeats its first row. None if every sentence uses all rows, because there are few.
        foreign: True for rows that do not belong to the sentence, because they are another language's or repeated.
            ``(batch, R)`` if ``rows`` is None, else the shape of ``rows``; None if there are no such rows.
    """

    rows: Tensor | None
    foreign: Tensor | None


class LanguageRouting(nn.Module):
    """The languages of the current batch, for all adapted linears of one model.

    The model sets :attr:`current` at the start of a forward pass, so the layers in between need no further arguments.
    It is a module only so that its index tables move to the model's device. The layout determines the tables, so they
    are not saved.

    Args:
        layout: the packed layout, the same in every adapted linear of the model.
    """

    row_table: Tensor
    padding_table: Tensor
    foreign_table: Tensor
    model_id: Tensor

    def __init__(self, layout: PackedLayout) -> None:
        super().__init__()
        self.layout = layout
        self.current: Languages | None = None
        self._selections: dict[tuple[str, int], Selection] = {}

        widest = max(layout.ranks)
        rank = torch.tensor(layout.ranks).unsqueeze(1)  # (languages, 1)
        column = torch.arange(widest).unsqueeze(0)  # (1, r_max)
        first = torch.tensor(layout.offsets).unsqueeze(1)
        owner = torch.repeat_interleave(torch.arange(len(layout.ranks)), torch.tensor(layout.ranks))
        self.register_buffer("row_table", first + torch.where(column < rank, column, 0), persistent=False)
        self.register_buffer("padding_table", column >= rank, persistent=False)
        ids = torch.arange(len(layout.ranks)).unsqueeze(1)
        self.register_buffer("foreign_table", owner.unsqueeze(0) != ids, persistent=False)  # (languages, R)
        self.register_buffer("model_id", torch.arange(len(layout.ranks)), persistent=False)
        self.model_ids = list(range(len(layout.ranks)))
        self._dense = layout.rows <= DENSE_ROWS
        self._equal_ranks = len(set(layout.ranks)) == 1

    def translate_ids(self, model_ids: Sequence[int | None]) -> None:
        """Sets the model's language id for each id in the batches.

        Args:
            model_ids: for every id that batches may contain, the model's id, or None if the model does not have the
                language. A batch with such a language fails, because the lookup is out of range.
        """
        behind = len(self.layout.ranks)
        self.model_ids = [behind if language is None else language for language in model_ids]
        self.model_id = torch.tensor(self.model_ids, device=self.foreign_table.device)

    def set_batch(self, source: Tensor | None, target: Tensor | None, batch: int | None = None) -> None:
        """Sets the languages of the batch.

        Args:
            source: source language ids as in the batch, ``(batch,)`` or ``(batch, 1)``; a single id is for all
                sentences.
            target: target language ids, likewise.
            batch: the number of sentences, if it is known.

        Raises:
            UserError: source or target ids are missing, are not ids of languages, or are neither one nor one per
                sentence.
        """
        self.set(Languages(*(self._model_ids(side, ids, batch) for side, ids in ((SOURCE, source), (TARGET, target)))))

    def _model_ids(self, side: str, ids: Tensor | None, batch: int | None) -> Tensor:
        name = f"{side}_lang_id"
        if ids is None:
            raise UserError(f"{name} is missing: a model with adapters needs the languages of both sides; pass it too")
        if ids.is_floating_point() or ids.dtype == torch.bool:
            raise UserError(f"{name} is of type {ids.dtype}; expected whole numbers, the positions in --langs")
        ids = ids.view(-1).long()
        if batch is not None and len(ids) not in (1, batch):
            raise UserError(f"{name} holds {len(ids)} ids for {batch} sentences; expected one, or one per sentence")
        # On a GPU, this check would wait for the device in every batch; there, a lookup out of range fails by itself.
        unknown = [number for number in _known(ids) if not 0 <= number < len(self.model_id)]
        if unknown:
            raise UserError(f"{name} holds {unknown[0]}; expected numbers from 0 to {len(self.model_id) - 1}")
        return self.model_id[ids]

    def set(self, languages: Languages | None) -> None:
        """Sets the languages of the batch by the model's ids."""
        if languages is not self.current:
            self.current = languages
            self._selections.clear()

    @contextmanager
    def using(self, languages: Languages | None) -> Iterator[None]:
        """Sets the languages within a ``with`` block, for the recomputation of a checkpointed layer."""
        before = self.current
        self.set(languages)
        try:
            yield
        finally:
            self.set(before)

    def select(self, side: str, batch: int) -> Selection:
        """Returns the rows that the sentences of a batch use.

        Args:
            side: ``"src"`` or ``"tgt"``: which language selects the adapter.
            batch: number of sentences of the tensor to adapt. It is the batch of the routing, or that batch divided by
                the beam size: fairseq projects cross-attention's keys and values once per sentence, not per beam.

        Raises:
            RuntimeError: no batch was set, or ``batch`` does not fit it.
        """
        key = (side, batch)
        if key not in self._selections:
            self._selections[key] = self._select(self._ids(side, batch))
        return self._selections[key]

    def _ids(self, side: str, batch: int) -> Tensor:
        if self.current is None:
            raise RuntimeError(
                "the batch carries no language ids; use the task translation_multi_simple_epoch_lora, "
                "or pass src_lang_id and tgt_lang_id to the model"
            )
        ids = self.current.source if side == SOURCE else self.current.target
        if len(ids) == 1:
            return ids
        beams, rest = divmod(len(ids), batch)
        if rest:
            raise RuntimeError(f"{batch} sentences were given, but the routing was set for {len(ids)}")
        return ids[::beams]

    def _select(self, ids: Tensor) -> Selection:
        if self._dense and len(ids) > 1:
            return Selection(None, self.foreign_table[ids])
        return Selection(self.row_table[ids], None if self._equal_ranks else self.padding_table[ids])


def _known(ids: Tensor) -> list[int]:
    """The ids as Python numbers, if they are on the CPU."""
    return ids.tolist() if ids.device.type == "cpu" else []
