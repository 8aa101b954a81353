"""How much of each run's output is in a wrong language, where that can be told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from langspec_lora.data.directions import Direction
from langspec_lora.report.off_target import Judge
from langspec_lora.report.texts import DirectionTexts


@dataclass(frozen=True)
class OffTarget:
    """Hypotheses in a wrong language.

    Attributes:
        judges: how it is told, by target language.
        shares: for each run the share of wrong hypotheses of each direction in which it can be told.
        silent: for each run the share of hypotheses without a letter.
        bounds: targets that are not told from every other language of the evaluation, so that their shares are lower
            bounds.
    """

    judges: Mapping[str, Judge]
    shares: tuple[Mapping[Direction, float], ...]
    silent: tuple[float, ...]
    bounds: frozenset[str]


def judge_runs(
    texts: Mapping[Direction, DirectionTexts],
    judges: Mapping[str, Judge],
    wrong: Sequence[Mapping[Direction, Sequence[float]]],
) -> OffTarget:
    """Turns each run's numbers of hypotheses in another language, and of those without a letter, into shares."""

    def can_tell(direction: Direction) -> bool:
        judge, source = judges[direction.target], judges.get(direction.source)
        return judge.identified if source is None else judge.can_tell(direction.source, source.scripts)

    told = [direction for direction in texts if can_tell(direction)]
    sentences = {direction: found.reference.lines for direction, found in texts.items()}
    shared = Counter(script for judge in judges.values() for script in judge.scripts)
    return OffTarget(
        {direction.target: judges[direction.target] for direction in texts},
        tuple({d: counts[d][0] / sentences[d] for d in told} for counts in wrong),
        tuple(sum(silent for _, silent in counts.values()) / sum(sentences.values()) for counts in wrong),
        frozenset(
            name
            for name, judge in judges.items()
            if judge.twins or (not judge.identified and any(shared[script] > 1 for script in judge.scripts))
        ),
    )
