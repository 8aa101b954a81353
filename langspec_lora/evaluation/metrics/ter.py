"""TER (Snover et al., AMTA 2006): edits, among them moves of words, that a hypothesis needs; lower is better."""

# Imports in functions: NumPy and sacrebleu take start-up time; see metric.py.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langspec_lora.evaluation.metrics.metric import SacrebleuMetric

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Ter(SacrebleuMetric):
    """TER with sacrebleu's defaults; only on request, as it takes many times as long as BLEU."""

    name, label = "ter", "TER"
    bounds = (0.0, 1e6)  # hypotheses may be much longer than their references
    higher_is_better = False
    always = False

    def title(self, signature: str) -> str:
        """With what it has to be read by."""
        return "TER (lower is better)"

    def build(self, arguments: Mapping[str, Any], references: Sequence[str]) -> Any:
        """See :class:`SacrebleuMetric`."""
        from sacrebleu.metrics import TER

        return TER(**arguments, references=[list(references)])

    def arguments(self, tokenize: str) -> dict[str, Any]:
        """See :class:`SacrebleuMetric`."""
        return {}

    def arguments_from(self, signature: Mapping[str, str], tokenize: str) -> dict[str, Any]:
        """See :class:`SacrebleuMetric`."""
        return {
            "normalized": signature.get("norm") == "yes",
            "no_punct": signature.get("punct") == "no",
            "asian_support": signature.get("asian") == "yes",
            "case_sensitive": signature.get("case") == "mixed",
        }

    def scores_from_sums(self, sums: NDArray) -> NDArray:
        """See :class:`SacrebleuMetric`.

        Args:
            sums: ``(samples, 2)``: edits, and words of the references.
        """
        import numpy as np

        edits, words = sums[:, 0], sums[:, 1]
        with np.errstate(divide="ignore", invalid="ignore"):
            return 100 * np.where(words > 0, edits / words, np.where(edits > 0, 1.0, 0.0))
