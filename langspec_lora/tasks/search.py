"""Changes to fairseq's search: n-grams that must not repeat, and a limit of lengths as a sentence.

fairseq's own ``NGramRepeatBlock`` works only where its CUDA extension is installed. Its other path
(``_no_repeat_ngram``) compares n-grams with the end of the buffer, which is still padding, and so never finds a
repetition.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from langspec_lora.errors import UserError


class RepeatedNgrams(nn.Module):
    """``--no-repeat-ngram-size``: excludes tokens that would complete an n-gram which the hypothesis already has.

    Args:
        size: n.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    @classmethod
    def convert(cls, generator: Any, size: int) -> None:
        """Makes a generator of fairseq use this class if n-grams must not repeat.

        Args:
            generator: fairseq's generator.
            size: n, or 0 to allow repetitions.
        """
        if size > 0 and hasattr(generator, "repeat_ngram_blocker"):
            generator.repeat_ngram_blocker = cls(size)

    def forward(self, tokens: Tensor, lprobs: Tensor, bsz: int, beam_size: int, step: int) -> Tensor:
        """Sets the excluded tokens to minus infinity, in place; see fairseq's class.

        Args:
            tokens: the hypotheses, ``(bsz * beam_size, length)``; the first ``step + 1`` tokens are known. The first is
                the token that starts every hypothesis, and no part of it.
            lprobs: log-probabilities of the next token, ``(bsz * beam_size, vocabulary)``.
            bsz: number of sentences.
            beam_size: hypotheses of each.
            step: the step of the search, from 0.

        Returns:
            ``lprobs``.
        """
        known = tokens[:, 1 : step + 1]
        if step < self.size:
            return lprobs
        ngrams = known.unfold(1, self.size, 1)  # (hypotheses, places, n)
        beginning = known[:, step + 1 - self.size :].unsqueeze(1)  # (hypotheses, 1, n - 1)
        repeats = (ngrams[..., :-1] == beginning).all(-1)  # (hypotheses, places)
        penalty = lprobs.new_zeros(repeats.shape).masked_fill_(repeats, -math.inf)
        return lprobs.scatter_add_(1, ngrams[..., -1], penalty)


@contextmanager
def length_errors() -> Iterator[None]:
    """Turns an assertion of fairseq's generator into a message; its limit may depend on the batch."""
    try:
        yield
    except AssertionError as error:
        if "min_len cannot be larger" not in str(error):
            raise
        raise UserError(
            "--min-len exceeds the maximum length of a hypothesis: --max-len-a times the source length plus "
            "--max-len-b, or the model's limit; lower it"
        ) from error
