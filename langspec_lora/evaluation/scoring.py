"""Scores of a direction's hypotheses, by sacrebleu's Python interface: the figures its command line prints."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.evaluation.metrics import USUAL_METRICS

ENTRY_KEYS = frozenset((*USUAL_METRICS, "bleu_json", "sentences", "hypotheses_sha256", "references_sha256"))
"""What :meth:`TargetScorer.score` returns of a direction."""


class TargetScorer:
    """Scores any number of directions into one target language, whose references are tokenized once.

    Args:
        references: reference sentences of the target language.
        tokenize: sacrebleu's name of the BLEU tokenizer, such as ``spm``, ``13a`` or ``char``.
    """

    def __init__(self, references: Sequence[str], tokenize: str) -> None:
        self.references = list(references)
        self.tokenize = tokenize
        self.references_sha256 = text_sha256(self.references)

    @cached_property
    def _metrics(self) -> dict[str, Any]:
        return {
            name: metric.build(metric.arguments(self.tokenize), self.references)
            for name, metric in USUAL_METRICS.items()
        }

    def score(self, direction: Direction, hypotheses: Sequence[str]) -> dict[str, Any]:
        """Scores one direction.

        Returns:
            Its entry in ``scores.json``: each metric's score in percent, unrounded; ``bleu_json``, which is what
            ``sacrebleu … -w 2`` prints; the number of sentences; and the texts' hashes.

        Raises:
            UserError: hypotheses and references differ in number.
        """
        if len(hypotheses) != len(self.references):
            raise UserError(
                f"{direction}: {len(hypotheses)} hypotheses but {len(self.references)} references; "
                "give the references of the sentences that were translated"
            )
        scores = {name: metric.corpus_score(hypotheses, references=None) for name, metric in self._metrics.items()}
        return {
            **{name: score.score for name, score in scores.items()},
            "bleu_json": scores["bleu"].format(2, False, self.signatures()["bleu"], True),
            "sentences": len(hypotheses),
            "hypotheses_sha256": text_sha256(hypotheses),
            "references_sha256": self.references_sha256,
        }

    def signatures(self) -> dict[str, str]:
        """Sacrebleu's signatures of the metrics; they are complete once a direction has been scored."""
        return {name: metric.get_signature().format() for name, metric in self._metrics.items()}


def text_sha256(lines: Sequence[str]) -> str:
    """Hash of lines of text, each ended by a newline."""
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
