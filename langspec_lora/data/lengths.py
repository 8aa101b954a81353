"""Sentences that are too long for the model or for a batch, found before a training or a translation begins.

fairseq finds them when it makes batches: those of validation after the first epoch, which is then lost.
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
    """How long the sentences of a split may be, language tokens included.

    Attributes:
        positions: the longest source and target that the model takes.
        tokens: how many tokens a batch holds, padding included; no limit where None.
        tokens_flag: the flag that says so.
        skips: whether fairseq leaves out what is longer than ``positions``, and goes on.
        trains: whether it leaves out what is longer than a batch as well, as it does in training.
    """

    positions: tuple[int, int]
    tokens: int | None
    tokens_flag: str
    skips: bool
    trains: bool = False

    @classmethod
    def of_training(cls, args: Namespace) -> Limits:
        """Those of ``fairseq-train`` on its training data."""
        return cls(_positions(args), args.max_tokens, "--max-tokens", skips=True, trains=True)

    @classmethod
    def of_validation(cls, args: Namespace) -> Limits:
        """Those of ``fairseq-train`` on its validation data."""
        # fairseq's parser gives no type to a flag that takes its default from another.
        tokens = None if args.max_tokens_valid is None else int(args.max_tokens_valid)
        flag = "--max-tokens" if tokens == args.max_tokens else "--max-tokens-valid"
        return cls(_positions(args), tokens, flag, args.skip_invalid_size_inputs_valid_test)

    @classmethod
    def of_generation(cls, args: Namespace, models: Sequence[Namespace]) -> Limits:
        """Those of ``fairseq-generate``.

        Args:
            args: the arguments of the command.
            models: the arguments that each model of the ensemble was built from.
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
        language: its name.
        prefix: its path, without ``.bin`` and ``.idx``.
        added: how many tokens fairseq adds to each sentence: its language token, or none.
        cut_at: the length to which fairseq cuts its sentences before; None where it does not.
    """

    language: str
    prefix: str
    added: int = 0
    cut_at: int | None = None

    @property
    def longest(self) -> int:
        """Length of the longest sentence, as the model gets it."""
        longest = longest_sentence(self.prefix)
        return self.added + (longest if self.cut_at is None else min(longest, self.cut_at))

    @property
    def lengths(self) -> np.ndarray:
        """Lengths of all sentences, likewise, ``(sentences,)``."""
        return np.minimum(sentence_lengths(self.prefix), self.cut_at or np.iinfo(np.int32).max) + self.added


@dataclass
class LengthCheck:
    """Looks at the directions of a split, one after the other.

    Attributes:
        limits: how long its sentences may be.
    """

    limits: Limits
    _seen: bool = field(default=False, init=False)
    _kept: bool = field(default=False, init=False)

    def look_at(self, direction: str, sides: Sequence[Side]) -> None:
        """Looks at a direction.

        Args:
            direction: its data, as a message calls them.
            sides: the source, and the target where there is one.

        Raises:
            UserError: a sentence is too long.
        """
        allowed = [self._most(place) for place in range(len(sides))]
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
        place = next(place for place, most in enumerate(self.limits.positions) if lengths[place, line] > most)
        flag = ("--max-source-positions", "--max-target-positions")[place]
        raise UserError(
            f"{direction}, {sides[place].language}, line {line + 1}: {lengths[place, line]} tokens, but the model takes"
            f" {self.limits.positions[place]} ({flag}); shorten the sentence, or leave out what is too long with "
            "--skip-invalid-size-inputs-valid-test"
        )

    def _refuse_batch(self, direction: str, sides: Sequence[Side], lengths: np.ndarray, line: int) -> None:
        place = int(lengths[:, line].argmax())
        most = lengths[place, line]
        raise UserError(
            f"{direction}, {sides[place].language}, line {line + 1}: {most} tokens, but {self.limits.tokens_flag} is "
            f"{self.limits.tokens}; give at least {most}, or shorten the sentence"
        )

    def finish(self, split: str) -> None:
        """Makes sure that something is left of the split once all its directions were looked at.

        Raises:
            UserError: all sentences are too long.
        """
        if self._seen and not self._kept:
            raise UserError(
                f"all {split} sentences are longer than the model takes ({self.limits.positions[0]} tokens of source, "
                f"{self.limits.positions[1]} of target) or than {self.limits.tokens_flag} {self.limits.tokens}; raise "
                "these limits, or shorten the sentences"
            )

    def _most(self, place: int) -> int:
        tokens = self.limits.tokens
        return self.limits.positions[place] if tokens is None else min(self.limits.positions[place], tokens)
