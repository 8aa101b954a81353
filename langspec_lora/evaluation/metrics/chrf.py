"""chrF++ (Popović, WMT 2015 and 2017): an F-score of character and word n-grams."""

# Imports in functions: NumPy and sacrebleu take start-up time; see metric.py.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langspec_lora.evaluation.metrics.metric import SacrebleuMetric

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Chrf(SacrebleuMetric):
    """chrF++, which no tokenizer changes."""

    name, label = "chrf", "chrF++"

    def build(self, arguments: Mapping[str, Any], references: Sequence[str]) -> Any:
        """See :class:`SacrebleuMetric`."""
        from sacrebleu.metrics import CHRF

        return CHRF(**arguments, references=[list(references)])

    def arguments(self, tokenize: str) -> dict[str, Any]:
        """See :class:`SacrebleuMetric`."""
        return {"word_order": 2}

    def arguments_from(self, signature: Mapping[str, str], tokenize: str) -> dict[str, Any]:
        """See :class:`SacrebleuMetric`."""
        orders = {"word_order": signature.get("nw", ""), "char_order": signature.get("nc", "")}
        return {name: int(order) for name, order in orders.items() if order.isdecimal()}

    def scores_from_sums(self, sums: NDArray, beta: float = 2.0) -> NDArray:
        """See :class:`SacrebleuMetric`.

        Args:
            sums: ``(samples, 3 · orders)``: for each order the n-grams of hypotheses, of references, and the matching.
            beta: weight of recall.
        """
        import numpy as np

        hypotheses, references, matching = sums[:, 0::3], sums[:, 1::3], sums[:, 2::3]
        counted = (hypotheses > 0) & (references > 0)
        orders = counted.sum(axis=1)
        with np.errstate(invalid="ignore"):
            precision = np.where(counted, matching / hypotheses, 0.0).sum(axis=1) / orders
            recall = np.where(counted, matching / references, 0.0).sum(axis=1) / orders
            scores = 100 * (1 + beta**2) * precision * recall / (beta**2 * precision + recall)
        return np.where(precision + recall > 0, scores, 0.0)
