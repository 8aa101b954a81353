"""Output that has come apart: empty, copied from the source, repeating itself, too short or too long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from langspec_lora.data.directions import Direction

_COPIED_SHARE = 0.5  # of a hypothesis's words that are in the source too, from which on it is a copy
_ORDER = 4  # of the n-grams that tell repetition
_MORE_THAN_REFERENCE = 2  # times that the most frequent n-gram occurs oftener than that of the reference
_LONGEST_WORD = 12  # mean characters between spaces from which on a language is one without spaces between words


@dataclass(frozen=True)
class Degeneration:
    """What a run's hypotheses of a direction, or of several, look like.

    Attributes:
        empty: share of empty hypotheses.
        copied: share of those copied from the source; None if the source texts are not known.
        repeated: share of those that repeat themselves.
        length: characters of the hypotheses divided by those of the references; None for empty references.
    """

    empty: float
    copied: float | None
    repeated: float
    length: float | None


def count_degenerate(
    hypotheses: Sequence[str], references: Sequence[str], sources: Sequence[str] | None
) -> list[float]:
    """What :func:`shares` needs of one direction.

    *Empty* is a hypothesis of spaces at most. It is *copied* if at least half of its words are in the source too (Ott
    et al., ICML 2018), and not so many of the reference's words, where names are the same in all languages. It
    *repeats* itself if its most frequent 4-gram occurs at least two times more than that of the reference (the top
    n-gram count of Raunak et al., NAACL 2021, and Guerreiro et al., EACL 2023, with n = 4 and t = 2); the n-grams are
    of words, or of characters in languages that put no spaces between words.

    Returns:
        Hypotheses, empty ones, copied ones (-1 if unknown), repeating ones, and the characters of hypotheses and of
        references, without spaces.
    """
    letters, words = sum(map(_size, references)), sum(len(line.split()) for line in references)
    spaced = letters <= _LONGEST_WORD * words

    def repeats(hypothesis: str, reference: str) -> bool:
        one, other = (_most_frequent(text.split() if spaced else text) for text in (hypothesis, reference))
        return one - other >= _MORE_THAN_REFERENCE

    pairs = list(zip(hypotheses, references, strict=True))
    copied = -1
    if sources is not None:
        copied = sum(
            _overlap(own, source) >= _COPIED_SHARE > _overlap(reference, source)
            for (own, reference), source in zip(pairs, sources, strict=True)
        )
    return [
        len(pairs),
        sum(not own.strip() for own in hypotheses),
        copied,
        sum(repeats(*pair) for pair in pairs),
        sum(map(_size, hypotheses)),
        letters,
    ]


def shares(counts: Sequence[float]) -> Degeneration:
    """Shares of what :func:`count_degenerate` has counted."""
    sentences, empty, copied, repeated, characters, expected = counts
    whole = max(sentences, 1)
    return Degeneration(
        empty / whole,
        None if copied < 0 else copied / whole,
        repeated / whole,
        characters / expected if expected else None,
    )


def mean_shares(found: Mapping[Direction, Degeneration], members: Sequence[Direction]) -> Degeneration | None:
    """Plain means over some directions, as far as each figure is known."""
    own = [found[direction] for direction in members if direction in found]
    if not own:
        return None

    def mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None

    return Degeneration(
        mean([one.empty for one in own]) or 0.0,
        mean([one.copied for one in own]),
        mean([one.repeated for one in own]) or 0.0,
        mean([one.length for one in own]),
    )


def _size(line: str) -> int:
    """Characters without spaces."""
    return len("".join(line.split()))


def _overlap(text: str, source: str) -> float:
    """Share of a text's words that are in the source too; only words with letters count."""
    words, there = _words(text), set(_words(source))
    return sum(word in there for word in words) / len(words) if words else 0.0


def _words(text: str) -> list[str]:
    """The words of a text that have letters, without marks and in small letters."""
    found = ("".join(filter(str.isalnum, word)) for word in text.casefold().split())
    return [word for word in found if any(map(str.isalpha, word))]


def _most_frequent(text: Sequence[str]) -> int:
    """How often the most frequent 4-gram occurs."""
    grams = Counter(tuple(text[start : start + _ORDER]) for start in range(len(text) - _ORDER + 1))
    return max(grams.values(), default=0)
