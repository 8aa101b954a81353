"""Heat maps, source × target, with languages ordered by resource level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize, TwoSlopeNorm
from matplotlib.figure import Figure

from langspec_lora.data.directions import Direction
from langspec_lora.report.colours import DIFFERENCES, EMPTY, FAINT, INK, SCORES, ink_on
from langspec_lora.report.figures import STYLE, save_figure
from langspec_lora.report.groups import order_by_level

_FIGURES_UP_TO = 44
"""Languages up to which the cells hold figures."""


def draw_heatmap(
    scores: Mapping[Direction, float],
    levels: Mapping[str, str],
    paths: Sequence[Path],
    title: str,
    subtitle: str = "",
    differences: bool = False,
    limits: tuple[float, float] | None = None,
) -> None:
    """Draws one figure into files, each whole or not at all.

    Args:
        scores: the value of each direction; cells without one stay grey.
        levels: resource level of each language.
        paths: the files, ``.png`` or ``.svg``.
        title: the figure's title.
        subtitle: a line below it, in small print.
        differences: the values are differences: signed, and coloured by their sign around 0.
        limits: least and greatest value of the colours; taken from the values where not given.

    Raises:
        UserError: a language without a level, or a file cannot be written.
    """
    languages = order_by_level([name for direction in scores for name in direction], levels)
    values = np.full((len(languages), len(languages)), np.nan)  # (source, target)
    for direction, score in scores.items():
        values[languages.index(direction.source), languages.index(direction.target)] = score

    size = len(languages)
    figures = size <= _FIGURES_UP_TO
    side = max((0.62 if size <= 16 else 0.46 if figures else 0.16) * size, 3.4)
    cell = side / size  # inches
    top, left, right, bottom = 1.45, 1.05, 1.25, 0.35  # inches around the cells
    width = max(left + side + right, left + 0.13 * len(title), left + 0.08 * len(subtitle))
    height = top + side + bottom
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=160, facecolor="white")
        axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
        norm, colours = _colours(values, differences, limits)
        image = axes.imshow(np.ma.masked_invalid(values), cmap=colours, norm=norm, aspect="equal")
        axes.set_facecolor(EMPTY)
        if figures:
            _write_cells(
                axes, values, norm, colours, differences, font=min(cell * (15.5 if size <= 16 else 14.5), 11.0)
            )
        _name_axes(axes, languages, font=11 if size <= 16 else 10 if figures else 6)
        _separate_levels(axes, [levels.get(name, "") for name in languages], cell)

        figure.text(left / width, 1 - 0.34 / height, title, fontsize=14, fontweight="bold", color=INK, va="center")
        if subtitle:
            figure.text(left / width, 1 - 0.62 / height, subtitle, fontsize=9, color=FAINT, va="center")
        bar_axes = figure.add_axes(((left + side + 0.5) / width, bottom / height, 0.16 / width, side / height))
        bar = figure.colorbar(image, cax=bar_axes)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=9, color=FAINT, labelcolor=INK, length=3)
        save_figure(figure, paths)


def _colours(values: np.ndarray, differences: bool, limits: tuple[float, float] | None) -> tuple[Normalize, Colormap]:
    if differences:
        reach = max(float(np.nanmax(np.abs(values))), 0.1) if limits is None else max(map(abs, limits))
        return TwoSlopeNorm(0.0, -reach, reach), DIFFERENCES
    low, high = (0.0, float(np.nanmax(values))) if limits is None else limits
    return Normalize(low, max(high, low + 0.1)), SCORES


def _write_cells(
    axes: Axes, values: np.ndarray, norm: Normalize, colours: Colormap, differences: bool, font: float
) -> None:
    for row, column in np.argwhere(~np.isnan(values)):
        value = values[row, column]
        text = f"{value:+.1f}" if differences else f"{value:.1f}"
        if float(text) == 0:
            text = "0.0"
        axes.text(
            column,
            row,
            text.replace("-", "−"),
            ha="center",
            va="center",
            fontsize=font,
            color=ink_on(colours(norm(value))),
        )


def _name_axes(axes: Axes, languages: Sequence[str], font: float) -> None:
    positions = range(len(languages))
    axes.set_xticks(positions, languages, fontsize=font, color=INK)
    axes.set_yticks(positions, languages, fontsize=font, color=INK)
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False, pad=3)
    edges = np.arange(len(languages) + 1) - 0.5
    axes.set_xticks(edges, minor=True)
    axes.set_yticks(edges, minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="minor", length=0, top=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _separate_levels(axes: Axes, levels: Sequence[str], cell: float) -> None:
    """Draws a gap between the levels and names each beside its languages."""
    starts = [i for i, level in enumerate(levels) if i == 0 or level != levels[i - 1]]
    for start in starts[1:]:
        axes.axhline(start - 0.5, color="white", linewidth=5)
        axes.axvline(start - 0.5, color="white", linewidth=5)
    offset = -0.5 - 0.42 / cell  # where the brackets run, in cells from the first one
    for start, end in pairwise([*starts, len(levels)]):
        centre = (start + end - 1) / 2
        label = levels[start]
        line = {"color": FAINT, "linewidth": 1.2, "clip_on": False, "solid_capstyle": "butt"}
        axes.plot([start - 0.38, end - 0.62], [offset, offset], **line)
        axes.plot([offset, offset], [start - 0.38, end - 0.62], **line)
        style = {"fontsize": 9.5, "color": FAINT, "ha": "center", "va": "center", "clip_on": False}
        axes.text(centre, offset - 0.16 / cell, f"into {label}".strip(), **style)
        axes.text(offset - 0.16 / cell, centre, f"from {label}".strip(), rotation=90, **style)
    axes.set_xlim(-0.5, len(levels) - 0.5)
    axes.set_ylim(len(levels) - 0.5, -0.5)
