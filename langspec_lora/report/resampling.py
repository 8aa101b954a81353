"""Scores of many bootstrap resamples at once: sacrebleu's resamples and formulas, over arrays.

sacrebleu copies the counts of all sentences for each resample and scores them one by one. Here a resample is the number
of times that it holds each sentence, so that the sums of all are a product of matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

SEED = 12345
"""sacrebleu's own, so that its command line draws the same resamples."""

_CHUNK = 1000  # resamples drawn at a time


@lru_cache(maxsize=1)
def _draws(sentences: int, samples: int) -> list[NDArray]:
    """How often each resample holds each sentence: chunks ``(resamples, sentences)``, in the order sacrebleu draws."""
    generator = np.random.default_rng(SEED)
    chunks = []
    for start in range(0, samples, _CHUNK):
        size = min(_CHUNK, samples - start)
        rows = generator.choice(sentences, size=(size, sentences), replace=True)
        cells = rows + sentences * np.arange(size)[:, None]
        counts = np.bincount(cells.ravel(), minlength=size * sentences).reshape(size, sentences)
        chunks.append(counts.astype(np.min_scalar_type(int(counts.max()))))
    return chunks


def resampled_sums(statistics: Sequence[Sequence[float]], samples: int) -> NDArray:
    """Sums of the sentences' counts over each resample.

    Args:
        statistics: what a metric of sacrebleu counted in each sentence, ``(sentences, counts)``.
        samples: number of resamples.

    Returns:
        ``(samples, counts)``.
    """
    # Whole numbers, of which single precision holds sums up to 16 million exactly: characters of a test set.
    table = np.array(statistics, dtype=np.float32)
    sums = [counts.astype(np.float32) @ table for counts in _draws(len(table), samples)]
    return np.concatenate(sums).astype(np.float64)


def bleu_scores(sums: NDArray) -> NDArray:
    """BLEU with exponential smoothing (Papineni et al., ACL 2002; Chen and Cherry, WMT 2014), as sacrebleu has it.

    Args:
        sums: ``(samples, 10)``: lengths of hypotheses and references, matching n-grams and all of order 1 to 4.

    Returns:
        The scores in percent, ``(samples,)``.
    """
    length, reference, matching, total = sums[:, 0], sums[:, 1], sums[:, 2:6], sums[:, 6:]
    smoothing = 2.0 ** np.cumsum(matching == 0, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precisions = 100 * np.where(matching > 0, matching, 1 / smoothing) / total
        brevity = np.where(length < reference, np.exp(1 - reference / length), 1.0)
        scores = brevity * np.exp(np.log(precisions).mean(axis=1))
    return np.where(matching.any(axis=1) & (total > 0).all(axis=1), scores, 0.0)


def chrf_scores(sums: NDArray, beta: float = 2.0) -> NDArray:
    """chrF (Popović, WMT 2015 and 2017), as sacrebleu has it.

    Args:
        sums: ``(samples, 3 · orders)``: n-grams of hypotheses, of references and those that match, for each order.
        beta: weight of recall.

    Returns:
        The scores in percent, ``(samples,)``.
    """
    hypotheses, references, matching = sums[:, 0::3], sums[:, 1::3], sums[:, 2::3]
    counted = (hypotheses > 0) & (references > 0)
    orders = counted.sum(axis=1)
    with np.errstate(invalid="ignore"):
        precision = np.where(counted, matching / hypotheses, 0.0).sum(axis=1) / orders
        recall = np.where(counted, matching / references, 0.0).sum(axis=1) / orders
        scores = 100 * (1 + beta**2) * precision * recall / (beta**2 * precision + recall)
    return np.where(precision + recall > 0, scores, 0.0)
