"""Resource levels, the groups of directions from level to level, and means over groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.evaluation.results import Run
from langspec_lora.languages import LEVELS, PAPER_LEVELS
from langspec_lora.naming import some_of

NOT_TRAINED = "not trained"
"""The group of directions that training never saw."""


def known_levels(runs: Sequence[Run], directions: Sequence[Direction]) -> tuple[Mapping[str, str], list[str]]:
    """The levels that the runs have stored, of which the first count, or else the paper's, and remarks on them.

    There are none where one of the languages has none.
    """
    stored: dict[str, str] = {}
    notes = []
    for run in runs:
        differing = [name for name, level in run.levels.items() if stored.get(name, level) != level]
        if differing:
            notes.append(f"{run.name} has other levels of {some_of(differing)} than the runs before it, which count")
        stored = {**run.levels, **stored}
    languages = list(dict.fromkeys(chain.from_iterable(directions)))
    for levels in (stored, PAPER_LEVELS):
        if all(name in levels for name in languages):
            return levels, notes if levels is stored else []
    unknown = [name for name in languages if name not in (stored or PAPER_LEVELS)]
    return {}, [
        f"groups are left out: no resource level is known for {some_of(unknown)}; give the levels of all languages "
        "as --lang-resources"
    ]


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
            f"no resource level for {some_of(missing)}; put every language under high, med or low in a YAML file "
            "and pass it as --lang-resources"
        )
    names = list(levels)
    return sorted(languages, key=lambda name: (LEVELS.index(levels[name]), names.index(name)))


def group_of(direction: Direction, levels: Mapping[str, str]) -> str:
    """``high→low``, …: the group of a direction between languages that have levels."""
    return f"{levels[direction.source]}→{levels[direction.target]}"


def group_members(directions: Sequence[Direction], levels: Mapping[str, str]) -> dict[str, Sequence[Direction]]:
    """The directions from level to level, as far as there are any, then ``all``; without levels only that.

    Raises:
        UserError: a language without a level.
    """
    order_by_level(chain.from_iterable(directions), levels)  # raises
    groups: dict[str, list[Direction]] = {f"{source}→{target}": [] for source in LEVELS for target in LEVELS}
    for direction in directions if levels else ():
        groups[group_of(direction, levels)].append(direction)
    return {**{label: members for label, members in groups.items() if members}, "all": directions}


def untrained_groups(
    runs: Mapping[str, Sequence[Run]], directions: Sequence[Direction]
) -> dict[str, Sequence[Direction]]:
    """The directions that runs were not trained with, by the label of their group; none of runs that do not say.

    Args:
        runs: the seeds of each run, by its name.
        directions: those of the report.
    """
    lacking: dict[str, tuple[Direction, ...]] = {}
    for name, seeds in runs.items():
        known = [seed.trained for seed in seeds if seed.trained is not None]
        if known:
            trained = frozenset().union(*known)
            lacking[name] = tuple(direction for direction in directions if str(direction) not in trained)
    names: dict[Sequence[Direction], list[str]] = {}
    for name, found in lacking.items():
        names.setdefault(found, []).append(name)
    labels = {found: f"{NOT_TRAINED} by {some_of(own, between=' and ')}" for found, own in names.items()}
    if len(names) == 1:
        labels = dict.fromkeys(names, NOT_TRAINED)
    return {label: found for found, label in labels.items() if found}


def with_untrained(
    groups: Mapping[str, Sequence[Direction]], untrained: Mapping[str, Sequence[Direction]]
) -> dict[str, Sequence[Direction]]:
    """Groups with further ones before the last, which is that of all directions."""
    *levels, last = groups.items()
    return {**dict(levels), **untrained, **dict([last])}


def mean(values: Mapping[Direction, float], members: Iterable[Direction]) -> float | None:
    """The mean of the values of some directions; directions without a value are skipped; None if all are."""
    found = [values[direction] for direction in members if direction in values]
    return sum(found) / len(found) if found else None
