"""What decides the hypotheses besides the model and the text, and how much a batch holds; knows no torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from langspec_lora.errors import UserError, collect_errors
from langspec_lora.settings import check_numbers, flag

MAX_TOKENS = 12000
"""``fairseq-generate``'s own default of ``--max-tokens``."""

_MOST = 2**31 - 1
_MOST_SEED = 2**32 - 1


def _at_least(least: float) -> Callable[[float], bool]:
    return lambda value: least <= value < math.inf


def _off_or(valid: Callable[[float], bool]) -> Callable[[float], bool]:
    return lambda value: value == -1 or valid(value)


def _size(default: int | None, help: str, default_text: str | None = None) -> Any:
    return flag(
        default,
        help,
        "N",
        default_text=default_text,
        valid=lambda value: 1 <= value <= _MOST,
        expected=f"a number from 1 to {_MOST}",
    )


@dataclass(frozen=True)
class BatchLimits:
    """How much a batch holds, with ``fairseq-generate``'s names.

    Raises:
        UserError: a limit is out of its range.
    """

    max_tokens: int = _size(MAX_TOKENS, "tokens in a batch, padding included")
    batch_size: int | None = _size(None, "sentences in a batch at most", "no limit")

    def __post_init__(self) -> None:
        check_numbers(BatchLimits, self)


@dataclass(frozen=True)
class GenerationSettings:
    """What decides the hypotheses besides model and data; names and defaults are those of ``fairseq-generate``.

    Raises:
        UserError: a setting is out of its range, or settings contradict each other.
    """

    beam: int = flag(5, "beam size", "N", valid=_at_least(1), expected="a number of hypotheses of at least 1")
    lenpen: float = flag(1.0, "length penalty", "X", valid=math.isfinite)
    # Infinity keeps unknown words away.
    unkpen: float = flag(0.0, "unknown word penalty", "X", valid=lambda value: not math.isnan(value))
    max_len_a: float = flag(
        0.0, "at most A x + B tokens for a source of x", "A", valid=_at_least(0), expected="a number of at least 0"
    )
    max_len_b: int = flag(200, "see --max-len-a", "B", valid=_at_least(0), expected="a number of tokens of at least 0")
    min_len: int = flag(1, "at least N tokens", "N", valid=_at_least(0), expected="a number of tokens of at least 0")
    no_repeat_ngram_size: int = flag(
        0,
        "no n-gram of this size twice",
        "N",
        default_text="off",
        valid=_at_least(0),
        expected="a length of at least 1, or 0 for off",
    )
    temperature: float = flag(
        1.0,
        "divides the scores before they become probabilities",
        "X",
        valid=lambda value: 0 < value < math.inf,
        expected="a number above 0",
    )
    unnormalized: bool = flag(False, "compare scores without dividing by length")
    match_source_len: bool = flag(False, "as many tokens as the source has")
    prefix_size: int = flag(
        0,
        "start with the reference's first N tokens",
        "N",
        valid=_at_least(0),
        expected="a number of tokens of at least 0",
    )
    sampling: bool = flag(False, "draw tokens in place of beam search")
    sampling_topk: int = flag(
        -1,
        "draw from the K likeliest",
        "K",
        default_text="from all",
        valid=_off_or(_at_least(1)),
        expected="a number of tokens of at least 1, or -1 for all",
    )
    sampling_topp: float = flag(
        -1.0,
        "draw from the likeliest that make up P",
        "P",
        default_text="from all",
        valid=_off_or(lambda value: 0 < value <= 1),
        expected="a share above 0 and up to 1, or -1 for all",
    )
    diverse_beam_groups: int = flag(
        -1,
        "groups of diverse beam search",
        "N",
        default_text="off",
        valid=_off_or(_at_least(1)),
        expected="a number of groups of at least 1, or -1 for off",
    )
    diverse_beam_strength: float = flag(
        0.5, "penalty of diverse beam search", "X", valid=_at_least(0), expected="a number of at least 0"
    )
    diversity_rate: float = flag(
        -1.0,
        "penalty of diverse siblings",
        "X",
        default_text="off",
        valid=_off_or(_at_least(0)),
        expected="a number of at least 0, or -1 for off",
    )
    retain_dropout: bool = flag(False, "leave dropout on")
    seed: int = flag(
        1,
        "seed of what is drawn",
        "N",
        valid=lambda value: 0 <= value <= _MOST_SEED,
        expected=f"a number from 0 to {_MOST_SEED}",
    )
    remove_bpe: str = flag("sentencepiece", "what to undo in the hypotheses", "METHOD")

    def __post_init__(self) -> None:
        check_numbers(GenerationSettings, self)
        with collect_errors() as errors:
            for check in (self._check_lengths, self._check_search, self._check_sampling, self._check_groups):
                with errors.check():
                    check()

    def _check_lengths(self) -> None:
        if not self.max_len_a and self.min_len > self.max_len_b:
            raise UserError(
                f"--min-len {self.min_len} is above --max-len-b {self.max_len_b}, the most tokens that a hypothesis "
                "may have; change one of them"
            )

    def _check_search(self) -> None:
        searches = {
            "--sampling": self.sampling,
            "--diverse-beam-groups": self.diverse_beam_groups > 0,
            "--match-source-len": self.match_source_len,
            "--diversity-rate": self.diversity_rate > 0,
        }
        chosen = [name for name, is_chosen in searches.items() if is_chosen]
        if len(chosen) > 1:
            raise UserError(f"{' and '.join(chosen)} are different ways to search; give one of them")

    def _check_sampling(self) -> None:
        if (self.sampling_topk >= 0 or self.sampling_topp >= 0) and not self.sampling:
            raise UserError(
                "--sampling-topk and --sampling-topp say how to draw; give --sampling too, or leave them out"
            )
        if self.sampling_topk > 0 and self.sampling_topp > 0:
            raise UserError("--sampling-topk and --sampling-topp are two ways to draw; give one of them")

    def _check_groups(self) -> None:
        if self.diverse_beam_groups > 0 and self.beam % self.diverse_beam_groups:
            raise UserError(
                f"--diverse-beam-groups {self.diverse_beam_groups} do not divide --beam {self.beam}; change one of them"
            )

    @property
    def depends_on_batch(self) -> bool:
        """Whether a hypothesis depends on its batch: its limit on the longest source there, its draws on the order."""
        return self.max_len_a != 0 or self.match_source_len or self.draws

    @property
    def draws(self) -> bool:
        """Whether chance decides."""
        return self.sampling or self.retain_dropout
