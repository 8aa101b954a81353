"""Resource levels, and averages over groups of directions: from level to level, from and into each language, all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.evaluation.results import Run
from langspec_lora.languages import LEVELS, PAPER_LEVELS


@dataclass(frozen=True)
class GroupRow:
    """One line of the table.

    Attributes:
        label: ``high→low``, … or ``all``; of a language's row its name.
        directions: how many directions the group has.
        means: the plain mean of their scores, one for each run.
    """

    label: str
    directions: int
    means: tuple[float, ...]

    @property
    def differences(self) -> tuple[float, ...]:
        """Each run's mean less the first run's; 0 for the first itself."""
        return tuple(mean - self.means[0] for mean in self.means)


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
    languages = list(dict.fromkeys(name for direction in directions for name in direction))
    for levels in (stored, PAPER_LEVELS):
        if all(name in levels for name in languages):
            return levels, notes if levels is stored else []
    unknown = [name for name in languages if name not in (stored or PAPER_LEVELS)]
    return {}, [
        f"groups are left out: no resource level is known for {', '.join(unknown)}; give the levels of all languages "
        "as --lang-resources"
    ]


def order_by_level(languages: Sequence[str], levels: Mapping[str, str]) -> list[str]:
    """Sorts languages from high to low, within a level in the order in which ``levels`` names them.

    Without any levels the languages keep their order.

    Raises:
        UserError: a language without a level.
    """
    if not levels:
        return list(dict.fromkeys(languages))
    missing = sorted(set(languages) - set(levels))
    if missing:
        raise UserError(
            f"no resource level for {', '.join(missing)}; put every language under high, med or low in a YAML file "
            "and pass it as --lang-resources"
        )
    names = list(levels)
    return sorted(set(languages), key=lambda name: (LEVELS.index(levels[name]), names.index(name)))


def group_rows(runs: Sequence[Mapping[Direction, float]], levels: Mapping[str, str]) -> list[GroupRow]:
    """Averages each run's scores from level to level, and over all directions.

    Args:
        runs: for each run the score of each direction; all runs have the same directions.
        levels: resource level of each language.

    Returns:
        The rows from high→high to low→low, as far as they have directions, then ``all``.

    Raises:
        UserError: a language without a level, or runs with different directions.
    """
    groups = group_members(_common_directions(runs), levels)
    return [_row(label, members, runs) for label, members in groups.items()]


def group_members(directions: Sequence[Direction], levels: Mapping[str, str]) -> dict[str, list[Direction]]:
    """The directions from level to level, as far as there are any, then ``all``; without levels only that.

    Raises:
        UserError: a language without a level.
    """
    if not levels:
        return {"all": list(directions)}
    order_by_level([language for direction in directions for language in direction], levels)
    groups: dict[str, list[Direction]] = {f"{source}→{target}": [] for source in LEVELS for target in LEVELS}
    for direction in directions:
        groups[f"{levels[direction.source]}→{levels[direction.target]}"].append(direction)
    return {**{label: members for label, members in groups.items() if members}, "all": list(directions)}


@dataclass(frozen=True)
class LanguageRow:
    """Averages of one language; None where there is no such direction.

    Attributes:
        language: its name.
        level: its resource level, or nothing.
        source: over the directions from it.
        target: over the directions into it.
    """

    language: str
    level: str
    source: GroupRow | None
    target: GroupRow | None


def language_rows(runs: Sequence[Mapping[Direction, float]], levels: Mapping[str, str]) -> list[LanguageRow]:
    """Averages each run's scores over the directions from and into each language.

    Args:
        runs: for each run the score of each direction; all runs have the same directions.
        levels: resource level of each language.

    Raises:
        UserError: a language without a level, or runs with different directions.
    """
    directions = _common_directions(runs)

    def row(language: str, members: Sequence[Direction]) -> GroupRow | None:
        return _row(language, members, runs) if members else None

    return [
        LanguageRow(
            language,
            levels.get(language, ""),
            row(language, [direction for direction in directions if direction.source == language]),
            row(language, [direction for direction in directions if direction.target == language]),
        )
        for language in order_by_level([language for direction in directions for language in direction], levels)
    ]


def _common_directions(runs: Sequence[Mapping[Direction, float]]) -> list[Direction]:
    directions = list(runs[0])
    if any(set(run) != set(directions) for run in runs):
        raise UserError("the runs do not have the same directions; compare them on those that all have")
    return directions


def _row(label: str, members: Sequence[Direction], runs: Sequence[Mapping[Direction, float]]) -> GroupRow:
    means = tuple(sum(run[direction] for direction in members) / len(members) for run in runs)
    return GroupRow(label, len(members), means)
