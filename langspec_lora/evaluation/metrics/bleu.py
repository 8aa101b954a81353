"""BLEU (Papineni et al., ACL 2002); spBLEU with a SentencePiece tokenizer (Goyal et al., TACL 2022)."""

# Imports in functions: NumPy and sacrebleu take start-up time; see metric.py.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langspec_lora.evaluation.metrics.metric import SacrebleuMetric
from langspec_lora.tokenizers import require_tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SENTENCEPIECE = ("spm", "flores101", "flores200", "spBLEU-1K")


class Bleu(SacrebleuMetric):
    """BLEU; the tokenizer decides what it counts."""

    name, label = "bleu", "BLEU"

    def short_label(self, tokenize: str) -> str:
        """With the tokenizer that was asked for."""
        return f"BLEU ({tokenize})"

    def title(self, signature: str) -> str:
        """SpBLEU if the signature names a SentencePiece tokenizer, else BLEU with the tokenizer."""
        tokenizer = next((part[4:] for part in signature.split("|") if part.startswith("tok:")), "")
        if tokenizer in _SENTENCEPIECE:
            return "spBLEU"
        return f"BLEU ({tokenizer})" if tokenizer else "BLEU"

    def build(self, arguments: Mapping[str, Any], references: Sequence[str]) -> Any:
        """See :class:`SacrebleuMetric`."""
        from sacrebleu.metrics import BLEU

        return BLEU(**arguments, references=[list(references)])

    def arguments(self, tokenize: str) -> dict[str, Any]:
        """See :class:`SacrebleuMetric`."""
        # `force` only silences the warning that hypotheses look tokenized, which short test sets set off.
        return {"tokenize": tokenize, "force": True}

    def arguments_from(self, signature: Mapping[str, str], tokenize: str) -> dict[str, Any] | None:
        """See :class:`SacrebleuMetric`."""
        tokenizer = tokenize or signature.get("tok", "")
        if not tokenizer:
            return None
        require_tokenizer(tokenizer)
        return {"tokenize": tokenizer, "lowercase": signature.get("case") == "lc", "force": True}

    def scores_from_sums(self, sums: NDArray) -> NDArray:
        """BLEU with exponential smoothing (Chen and Cherry, WMT 2014).

        Args:
            sums: ``(samples, 10)``: lengths of hypotheses and references, matching and all n-grams of order 1 to 4.
        """
        import numpy as np

        length, reference, matching, total = sums[:, 0], sums[:, 1], sums[:, 2:6], sums[:, 6:]
        smoothing = 2.0 ** np.cumsum(matching == 0, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            precisions = 100 * np.where(matching > 0, matching, 1 / smoothing) / total
            brevity = np.where(length < reference, np.exp(1 - reference / length), 1.0)
            scores = brevity * np.exp(np.log(precisions).mean(axis=1))
        return np.where(matching.any(axis=1) & (total > 0).all(axis=1), scores, 0.0)
