"""A matrix of values as a picture: rows and columns in groups, and the colours, which the HTML page uses too."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.image import imsave
from matplotlib.textpath import text_to_path

from langspec_lora.files import write_whole
from langspec_lora.naming import cut

if TYPE_CHECKING:
    from matplotlib.typing import ColorType  # of Matplotlib 3.8 and later

INK = "#1f2933"
FAINT = "#7b8794"
EMPTY = "#f0f2f4"
_BLACK = "#0a0f14"  # ink on colours: if it were lighter, neither it nor white would be legible on medium colours
_MIDDLE = 0.1894  # relative luminance of a colour on which white and _BLACK have the same contrast

SCORES = LinearSegmentedColormap.from_list("scores", ["#f7fbf9", "#c7e6df", "#7cc2bd", "#2f8f9d", "#165a7a", "#0b2e4f"])
DIFFERENCES = LinearSegmentedColormap.from_list(
    "differences", ["#7f2704", "#d9713c", "#f6c9a8", "#fafafa", "#a9d3e0", "#3f8fb0", "#0b3c5d"]
)
_DARK_SCORES = LinearSegmentedColormap.from_list(
    "dark", ["#1b262e", "#1c4251", "#1f6674", "#38969f", "#86cbc5", "#e3f6f1"]
)
_DARK_DIFFERENCES = LinearSegmentedColormap.from_list(
    "dark differences", ["#ffcfae", "#e0814c", "#7b3d1c", "#1f272e", "#1d5069", "#4aa0c2", "#bfe6f3"]
)

STEPS = 32
"""Steps of a scale of the HTML report, less one."""

LEAST_REACH = 0.1
"""Of a scale, so that equal values have one."""

STYLE: dict[Any, Any] = {  # so that a user's matplotlibrc cannot make a picture unreadable
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "svg.hashsalt": "langspec",
    "text.parse_math": False,  # a name may have dollars
}
_FIGURES_UP_TO = 44  # rows or columns up to which the cells of a picture hold figures
_DOTS_ACROSS = 4000  # up to which a picture of many languages has 160 dots per inch
_TOP, _LEFT, _RIGHT, _BOTTOM = 1.45, 1.05, 1.25, 0.35  # inches around the cells, if names are short
_BRACKET = 0.42  # inches from the cells to the brackets of the groups, if names are short
_LONGEST_NAME = 24  # characters of a name in a picture


class Head(NamedTuple):
    """Name and group of a row or a column."""

    group: str
    name: str


@dataclass(frozen=True)
class Matrix:
    """What a picture shows.

    Attributes:
        title: its title.
        subtitle: a line below that.
        rows: the rows by their keys, from the top; rows of a group follow each other.
        columns: the columns, likewise.
        values: the value of each (row, column), by keys; None if it is not known.
        limits: values of the first and the last colour.
        signed: whether the values are differences, coloured around 0.
        words: put before the names of the groups of rows, and of columns.
        titles: what a cell of the HTML shows when it is pointed at.
        bold: the cells of the HTML in bold.
        digits: after the point, of the figures in the cells.
        falling: whether low values are good ones: a picture then has the colours of differences the other way round.
    """

    title: str
    subtitle: str
    rows: Mapping[Any, Head]
    columns: Mapping[Any, Head]
    values: Mapping[Any, float | None]
    limits: tuple[float, float]
    signed: bool = False
    words: tuple[str, str] = ("", "")
    titles: Mapping[Any, str] = field(default_factory=dict)
    bold: Collection[tuple[str, str]] = ()
    digits: int = 1
    falling: bool = False

    def figure(self, value: float) -> str:
        """A value as text; differences have a sign."""
        text = f"{value:+.{self.digits}f}" if self.signed else f"{value:.{self.digits}f}"
        return f"{0:.{self.digits}f}" if float(text) == 0 else text.replace("-", "−")


def draw(matrix: Matrix, stem: Path, title: str) -> list[Path]:
    """Draws a matrix as ``stem.png`` and ``stem.svg``, each whole or not at all; the same values give the same files.

    Raises:
        UserError: a file cannot be written.
    """
    values = np.array(
        [[matrix.values.get((row, column)) for column in matrix.columns] for row in matrix.rows], dtype=float
    )  # (rows, columns); None becomes NaN
    high, wide = map(_cell_inches, values.shape)
    box_high, box_wide = high * len(matrix.rows), wide * len(matrix.columns)
    with mpl.rc_context(STYLE):
        across, upright = _room_for_names(matrix.rows), _widest_name(matrix.columns) > wide
        above = _room_for_names(matrix.columns) if upright else _BRACKET
        left, top = _LEFT + across - _BRACKET, _TOP + above - _BRACKET
        width = max(left + box_wide + _RIGHT, left + 0.13 * len(title), left + 0.08 * len(matrix.subtitle))
        height = top + box_high + _BOTTOM
        figure = Figure(figsize=(width, height), dpi=_dots_per_inch(width, height), facecolor="white")
        axes = figure.add_axes((left / width, _BOTTOM / height, box_wide / width, box_high / height))
        norm, colours = Normalize(*matrix.limits), DIFFERENCES if matrix.signed else SCORES
        colours = colours.reversed() if matrix.falling else colours
        # Cells are painted one by one: scaling an image to the size of a large picture takes a gigabyte.
        edges = (np.arange(count + 1) - 0.5 for count in values.shape[::-1])
        cells = axes.pcolormesh(*edges, np.ma.masked_invalid(values), cmap=colours, norm=norm, rasterized=True)
        axes.set_facecolor(EMPTY)
        if max(values.shape) <= _FIGURES_UP_TO:
            font = min(min(high, wide) * (15.5 if max(values.shape) <= 16 else 14.5), 11.0)
            for row, column in np.argwhere(~np.isnan(values)):
                value = float(values[row, column])
                ink = ink_on(colours(norm(value)))
                axes.text(column, row, matrix.figure(value), ha="center", va="center", fontsize=font, color=ink)
        _name_axes(axes, matrix, upright)
        _separate_groups(axes, matrix, (above / high, across / wide), (high, wide))
        figure.text(left / width, 1 - 0.34 / height, title, fontsize=14, fontweight="bold", color=INK, va="center")
        figure.text(left / width, 1 - 0.62 / height, matrix.subtitle, fontsize=9, color=FAINT, va="center")
        scale = ((left + box_wide + 0.5) / width, _BOTTOM / height, 0.16 / width, box_high / height)
        bar = figure.colorbar(cells, cax=figure.add_axes(scale))
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=9, color=FAINT, labelcolor=INK, length=3)
        paths = []
        for suffix, metadata in (("png", None), ("svg", {"Date": None})):
            content = io.BytesIO()
            figure.savefig(content, format=suffix, dpi=figure.dpi, metadata=metadata)
            paths.append(Path(f"{stem}.{suffix}"))
            write_whole(paths[-1], content.getvalue())
    return paths


def _dots_per_inch(width: float, height: float) -> float:
    """160, or fewer for a large picture, whose names can still be read."""
    return max(100.0, min(160.0, _DOTS_ACROSS / max(width, height)))


def _cell_inches(count: int) -> float:
    """The size of a cell along an axis with ``count`` cells, in inches."""
    return max(0.62 if count <= 16 else 0.46 if count <= _FIGURES_UP_TO else 0.16, 3.4 / count)


def spans(heads: Mapping[Any, Head]) -> list[tuple[str, int, int]]:
    """Each group with its first position and the one after its last."""
    spans, start = [], 0
    for group, members in groupby(heads.values(), key=lambda head: head.group):
        end = start + len(list(members))
        spans.append((group, start, end))
        start = end
    return spans


def _names(heads: Mapping[Any, Head]) -> tuple[list[str], int]:
    """The names along an axis, cut where they are very long, and the size of their font."""
    count = len(heads)
    return [cut(head.name, _LONGEST_NAME) for head in heads.values()], (
        11 if count <= 16 else 10 if count <= _FIGURES_UP_TO else 7
    )


def _widest_name(heads: Mapping[Any, Head]) -> float:
    """The width of the widest name along an axis, in inches, with a little room between it and the next."""
    names, size = _names(heads)
    font = FontProperties(family=STYLE["font.sans-serif"], size=size)
    points = max(text_to_path.get_text_width_height_descent(name, font, False)[0] for name in names)
    return 1.1 * points / 72 + 0.08  # in a PNG, letters stand on whole dots, which can be wider


def _room_for_names(heads: Mapping[Any, Head]) -> float:
    """Inches from the cells to the brackets of the groups: room for names that are read towards them."""
    return max(_BRACKET, _widest_name(heads) + 0.1)


def _name_axes(axes: Axes, matrix: Matrix, upright: bool) -> None:
    for heads, name_ticks, turned in (
        (matrix.columns, axes.set_xticks, upright),
        (matrix.rows, axes.set_yticks, False),
    ):
        names, font = _names(heads)
        count = len(names)
        name_ticks(range(count), names, fontsize=font, color=INK, rotation=90 if turned else 0)
        name_ticks(np.arange(count + 1) - 0.5, minor=True)
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False, pad=3)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="minor", length=0, top=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _separate_groups(axes: Axes, matrix: Matrix, room: tuple[float, float], cells: tuple[float, float]) -> None:
    """Draws a gap between the groups, and a bracket with the name beside each.

    Args:
        axes: what to draw on.
        matrix: what it shows.
        room: from the cells to the brackets above them and to those on their left, in heights and widths of a cell.
        cells: height and width of a cell in inches.
    """
    for down, heads, apart, cell in (
        (False, matrix.columns, room[0], cells[0]),
        (True, matrix.rows, room[1], cells[1]),
    ):
        offset = -0.5 - apart  # where the brackets run, in cells from the first one
        for group, start, end in spans(heads):
            line = [[start - 0.38, end - 0.62], [offset, offset]]
            place = [(start + end - 1) / 2, offset - 0.16 / cell]
            if start:
                (axes.axhline if down else axes.axvline)(start - 0.5, color="white", linewidth=5)
            (x, y), (text_x, text_y) = (line[::-1], place[::-1]) if down else (line, place)
            axes.plot(x, y, color=FAINT, linewidth=1.2, clip_on=False, solid_capstyle="butt")
            text = f"{matrix.words[0 if down else 1]} {group}".strip()
            style: dict[str, Any] = {"fontsize": 9.5, "color": FAINT, "ha": "center", "va": "center", "clip_on": False}
            axes.text(text_x, text_y, text, rotation=90 if down else 0, **style)
    axes.set_xlim(-0.5, len(matrix.columns) - 0.5)
    axes.set_ylim(len(matrix.rows) - 0.5, -0.5)


def ink_on(colour: ColorType) -> str:
    """White or black ink, whichever has more contrast to a colour (W3C, Web Content Accessibility Guidelines 2.1)."""
    rgb = np.asarray(to_rgb(colour))
    linear = np.where(rgb <= 0.03928, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return "white" if linear @ (0.2126, 0.7152, 0.0722) < _MIDDLE else _BLACK


def step(value: float, low: float, high: float) -> int:
    """The step of a value on a scale from ``low`` to ``high``."""
    return round(STEPS * min(1.0, max(0.0, (value - low) / (high - low))))


def pixels(matrix: Matrix, dark: bool = False) -> bytes:
    """A PNG with one pixel for each cell, in the colours of the HTML's classes; unknown values are transparent.

    Args:
        matrix: what it shows.
        dark: for a dark page.
    """
    scores, differences = (_DARK_SCORES, _DARK_DIFFERENCES) if dark else (SCORES, DIFFERENCES)
    colours = differences if matrix.signed else scores
    shades = [colours(number / STEPS, bytes=True) for number in range(STEPS + 1)]
    found = (matrix.values.get((row, column)) for row in matrix.rows for column in matrix.columns)
    rgba = np.array([(0, 0, 0, 0) if value is None else shades[step(value, *matrix.limits)] for value in found])
    content = io.BytesIO()
    imsave(content, rgba.astype(np.uint8).reshape(len(matrix.rows), len(matrix.columns), 4), format="png")
    return content.getvalue()


def stylesheet() -> str:
    """CSS of the classes ``s0`` … (scores) and ``d0`` … (differences), and of their legends."""
    light = _classes("s", SCORES) + _classes("d", DIFFERENCES)
    dark = _classes("s", _DARK_SCORES) + _classes("d", _DARK_DIFFERENCES)
    return f"{light}@media screen and (prefers-color-scheme: dark) {{\n{dark}}}\n"


def _classes(letter: str, colours: Colormap) -> str:
    shades = [colours(number / STEPS) for number in range(STEPS + 1)]
    rules = [
        f".heat .{letter}{number}{{background:{to_hex(shade)};color:{ink_on(shade)}}}"
        for number, shade in enumerate(shades)
    ]
    gradient = ",".join(to_hex(shade) for shade in shades[::4])
    return "\n".join([*rules, f".legend .{letter}{{background:linear-gradient(to right,{gradient})}}\n"])
