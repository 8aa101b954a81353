"""Which adapters the sentences of a batch use; computed once per batch for all adapted linears of a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from langspec_lora.errors import UserError
from langspec_lora.keys import KeyLayout, PackedLayout
from langspec_lora.lora.factors import row_factors
from langspec_lora.lora.mixture import SideMixture
from langspec_lora.scaling import Scaling
from langspec_lora.sites import DIRECTION, LEARNED, SHARED, SOURCE, TARGET

DENSE_ROWS = 128
"""Up to this many rows, projecting onto all rows and masking the foreign ones is faster than gathering rows."""


@dataclass(frozen=True)
class Languages:
    """Source and target language ids of a batch, each ``(batch,)``, or ``(1,)`` if all sentences have the same."""

    source: Tensor
    target: Tensor


@dataclass(frozen=True)
class Selection:
    """The rows of a packed tensor that each sentence uses.

    Attributes:
        rows: row indices: ``(1, r_max)`` if all sentences have the same key, else ``(batch, r_max)``. A key of lower
            rank repeats its first row. None if every sentence uses all rows, because there are few.
        foreign: True for rows that do not belong to the sentence, because they are another key's or repeated.
            ``(batch, R)`` if ``rows`` is None, else the shape of ``rows``; None if there are no such rows.
    """

    rows: Tensor | None
    foreign: Tensor | None


class KeyRows(nn.Module):
    """The rows of each key, as index tables on the model's device.

    Args:
        layout: the packed layout.
    """

    row_table: Tensor
    padding_table: Tensor
    foreign_table: Tensor

    def __init__(self, layout: PackedLayout) -> None:
        super().__init__()
        widest, keys = max(layout.ranks), len(layout.ranks)
        rank = torch.tensor(layout.ranks).unsqueeze(1)  # (keys, 1)
        column = torch.arange(widest).unsqueeze(0)  # (1, r_max)
        first = torch.tensor(layout.offsets).unsqueeze(1)
        self.dense = layout.rows <= DENSE_ROWS
        self._equal_ranks = len(set(layout.ranks)) == 1
        self._one_key = keys == 1
        # Not saved: the layout determines them. The largest is needed only where it is small.
        self.register_buffer("row_table", first + torch.where(column < rank, column, 0), persistent=False)
        self.register_buffer("padding_table", column >= rank, persistent=False)
        owner = torch.repeat_interleave(torch.arange(keys), torch.tensor(layout.ranks))
        foreign = owner.unsqueeze(0) != torch.arange(keys).unsqueeze(1) if self.dense else torch.empty(0)
        self.register_buffer("foreign_table", foreign, persistent=False)  # (keys, R)

    def select(self, keys: Tensor) -> Selection:
        """The rows of some sentences.

        Args:
            keys: the keys of each sentence, ``(batch, 1)``, or ``(batch, 2)`` where two adapters are mixed; the batch
                is 1 if all sentences have the same.
        """
        if self._one_key:
            return Selection(None, None)
        if self.dense and len(keys) > 1:
            return Selection(None, self.foreign_table[keys].all(1))
        rows = self.row_table[keys].flatten(1)
        return Selection(rows, None if self._equal_ranks else self.padding_table[keys].flatten(1))


class LanguageRouting(nn.Module):
    """The languages of the current batch, for all adapted linears of one model.

    The model sets :attr:`current` at the start of a forward pass, so the layers in between need no further arguments.
    It is a module only so that its index tables move to the model's device.

    Args:
        layout: the keys of the model's adapters and their rows.
        mixture: the weights of the layers that mix the adapters of source and target, or None.
        scaling: what the adapters' products are multiplied by; None for no factor.
    """

    key_table: Tensor
    direction_table: Tensor
    model_id: Tensor

    def __init__(self, layout: KeyLayout, mixture: SideMixture | None = None, scaling: Scaling | None = None) -> None:
        super().__init__()
        self.layout, self.mixture, self.scaling = layout, mixture, scaling
        self._factors: dict[tuple, Tensor] = {}
        self._weights: tuple[tuple, Tensor] | None = None
        self.current: Languages | None = None
        self._selections: dict[tuple[str, int], Selection] = {}
        rows = {id(packed): KeyRows(packed) for packed in layout.packed.values()}  # one for source and target
        self._rows = nn.ModuleDict({side: rows[id(packed)] for side, packed in layout.packed.items()})
        self.register_buffer("key_table", torch.tensor(layout.key_of_language), persistent=False)
        self.register_buffer("direction_table", _direction_table(layout), persistent=False)
        self.register_buffer("model_id", torch.arange(layout.languages), persistent=False)
        self.model_ids = list(range(layout.languages))

    def translate_ids(self, model_ids: Sequence[int | None]) -> None:
        """Sets the model's language id for each id in the batches.

        Args:
            model_ids: for every id that batches may contain, the model's id, or None if the model does not have the
                language. A batch with such a language fails, because the lookup is out of range.
        """
        behind = self.layout.languages
        self.model_ids = [behind if language is None else language for language in model_ids]
        self.model_id = torch.tensor(self.model_ids, device=self.key_table.device)

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
            self.current, self._weights = languages, None
            self._selections.clear()

    @contextmanager
    def using(self, languages: Languages | None) -> Iterator[None]:
        """Sets the languages within a ``with`` block, for the recomputation of a checkpointed layer."""
        before = self.current
        self.set(languages)
        self._weights = None  # a layer that is run again has a graph of its own
        try:
            yield
        finally:
            self.set(before)
            self._weights = None

    def select(self, side: str, batch: int) -> Selection:
        """Returns the rows that the sentences of a batch use.

        Args:
            side: what selects the adapter, see :data:`~langspec_lora.sites.SIDES`.
            batch: number of sentences of the tensor to adapt. It is the batch of the routing, or that batch divided by
                the beam size: fairseq projects cross-attention's keys and values once per sentence, not per beam.

        Raises:
            RuntimeError: no batch was set, or ``batch`` does not fit it.
            UserError: a direction has no adapter.
        """
        key = (side, batch)
        if key not in self._selections:
            keys = self._keys(side)
            if len(keys) > 1:
                beams, rest = divmod(len(keys), batch)
                if rest:
                    raise RuntimeError(f"{batch} sentences were given, but the routing was set for {len(keys)}")
                keys = keys[::beams]
            self._selections[key] = cast(KeyRows, self._rows[side]).select(keys)
        return self._selections[key]

    def row_weights(self, layer: int) -> Tensor:
        """The weight of each packed row in a layer that mixes the adapters of source and target, ``(R, 1)``.

        Args:
            layer: the layer's place in the mixture.
        """
        assert self.mixture is not None
        state = self.mixture.logits._version, self.mixture.hard, torch.is_grad_enabled()
        if self._weights is None or self._weights[0] != state:
            half = self.layout.packed[LEARNED].rows // 2
            weights = self.mixture.weights().repeat_interleave(half, 1).unsqueeze(-1)  # (layers, R, 1)
            self._weights = state, weights
        return self._weights[1][layer]

    def factors(self, side: str, b: Tensor) -> Tensor | None:
        """What the scaling multiplies each packed row of B by, ``(R, 1)``; None if there is no scaling.

        It is in single precision or better. No buffer holds it, because half precision would round that.

        Args:
            side: what selects the adapter.
            b: the packed B.
        """
        if self.scaling is None:
            return None
        key = side, b.device, b.dtype
        if key not in self._factors:
            dtype = torch.promote_types(b.dtype, torch.float32)
            self._factors[key] = row_factors(self.scaling, self.layout.packed[side].ranks).to(b.device, dtype)
        return self._factors[key]

    def _keys(self, side: str) -> Tensor:
        """The keys of each sentence, ``(batch, 1 or 2)``; the batch is 1 if all have the same."""
        if self.current is None:
            raise RuntimeError(
                "the batch carries no language ids; use the task translation_multi_simple_epoch_lora, "
                "or pass src_lang_id and tgt_lang_id to the model"
            )
        source, target = self.current.source, self.current.target
        if side == SHARED:
            return self.key_table[:1, None]
        if side == LEARNED:
            both = torch.broadcast_tensors(self.key_table[source], self.key_table[target] + self.layout.keys_as_source)
            return torch.stack(both, 1)
        if side != DIRECTION:
            return self.key_table[source if side == SOURCE else target].unsqueeze(1)
        keys, behind = self.direction_table[source, target], len(self.layout.key_of_direction)
        # On a GPU, this check would wait for the device; there, a lookup out of range fails by itself.
        if behind in (known := _known(keys)):
            place = known.index(behind)
            self.layout.keys(DIRECTION, *(int(ids[min(place, len(ids) - 1)]) for ids in (source, target)))  # raises
        return keys.unsqueeze(1)


def _direction_table(layout: KeyLayout) -> Tensor:
    """The key of each direction, or their number if it has none, ``(languages, languages)``; else empty."""
    if not layout.key_of_direction:
        return torch.empty(0, 0, dtype=torch.long)
    table = torch.full((layout.languages, layout.languages), len(layout.key_of_direction))
    places = torch.tensor(list(layout.key_of_direction))
    table[places[:, 0], places[:, 1]] = torch.tensor(list(layout.key_of_direction.values()))
    return table


def _known(ids: Tensor) -> list[int]:
    """The ids as Python numbers, if they are on the CPU."""
    return ids.tolist() if ids.device.type == "cpu" else []
