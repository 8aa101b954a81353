"""A heat map of languages against anything else, with languages ordered by resource level and columns in groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from langspec_lora.report.colours import EMPTY, FAINT, INK, SCORES, ink_on
from langspec_lora.report.figures import STYLE, save_figure
from langspec_lora.report.groups import order_by_level

_FIGURES_UP_TO = 44
"""Languages up to which the cells hold figures."""
_CELL, _SMALL_CELL = 0.5, 0.16  # inches
_TOP, _LEFT, _RIGHT, _BOTTOM = 1.45, 1.05, 1.25, 0.35  # inches around the cells


def draw_grid(
    values: Mapping[tuple[str, tuple[str, str]], float],
    levels: Mapping[str, str],
    paths: Sequence[Path],
    title: str,
    subtitle: str,
    limits: tuple[float, float],
) -> None:
    """Draws one figure into files, each whole or not at all.

    Args:
        values: the value of each (language, column), a column being (name of its group, its own name).
        levels: resource level of each language.
        paths: the files, ``.png`` or ``.svg``.
        title: the figure's title.
        subtitle: a line below it, in small print.
        limits: values of the first and the last colour.

    Raises:
        UserError: a file cannot be written.
    """
    languages = order_by_level([language for language, _ in values], levels)
    columns = list(dict.fromkeys(column for _, column in values))
    matrix = np.full((len(languages), len(columns)), np.nan)
    for (language, column), value in values.items():
        matrix[languages.index(language), columns.index(column)] = value

    figures = len(languages) <= _FIGURES_UP_TO
    high = _CELL * 0.8 if figures else _SMALL_CELL
    cell_width = max(_CELL, 3.0 / len(columns))
    box = (cell_width * len(columns), high * len(languages))
    width = max(_LEFT + box[0] + _RIGHT, _LEFT + 0.13 * len(title), _LEFT + 0.08 * len(subtitle))
    height = _TOP + box[1] + _BOTTOM
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=160, facecolor="white")
        axes = figure.add_axes((_LEFT / width, _BOTTOM / height, box[0] / width, box[1] / height))
        norm = Normalize(limits[0], max(limits[1], limits[0] + 0.1))
        image = axes.imshow(np.ma.masked_invalid(matrix), cmap=SCORES, norm=norm, aspect="auto")
        axes.set_facecolor(EMPTY)
        if figures:
            _write_cells(axes, matrix, lambda value: SCORES(norm(value)), font=8.5)
        _name(axes, [name for _, name in columns], languages, font=10 if figures else 6)
        _separate(axes, [group for group, _ in columns], [levels[name] for name in languages], cell_width, high)
        figure.text(_LEFT / width, 1 - 0.34 / height, title, fontsize=14, fontweight="bold", color=INK, va="center")
        figure.text(_LEFT / width, 1 - 0.62 / height, subtitle, fontsize=9, color=FAINT, va="center")
        bar_axes = figure.add_axes(((_LEFT + box[0] + 0.3) / width, _BOTTOM / height, 0.16 / width, box[1] / height))
        bar = figure.colorbar(image, cax=bar_axes)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=9, color=FAINT, labelcolor=INK, length=3)
        save_figure(figure, paths)


def _write_cells(axes: Axes, matrix: np.ndarray, colour: Callable[[float], tuple[float, ...]], font: float) -> None:
    for row, column in np.argwhere(~np.isnan(matrix)):
        value = float(matrix[row, column])
        text = f"{value:.0f}" if value >= 99.95 else f"{value:.1f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=font, color=ink_on(colour(value)))


def _name(axes: Axes, columns: Sequence[str], rows: Sequence[str], font: float) -> None:
    axes.set_xticks(range(len(columns)), columns, fontsize=10, color=INK)
    axes.set_yticks(range(len(rows)), rows, fontsize=font, color=INK)
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False, pad=3)
    axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="minor", length=0, top=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _separate(axes: Axes, groups: Sequence[str], levels: Sequence[str], wide: float, high: float) -> None:
    """Draws a gap between groups of columns and between levels, and names each."""
    line = {"color": FAINT, "linewidth": 1.2, "clip_on": False, "solid_capstyle": "butt"}
    style = {"fontsize": 9.5, "color": FAINT, "ha": "center", "va": "center", "clip_on": False}
    above, left = -0.5 - 0.42 / high, -0.5 - 0.42 / wide  # where the brackets run, in cells from the first one
    for start, end in _spans(groups):
        if start:
            axes.axvline(start - 0.5, color="white", linewidth=5)
        axes.plot([start - 0.38, end - 0.62], [above, above], **line)
        axes.text((start + end - 1) / 2, above - 0.16 / high, groups[start], **style)
    for start, end in _spans(levels):
        if start:
            axes.axhline(start - 0.5, color="white", linewidth=5)
        axes.plot([left, left], [start - 0.38, end - 0.62], **line)
        axes.text(left - 0.16 / wide, (start + end - 1) / 2, levels[start], rotation=90, **style)
    axes.set_xlim(-0.5, len(groups) - 0.5)
    axes.set_ylim(len(levels) - 0.5, -0.5)


def _spans(words: Sequence[str]) -> list[tuple[int, int]]:
    starts = [i for i, word in enumerate(words) if i == 0 or word != words[i - 1]]
    return list(pairwise([*starts, len(words)]))
