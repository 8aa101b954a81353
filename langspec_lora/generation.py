"""The settings of a search and of its batches; does not import torch."""

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
    """How large a batch may be; names and defaults are those of ``fairseq-generate``.

    Raises:
        UserError: a limit is out of range.
    """

    max_tokens: int = _size(MAX_TOKENS, "at most N tokens per batch, including padding")
    batch_size: int | None = _size(None, "at most N sentences per batch", "no limit")

    def __post_init__(self) -> None:
        check_numbers(BatchLimits, self)


@dataclass(frozen=True)
class GenerationSettings:
    """How hypotheses are searched; names and defaults are those of ``fairseq-generate``.

    Raises:
        UserError: a setting is out of range, or settings contradict each other.
    """

    beam: int = flag(5, "beam size", "N", valid=_at_least(1), expected="a number of hypotheses of at least 1")
    lenpen: float = flag(1.0, "length penalty", "X", valid=math.isfinite)
    # Infinity is valid: it excludes unknown words.
    unkpen: float = flag(0.0, "unknown word penalty", "X", valid=lambda value: not math.isnan(value))
    max_len_a: float = flag(
        0.0, "at most A x + B tokens for x source tokens", "A", valid=_at_least(0), expected="a number of at least 0"
    )
    max_len_b: int = flag(200, "see --max-len-a", "B", valid=_at_least(0), expected="a number of tokens of at least 0")
    min_len: int = flag(1, "at least N tokens", "N", valid=_at_least(0), expected="a number of tokens of at least 0")
    no_repeat_ngram_size: int = flag(
        0,
        "repeat no n-gram of N tokens",
        "N",
        default_text="off",
        valid=_at_least(0),
        expected="a length of at least 1, or 0 for off",
    )
    temperature: float = flag(
        1.0,
        "divide the logits by X before the softmax",
        "X",
        valid=lambda value: 0 < value < math.inf,
        expected="a number above 0",
    )
    unnormalized: bool = flag(False, "compare scores without dividing by length")
    match_source_len: bool = flag(False, "generate as many tokens as the source has")
    prefix_size: int = flag(
        0,
        "start with the first N tokens of the reference",
        "N",
        valid=_at_least(0),
        expected="a number of tokens of at least 0",
    )
    sampling: bool = flag(False, "sample tokens instead of searching with a beam")
    sampling_topk: int = flag(
        -1,
        "sample from the K most likely tokens",
        "K",
        default_text="all tokens",
        valid=_off_or(_at_least(1)),
        expected="a number of tokens of at least 1, or -1 for all",
    )
    sampling_topp: float = flag(
        -1.0,
        "sample from the most likely tokens that together have probability P",
        "P",
        default_text="all tokens",
        valid=_off_or(lambda value: 0 < value <= 1),
        expected="a share above 0 and up to 1, or -1 for all",
    )
    diverse_beam_groups: int = flag(
        -1,
        "number of groups in diverse beam search",
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
        "penalty of diverse siblings search",
        "X",
        default_text="off",
        valid=_off_or(_at_least(0)),
        expected="a number of at least 0, or -1 for off",
    )
    retain_dropout: bool = flag(False, "keep dropout on")
    seed: int = flag(
        1,
        "random seed",
        "N",
        valid=lambda value: 0 <= value <= _MOST_SEED,
        expected=f"a number from 0 to {_MOST_SEED}",
    )
    remove_bpe: str = flag("sentencepiece", "which word splitting to undo in the hypotheses", "METHOD")

    def __post_init__(self) -> None:
        check_numbers(GenerationSettings, self)
        with collect_errors() as errors:
            for check in (self._check_lengths, self._check_search, self._check_sampling, self._check_groups):
                with errors.check():
                    check()

    def _check_lengths(self) -> None:
        if not self.max_len_a and self.min_len > self.max_len_b:
            raise UserError(
                f"--min-len {self.min_len} is above --max-len-b {self.max_len_b}, the maximum length of a hypothesis; "
                "change one of them"
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
            raise UserError("--sampling-topk and --sampling-topp need --sampling; give it too, or leave them out")
        if self.sampling_topk > 0 and self.sampling_topp > 0:
            raise UserError("--sampling-topk and --sampling-topp are two ways to sample; give one of them")

    def _check_groups(self) -> None:
        if self.diverse_beam_groups > 0 and self.beam % self.diverse_beam_groups:
            raise UserError(
                f"--beam {self.beam} is not divisible by --diverse-beam-groups {self.diverse_beam_groups}; "
                "change one of them"
            )

    @property
    def depends_on_batch(self) -> bool:
        """Whether a hypothesis depends on the other sentences of its batch.

        Its length limit then depends on the longest source of the batch, or the tokens drawn for it on the order.
        """
        return self.max_len_a != 0 or self.match_source_len or self.draws

    @property
    def draws(self) -> bool:
        """Whether the hypotheses are random."""
        return self.sampling or self.retain_dropout
