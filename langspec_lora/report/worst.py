"""The sentences that went worst, and those that lost most against the first run, by sentence-level chrF++."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from langspec_lora.data.directions import Direction
from langspec_lora.report.significance import MetricSettings

SHOWN = 20

CHRF = MetricSettings("chrf", "", (("word_order", 2),))

Ranked = Sequence[tuple[float, int]]
"""Value and index of the lowest sentences of one direction, lowest first."""


@dataclass(frozen=True)
class Sentence:
    """One sentence of a list.

    Attributes:
        direction: its direction.
        index: its place in the test set, from 0.
        value: chrF++, or the difference of two runs' chrF++.
    """

    direction: Direction
    index: int
    value: float


def sentence_scores(metric, hypotheses: Sequence[str]) -> list[float]:
    """chrF++ of each sentence, as ``sacrebleu --sentence-level`` prints it.

    Args:
        metric: :data:`CHRF`, built with the references.
        hypotheses: as many sentences as there are references.
    """
    statistics = metric._extract_corpus_statistics(hypotheses, None)
    return [metric._compute_score_from_stats(counts).score for counts in statistics]


def lowest(values: Sequence[float], among: Iterable[int]) -> Ranked:
    """The lowest values of some sentences of a direction, as many as a list can show."""
    return sorted((values[index], index) for index in among)[:SHOWN]


def merge(by_direction: Mapping[Direction, Ranked]) -> list[Sentence]:
    """The lowest of all directions.

    Where sentences share a value (many have nothing in common with their reference), every direction has its turn
    before one has its second, and the turns go round the sources and the targets at once.
    """
    languages = list(dict.fromkeys(language for direction in by_direction for language in direction))
    places = {language: place for place, language in enumerate(languages)}
    candidates = []
    for direction, ranked in by_direction.items():
        source, target = places[direction.source], places[direction.target]
        place = ((target - source) % len(languages), source)
        turns: dict[float, int] = {}
        for value, index in ranked:
            turns[value] = turns.get(value, 0) + 1
            candidates.append((value, turns[value], place, Sentence(direction, index, value)))
    return [candidate[-1] for candidate in sorted(candidates, key=lambda c: c[:3])[:SHOWN]]
