"""Resource levels of the languages of a report, where no file gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from langspec_lora.data.directions import Direction
from langspec_lora.evaluation.results import Run
from langspec_lora.languages import PAPER_LEVELS


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
        f"groups are left out: no resource level is known of {', '.join(unknown)}; give the levels of all languages "
        "as --lang-resources"
    ]
