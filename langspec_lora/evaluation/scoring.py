"""Scores of a direction's hypotheses, by sacrebleu's Python interface: the figures its command line prints."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError


@dataclass(frozen=True)
class DirectionScore:
    """The scores of one direction.

    Attributes:
        bleu: BLEU in percent, unrounded (spBLEU where the tokenizer is a SentencePiece one).
        chrf: chrF++ in percent, unrounded.
        bleu_json: what ``sacrebleu … -w 2`` prints for these files.
        sentences: number of sentences.
        hypotheses_sha256: hash of the hypotheses.
        references_sha256: hash of the references.
    """

    bleu: float
    chrf: float
    bleu_json: str
    sentences: int
    hypotheses_sha256: str
    references_sha256: str

    def to_json(self) -> dict:
        """The score as plain data for ``scores.json``."""
        return asdict(self)


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
    def _bleu(self):
        from sacrebleu.metrics import BLEU

        # `force` only silences the warning that hypotheses look tokenized, which short test sets set off.
        return BLEU(tokenize=self.tokenize, force=True, references=[self.references])

    @cached_property
    def _chrf(self):
        from sacrebleu.metrics import CHRF

        return CHRF(word_order=2, references=[self.references])

    def score(self, direction: Direction, hypotheses: Sequence[str]) -> DirectionScore:
        """Scores one direction.

        Raises:
            UserError: hypotheses and references differ in number.
        """
        if len(hypotheses) != len(self.references):
            raise UserError(
                f"{direction}: {len(hypotheses)} hypotheses but {len(self.references)} references; "
                "give the references of the very sentences that were translated"
            )
        bleu = self._bleu.corpus_score(hypotheses, references=None)
        return DirectionScore(
            bleu=bleu.score,
            chrf=self._chrf.corpus_score(hypotheses, references=None).score,
            bleu_json=bleu.format(2, False, self.signatures()["bleu"], True),
            sentences=len(hypotheses),
            hypotheses_sha256=text_sha256(hypotheses),
            references_sha256=self.references_sha256,
        )

    def signatures(self) -> dict[str, str]:
        """sacrebleu's signatures of the metrics; they are complete once a direction has been scored."""
        return {"bleu": self._bleu.get_signature().format(), "chrf": self._chrf.get_signature().format()}


def text_sha256(lines: Sequence[str]) -> str:
    """Hash of lines of text, each ended by a newline."""
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
