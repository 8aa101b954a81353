"""The loss of each direction with some adapters left out or replaced; forward passes only, with given targets."""

# Imports in functions: fairseq takes seconds, and a command line is read without it.

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from langspec_lora.ablation.plan import AS_SOURCE, AS_TARGET, Parts
from langspec_lora.data.directions import Direction
from langspec_lora.lora import LanguageSpecificLinear
from langspec_lora.models.injected import InjectedAdapters
from langspec_lora.sites import LEARNED

_LOGITS = 2**28  # bytes of single precision that are computed at once


@dataclass(frozen=True)
class Batch:
    """Sentences of one direction.

    Attributes:
        inputs: ``src_tokens (batch, src_len)``, ``src_lengths (batch,)`` and ``prev_output_tokens (batch, tgt_len)``.
        target: the tokens to predict, ``(batch, tgt_len)``, padded.
        places: the place of each sentence among those of its direction, ``(batch,)``.
    """

    inputs: Mapping[str, Tensor]
    target: Tensor
    places: np.ndarray


class LossMeter:
    """Measures the loss of directions on the same batches again and again.

    The loss is the negative log-likelihood of the target's tokens in nats, without label smoothing. A language token
    before the target is no part of it: a search is given that token, so it costs nothing there, while another
    language's adapter would predict another token.

    Args:
        model: a :class:`~langspec_lora.models.transformer.LanguageSpecificTransformer` with adapters.
        ids: the id of each language, as batches have them.
        padding: the id of padding.
        prefix: number of tokens at the start of each target that are no part of the loss.
    """

    def __init__(self, model: Any, ids: Mapping[str, int], padding: int, prefix: int) -> None:
        self._model, self._ids, self._padding, self._prefix = model, ids, padding, prefix
        self._batches: dict[Direction, Sequence[Batch]] = {}

    def add(self, direction: Direction, batches: Sequence[Batch]) -> None:
        """Adds the sentences of a direction."""
        self._batches[direction] = batches

    def tokens(self, direction: Direction) -> np.ndarray:
        """The number of target tokens of each sentence that count, ``(sentences,)``."""
        return self._in_order(
            (batch.places, batch.target[:, self._prefix :].ne(self._padding).sum(1))
            for batch in self._batches[direction]
        )

    def measure(self, direction: Direction, routed: Direction | None = None) -> np.ndarray:
        """The loss of each sentence of a direction, in nats, ``(sentences,)`` in double precision.

        Args:
            direction: whose sentences.
            routed: the languages that select the adapters; None for those of the direction.
        """
        source, target = (self._ids[name] for name in routed or direction)
        return self._in_order((batch.places, self._loss(batch, source, target)) for batch in self._batches[direction])

    @staticmethod
    def _in_order(found: Iterable[tuple[np.ndarray, Tensor]]) -> np.ndarray:
        places, values = zip(*found, strict=True)
        joined = torch.cat(values).cpu().numpy()
        return joined[np.argsort(np.concatenate(places))]

    @torch.no_grad()
    def _loss(self, batch: Batch, source: int, target: int) -> Tensor:
        """The loss of each sentence, ``(batch,)``."""
        model, device = self._model, batch.target.device
        languages = {
            "src_lang_id": torch.tensor([source], device=device),  # a single id is for all sentences
            "tgt_lang_id": torch.tensor([target], device=device),
        }
        features, extra = model(**batch.inputs, **languages, features_only=True)
        features, targets = features[:, self._prefix :], batch.target[:, self._prefix :]
        losses = []
        step = max(1, _LOGITS // (4 * targets.size(1) * len(model.decoder.dictionary)))
        for start in range(0, len(targets), step):
            part, wanted = features[start : start + step], targets[start : start + step]
            output = (model.decoder.output_layer(part), extra)
            log_p = model.get_normalized_probs(output, log_probs=True, sample={"target": wanted})
            found = log_p.gather(-1, wanted.unsqueeze(-1)).squeeze(-1)
            losses.append(-found.masked_fill(wanted.eq(self._padding), 0).sum(1, dtype=torch.float64))
        return torch.cat(losses)


@contextmanager
def without(adapters: InjectedAdapters, left_out: Parts) -> Iterator[None]:
    """Leaves adapters out within a ``with`` block; afterwards the model is what it was, bit for bit.

    Args:
        adapters: the adapters of a model.
        left_out: sites and roles.
    """
    kept: list[tuple[Tensor, Tensor]] = []
    try:
        for rows in _rows(adapters, left_out):
            kept.append((rows, rows.clone()))
            rows.zero_()
        yield
    finally:
        for rows, values in kept:
            rows.copy_(values)


def _rows(adapters: InjectedAdapters, parts: Parts) -> Iterable[Tensor]:
    """The rows of B that act at some sites in some roles, as views, ``(rows, d_out)``."""
    return [adapters.linears[site].lora_B.detach()[rows_of(adapters.linears[site], role)] for site, role in parts]


def rows_of(linear: LanguageSpecificLinear, role: str) -> slice:
    """The rows of an adapted linear that act in a role."""
    if linear.side != LEARNED:
        return slice(None)
    half = linear.layout.rows // 2
    return {AS_SOURCE: slice(0, half), AS_TARGET: slice(half, None)}[role]


def batches_of(
    dataset: Any, sentences: int, max_tokens: int, max_sentences: int | None, device: torch.device
) -> list[Batch]:
    """Collates sentences that are spread evenly over a dataset of one direction.

    Args:
        dataset: a :class:`~langspec_lora.data.language_ids.LanguageIdDataset`.
        sentences: how many; all, if there are fewer.
        max_tokens: at most so many tokens in a batch, with padding.
        max_sentences: at most so many sentences.
        device: where the batches are kept.
    """
    from fairseq import utils

    chosen = np.unique(spread(len(dataset), sentences))
    longest = np.asarray(dataset.sizes).max(axis=1)[chosen]
    order = chosen[np.argsort(longest, kind="stable")]
    place_of = {int(index): place for place, index in enumerate(chosen)}
    batches = []
    for indices in dataset.batch_by_size(order, max_tokens=max_tokens, max_sentences=max_sentences):
        sample = dataset.collater([{**dataset[int(index)], "id": int(index)} for index in indices])
        places = np.array([place_of[index] for index in sample["id"].tolist()])
        if device.type == "cuda":
            sample = utils.move_to_cuda(sample, device)
        names = ("src_tokens", "src_lengths", "prev_output_tokens")
        batches.append(Batch({name: sample["net_input"][name] for name in names}, sample["target"], places))
    return batches


def spread(count: int, wanted: int) -> np.ndarray:
    """Indices of ``wanted`` sentences among ``count``, as evenly spread as can be: the middles of equal sections."""
    wanted = min(count, wanted)
    return (2 * np.arange(wanted) + 1) * count // (2 * wanted)
