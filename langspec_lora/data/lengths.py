"""Finds sentences that are too long for the model or for a batch, before training or translation starts.

fairseq finds them when it makes batches: in validation data only after the first epoch, which is then lost.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from langspec_lora.data.headers import longest_sentence, sentence_lengths
from langspec_lora.errors import UserError
from langspec_lora.generation import MAX_TOKENS


@dataclass(frozen=True)
class Limits:
    """The maximum length of the sentences of a split, including language tokens.

    Attributes:
        positions: the maximum length of source and target for the model.
        tokens: the maximum number of tokens in a batch, including padding; None means no limit.
        tokens_flag: the flag that sets ``tokens``.
        skips: whether fairseq skips sentences longer than ``positions``.
        trains: whether it also skips sentences longer than a batch, as in training.
    """

    positions: tuple[int, int]
    tokens: int | None
    tokens_flag: str
    skips: bool
    trains: bool = False

    @classmethod
    def of_training(cls, args: Namespace) -> Limits:
        """The limits of ``fairseq-train`` on training data."""
        return cls(_positions(args), args.max_tokens, "--max-tokens", skips=True, trains=True)

    @classmethod
    def of_validation(cls, args: Namespace) -> Limits:
        """The limits of ``fairseq-train`` on validation data."""
        # fairseq's parser leaves a flag untyped if its default is that of another flag.
        tokens = None if args.max_tokens_valid is None else int(args.max_tokens_valid)
        flag = "--max-tokens" if tokens == args.max_tokens else "--max-tokens-valid"
        return cls(_positions(args), tokens, flag, args.skip_invalid_size_inputs_valid_test)

    @classmethod
    def of_generation(cls, args: Namespace, models: Sequence[Namespace]) -> Limits:
        """The limits of ``fairseq-generate``.

        Args:
            args: the arguments of the command.
            models: the stored arguments of each model of the ensemble.
        """
        source, target = (
            min(most for holder in (args, *models) if isinstance(most := getattr(holder, name, None), int) and most > 0)
            for name in ("max_source_positions", "max_target_positions")
        )
        tokens = MAX_TOKENS if args.max_tokens is None and args.batch_size is None else args.max_tokens
        return cls((source, target), tokens, "--max-tokens", args.skip_invalid_size_inputs_valid_test)


def _positions(args: Namespace) -> tuple[int, int]:
    return args.max_source_positions, args.max_target_positions


@dataclass(frozen=True)
class Side:
    """One side of a direction's data, in fairseq's ``mmap`` format.

    Attributes:
        language: the language.
        prefix: the path, without ``.bin`` and ``.idx``.
        added: number of tokens that fairseq adds to each sentence: one if there are language tokens.
        cut_at: the length to which fairseq truncates sentences before; None if it does not.
    """

    language: str
    prefix: str
    added: int = 0
    cut_at: int | None = None

    @property
    def longest(self) -> int:
        """Length of the longest sentence as the model receives it."""
        longest = longest_sentence(self.prefix)
        return self.added + (longest if self.cut_at is None else min(longest, self.cut_at))

    @property
    def lengths(self) -> np.ndarray:
        """Lengths of all sentences as the model receives them, ``(sentences,)``."""
        return np.minimum(sentence_lengths(self.prefix), self.cut_at or np.iinfo(np.int32).max) + self.added


@dataclass
class LengthCheck:
    """Checks the directions of a split, one after the other.

    Attributes:
        limits: the maximum length of its sentences.
    """

    limits: Limits
    _seen: bool = field(default=False, init=False)
    _kept: bool = field(default=False, init=False)

    def check_direction(self, direction: str, sides: Sequence[Side]) -> None:
        """Checks a direction.

        Args:
            direction: name of its data in messages.
            sides: the source, and the target if there is one.

        Raises:
            UserError: a sentence is too long.
        """
        allowed = [self._longest_allowed(index) for index in range(len(sides))]
        self._seen = True
        if all(side.longest <= most for side, most in zip(sides, allowed, strict=True)):
            self._kept = True
            return
        lengths = np.stack([side.lengths for side in sides])  # (sides, sentences)
        tokens = np.inf if self.limits.tokens is None else self.limits.tokens
        positions = np.array(self.limits.positions[: len(sides)])[:, None]
        fits = (lengths <= positions).all(axis=0)
        if not self.limits.skips and not fits.all():
            self._refuse_positions(direction, sides, lengths, int(fits.argmin()))
        fills = (lengths > tokens).any(axis=0) & fits
        if not self.limits.trains and fills.any():
            self._refuse_batch(direction, sides, lengths, int(np.where(fills, lengths.max(axis=0), 0).argmax()))
        self._kept |= bool((fits & ~fills).any())

    def _refuse_positions(self, direction: str, sides: Sequence[Side], lengths: np.ndarray, line: int) -> None:
        index = next(index for index, most in enumerate(self.limits.positions) if lengths[index, line] > most)
        flag = ("--max-source-positions", "--max-target-positions")[index]
        raise UserError(
            f"{direction}, {sides[index].language}, line {line + 1}: {lengths[index, line]} tokens, but the model takes"
            f" {self.limits.positions[index]} ({flag}); shorten the sentence, or skip all that are too long with "
            "--skip-invalid-size-inputs-valid-test"
        )

    def _refuse_batch(self, direction: str, sides: Sequence[Side], lengths: np.ndarray, line: int) -> None:
        index = int(lengths[:, line].argmax())
        most = lengths[index, line]
        raise UserError(
            f"{direction}, {sides[index].language}, line {line + 1}: {most} tokens, but {self.limits.tokens_flag} is "
            f"{self.limits.tokens}; give at least {most}, or shorten the sentence"
        )

    def finish(self, split: str) -> None:
        """Checks that some sentences of the split are left; call it after all its directions were checked.

        Raises:
            UserError: all sentences are too long.
        """
        if self._seen and not self._kept:
            raise UserError(
                f"all {split} sentences are longer than the model takes ({self.limits.positions[0]} tokens of source, "
                f"{self.limits.positions[1]} of target) or than {self.limits.tokens_flag} {self.limits.tokens}; raise "
                "these limits, or shorten the sentences"
            )

    def _longest_allowed(self, index: int) -> int:
        tokens = self.limits.tokens
        return self.limits.positions[index] if tokens is None else min(self.limits.positions[index], tokens)
