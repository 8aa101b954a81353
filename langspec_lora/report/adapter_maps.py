"""Maps of what adapters hold, key by position and key by layer, for pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from langspec_lora.adapters.counts import Cell
from langspec_lora.keys import KEY_LEVELS
from langspec_lora.report.heat_map import LEAST_REACH, Head, Matrix
from langspec_lora.report.table import MOST_ROWS
from langspec_lora.sites import in_model_order


def adapter_map(
    title: str,
    subtitle: str,
    cells: Sequence[Cell],
    figure: Callable[[Sequence[int]], float],
    part: str,
    by_level: bool = False,
) -> Matrix:
    """A map with the keys, from high to low resource, down, and positions or layers to the right.

    Args:
        title: its title.
        subtitle: a line below that.
        cells: the adapters at sites.
        figure: the value of some of them, by their numbers.
        part: ``position`` or ``layer``.
        by_level: whether the rows are levels; so they are anyway where there are too many keys.
    """
    by_level = by_level or has_too_many_rows(cells)

    def place(number: int) -> tuple[str, Head]:
        cell = cells[number]
        return cell.level if by_level else cell.key, Head(cell.site.stack, str(getattr(cell.site, part)))

    def order(number: int) -> tuple[int, tuple[int, ...]]:
        return KEY_LEVELS.index(cells[number].level), in_model_order(cells[number].site)

    members: dict[tuple[str, Head], list[int]] = {}
    rows: dict[str, Head] = {}
    for number in sorted(range(len(cells)), key=order):
        row, column = place(number)
        rows.setdefault(row, Head("level" if by_level else cells[number].level, row))
        members.setdefault((row, column), []).append(number)
    values = {key: figure(numbers) for key, numbers in members.items()}
    columns = sorted(range(len(cells)), key=lambda number: in_model_order(cells[number].site))
    heads = {place(number)[1]: place(number)[1] for number in columns}
    return Matrix(title, subtitle, rows, heads, values, (0.0, max(LEAST_REACH, *values.values())))


def has_too_many_rows(cells: Sequence[Cell]) -> bool:
    """Whether there are more keys than a map shows."""
    return len({cell.key for cell in cells}) > MOST_ROWS
