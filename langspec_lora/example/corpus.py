"""The content of the example: meanings drawn from a fixed seed, and which of them each text contains."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, islice

from langspec_lora.example.grammar import CONCEPTS, LANGUAGES, TENSES, Clause, Meaning, NounPhrase, pick

VOCABULARY = 900
"""The size of the SentencePiece model."""


@dataclass(frozen=True)
class Sizes:
    """How much text the example has.

    Attributes:
        pretrain: number of sentence pairs of a language pair by the levels of its languages, such as ``high-low``.
            Other language pairs have none, so fine-tuning is the first training of their directions.
        finetune: multi-parallel sentences for fine-tuning.
        valid: likewise, held out.
        test: likewise, held out.
        vocabulary: sentences for training the SentencePiece model, in every language, so that all languages have the
            same weight.
    """

    pretrain: Mapping[str, int]
    finetune: int
    valid: int
    test: int
    vocabulary: int


SIZES = Sizes(
    pretrain={"high-high": 4000, "high-med": 800, "high-low": 100},
    finetune=1000,
    valid=20,
    test=50,
    vocabulary=600,
)


@dataclass(frozen=True)
class Corpus:
    """The meanings of every text of :class:`Sizes`; in ``pretrain``, those of each language pair differ."""

    pretrain: Mapping[tuple[str, str], list[Meaning]]
    finetune: list[Meaning]
    valid: list[Meaning]
    test: list[Meaning]
    vocabulary: list[Meaning]


def draw_corpus(sizes: Sizes = SIZES, seed: int = 1) -> Corpus:
    """Draws all meanings; no meaning is in two texts, so the held-out texts are new to every stage.

    Args:
        sizes: how many meanings to draw.
        seed: the random seed.
    """
    new = _distinct_meanings(random.Random(f"meanings {seed}"))
    # The held-out texts come first, so that they do not depend on the size of the training text.
    test, valid, finetune, vocabulary = (
        list(islice(new, count)) for count in (sizes.test, sizes.valid, sizes.finetune, sizes.vocabulary)
    )
    pretrain = {
        (first.code, second.code): list(islice(new, sizes.pretrain[f"{first.level}-{second.level}"]))
        for first, second in combinations(LANGUAGES, 2)
        if f"{first.level}-{second.level}" in sizes.pretrain
    }
    return Corpus(pretrain, finetune, valid, test, vocabulary)


def _distinct_meanings(rng: random.Random) -> Iterator[Meaning]:
    seen = set()
    while True:
        meaning = _meaning(rng)
        if meaning not in seen:
            seen.add(meaning)
            yield meaning


def _meaning(rng: random.Random) -> Meaning:
    main = _clause(rng)
    if rng.random() < 0.8:
        return Meaning(main)
    return Meaning(main, pick(rng, CONCEPTS["links"]), _clause(rng))


def _clause(rng: random.Random) -> Clause:
    transitive = rng.random() < 0.7
    return Clause(
        subject=_noun_phrase(rng),
        verb=pick(rng, CONCEPTS["transitive" if transitive else "intransitive"]),
        tense=pick(rng, TENSES),
        negated=rng.random() < 0.2,
        object=_noun_phrase(rng) if transitive else None,
        place=(pick(rng, CONCEPTS["places"]), _noun_phrase(rng)) if rng.random() < 0.3 else None,
    )


def _noun_phrase(rng: random.Random) -> NounPhrase:
    return NounPhrase(
        noun=pick(rng, CONCEPTS["nouns"]),
        plural=rng.random() < 0.4,
        adjective=pick(rng, CONCEPTS["adjectives"]) if rng.random() < 0.35 else None,
    )
