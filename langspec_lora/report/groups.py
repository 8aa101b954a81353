"""Resource levels, and averages over groups of directions: from level to level, from and into each language, all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.evaluation.results import Run
from langspec_lora.languages import LEVELS, PAPER_LEVELS


@dataclass(frozen=True)
class GroupRow:
    """The averages of a group of directions.

    Attributes:
        label: ``high→low``, … or ``all``.
        members: its directions.
        means: the plain mean of their scores, one for each run.
    """

    label: str
    members: Sequence[Direction]
    means: tuple[float, ...]

    @property
    def differences(self) -> tuple[float, ...]:
        """Each run's mean less the first run's; 0 for the first itself."""
        return tuple(mean - self.means[0] for mean in self.means)


@dataclass(frozen=True)
class LanguageRow:
    """The averages of one language.

    Attributes:
        language: its name.
        level: its resource level, or nothing.
        source: each run's mean over the directions from it; None where there are none.
        target: each run's mean over the directions into it; None where there are none.
    """

    language: str
    level: str
    source: tuple[float, ...] | None
    target: tuple[float, ...] | None


def known_levels(runs: Sequence[Run], directions: Sequence[Direction]) -> tuple[Mapping[str, str], list[str]]:
    """The levels that the runs have stored, or else the paper's.

    Args:
        runs: the runs of a report; where two differ, the first counts.
        directions: the directions that all of them have.

    Returns:
        The level of each language, or nothing where a language has none, and remarks for the reader.
    """
    stored: dict[str, str] = {}
    notes = []
    for run in runs:
        differing = [name for name, level in run.levels.items() if stored.get(name, level) != level]
        if differing:
            notes.append(f"{run.name} has other levels of {', '.join(differing)} than the runs before it, which count")
        stored = {**run.levels, **stored}
    languages = list(dict.fromkeys(chain.from_iterable(directions)))
    for levels in (stored, PAPER_LEVELS):
        if all(name in levels for name in languages):
            return levels, notes if levels is stored else []
    unknown = [name for name in languages if name not in (stored or PAPER_LEVELS)]
    return {}, [
        f"groups are left out: no resource level is known for {', '.join(unknown)}; give the levels of all languages "
        "as --lang-resources"
    ]


def group_of(direction: Direction, levels: Mapping[str, str]) -> str:
    """``high→low``, …: the group of a direction between languages that have levels."""
    return f"{levels[direction.source]}→{levels[direction.target]}"


def group_rows(runs: Sequence[Mapping[Direction, float]], levels: Mapping[str, str]) -> list[GroupRow]:
    """Averages each run's scores from level to level, and over all directions.

    Args:
        runs: for each run the score of each direction; all runs have the same directions.
        levels: resource level of each language; without any, there is only the group of all.

    Returns:
        The rows from high→high to low→low, as far as they have directions, then ``all``.

    Raises:
        UserError: a language without a level, or runs with different directions.
    """
    directions = list(runs[0])
    if any(run.keys() != runs[0].keys() for run in runs):
        raise UserError("the runs do not have the same directions; compare them on those that all have")
    order_by_level(chain.from_iterable(directions), levels)  # raises
    groups: dict[str, list[Direction]] = {f"{source}→{target}": [] for source in LEVELS for target in LEVELS}
    for direction in directions if levels else ():
        groups[group_of(direction, levels)].append(direction)
    groups["all"] = directions
    return [GroupRow(label, members, _means(runs, members)) for label, members in groups.items() if members]


def language_rows(runs: Sequence[Mapping[Direction, float]], levels: Mapping[str, str]) -> list[LanguageRow]:
    """Averages each run's scores over the directions from and into each language.

    Args:
        runs: for each run the score of each direction; all runs have the same directions.
        levels: resource level of each language.

    Raises:
        UserError: a language without a level.
    """

    def means(side: int, language: str) -> tuple[float, ...] | None:
        members = [direction for direction in runs[0] if direction[side] == language]
        return _means(runs, members) if members else None

    languages = order_by_level(chain.from_iterable(runs[0]), levels)
    return [LanguageRow(name, levels.get(name, ""), means(0, name), means(1, name)) for name in languages]


def order_by_level(languages: Iterable[str], levels: Mapping[str, str]) -> list[str]:
    """Sorts languages from high to low, within a level in the order in which ``levels`` names them.

    Without any levels the languages keep their order. Each is named once.

    Raises:
        UserError: a language without a level.
    """
    languages = list(dict.fromkeys(languages))
    if not levels:
        return languages
    missing = sorted(set(languages) - levels.keys())
    if missing:
        raise UserError(
            f"no resource level for {', '.join(missing)}; put every language under high, med or low in a YAML file "
            "and pass it as --lang-resources"
        )
    names = list(levels)
    return sorted(languages, key=lambda name: (LEVELS.index(levels[name]), names.index(name)))


def _means(runs: Sequence[Mapping[Direction, float]], members: Sequence[Direction]) -> tuple[float, ...]:
    return tuple(sum(run[direction] for direction in members) / len(members) for run in runs)
