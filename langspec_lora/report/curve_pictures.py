"""Learning curves as pictures: losses, scores and sparsity over the updates, several runs in each."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from langspec_lora.curve_file import Curves
from langspec_lora.files import write_whole
from langspec_lora.languages import LEVELS
from langspec_lora.report.heat_map import STYLE
from langspec_lora.report.training import short

_COLOURS = {
    "light": ("#1f6f8b", "#b4491a", "#5b7f2b", "#7a4fa3", "#8a6d00", "#a33a6b", "#3b5bb5", "#5c6670"),
    "dark": ("#63c5d3", "#f0a070", "#a9cf74", "#c2a2e8", "#dcc15f", "#ee8fb8", "#93adf2", "#a9b4be"),
}
_PAGE = {"light": ("#ffffff", "#1f2933", "#66727f", "#dde3e8"), "dark": ("#12181d", "#e4e9ed", "#98a4af", "#2d3740")}
"""Background, ink, faint ink and grid."""
_DASHES = ("-", "--", ":", "-.")
_MARKS_UP_TO = 40  # points up to which each has a mark
_NAMES_UP_TO = 40  # characters of a run's name in a legend
_BESIDE_UP_TO = 23  # characters of the longest entry with which a legend has two columns
_LEGEND_UP_TO = 30


@dataclass(frozen=True)
class Line:
    """A curve.

    Attributes:
        run: the number of its run, which decides the colour.
        name: in the legend.
        points: updates and value of each point.
        dash: the number of its kind of line.
        faint: whether it is grey and above the others: what was aimed at.
    """

    run: int
    name: str
    points: Sequence[tuple[int, float]]
    dash: int = 0
    faint: bool = False


@dataclass(frozen=True)
class Panel:
    """A picture of curves.

    Attributes:
        stem: its file's name without the ending.
        title: its title.
        subtitle: what the values are.
        lines: the curves.
    """

    stem: str
    title: str
    subtitle: str
    lines: Sequence[Line]


def panels(curves: Mapping[str, Curves]) -> list[Panel]:
    """The pictures that the curves of some runs, by name, have values for."""
    several = len(curves) > 1
    runs = list(enumerate(curves.items()))

    def lines(kind: str, get: Callable[[Mapping], Any], what: str = "", dash: int = 0) -> list[Line]:
        """One curve for each run; ``what`` says in the legend what it shows."""
        found = []
        for number, (name, of_run) in runs:
            points = list(_points(getattr(of_run, kind), get))
            label = f"{_short_name(name)}, {what}" if several and what else what or _short_name(name)
            if points:
                found.append(Line(number if several else dash, label, points, dash))
        return found

    def of_levels(kind: str, get: Callable[..., Any]) -> list[Line]:
        return [
            line for dash, level in enumerate(LEVELS) for line in lines(kind, partial(get, level=level), level, dash)
        ]

    bits = "for each token, in bits; lower is better"
    loss = [
        *lines("epochs", lambda line: line.get("loss"), "training"),
        *lines("validations", lambda line: line.get("loss"), "validation", 1),
    ]
    by_level = of_levels("validations", lambda line, level: line.get("by_level", {}).get(level))
    chrf = lines("validations", lambda line: line.get("scores", {}).get("chrf"))
    bleu = lines("validations", lambda line: line.get("scores", {}).get("bleu"))
    share = lines("epochs", lambda line: _percent(line.get("sparsity")))
    target = lines("epochs", lambda line: _percent(line.get("target_sparsity")), "target", 1)
    sparsity = [*share, *(replace(line, faint=True) for line in target)]
    levels = of_levels("epochs", lambda line, level: _percent(line.get(f"sparsity_{level}")))
    if not _differ(levels):  # as where each language is pruned by itself
        levels = []
    sample = "on a sample of validation text; higher is better"
    every = [
        Panel("curves.loss", "Loss", f"{bits}; training is the mean of an epoch", loss),
        Panel("curves.chrf", "chrF++", sample, chrf),
        Panel("curves.bleu", "BLEU", sample, bleu),
        Panel("curves.loss_by_level", "Validation loss by level of the target", bits, by_level),
        Panel("curves.sparsity", "Sparsity", "% of the entries of B", sparsity),
        Panel("curves.sparsity_by_level", "Sparsity by level", "% of the entries of B", levels),
    ]
    return [panel for panel in every if panel.lines]


def _short_name(name: str) -> str:
    """A name without its middle if it is long: those of related runs differ at the end."""
    if len(name) <= _NAMES_UP_TO:
        return name
    half = _NAMES_UP_TO // 2
    return f"{name[: half - 1]}…{name[-half:]}"


def _points(lines: Iterable[Mapping], get: Callable[[Mapping], Any]) -> Iterable[tuple[int, float]]:
    """Updates and values; of several validation subsets the first."""
    subset = None
    for line in lines:
        subset = subset or line.get("subset")
        value = get(line)
        if isinstance(value, (int, float)) and line.get("subset") == subset:
            yield line["updates"], float(value)


def _differ(lines: Sequence[Line]) -> bool:
    """Whether percentages of several curves differ by more than rounding."""
    at: dict[int, list[float]] = {}
    for line in lines:
        for updates, value in line.points:
            at.setdefault(updates, []).append(value)
    return any(max(values) - min(values) > 0.5 for values in at.values())


def _percent(share: Any) -> float | None:
    return 100 * share if isinstance(share, (int, float)) else None


def draw_panel(panel: Panel, out: Path) -> list[Path]:
    """Draws a picture as PNG and SVG into a folder.

    Raises:
        UserError: a file cannot be written.
    """
    paths = []
    for suffix in ("png", "svg"):
        paths.append(out / f"{panel.stem}.{suffix}")
        write_whole(paths[-1], _drawn(panel, suffix, "light"))
    return paths


def for_page(panel: Panel) -> dict[str, str]:
    """A picture for the HTML report: one for light and one for dark pages, and the figures in words."""
    last = "; ".join(f"{line.name} {line.points[-1][1]:.2f}" for line in panel.lines[:_LEGEND_UP_TO])
    return {
        "title": panel.title,
        "subtitle": panel.subtitle,
        "light": b64encode(_drawn(panel, "svg", "light", titled=False)).decode(),
        "dark": b64encode(_drawn(panel, "svg", "dark", titled=False)).decode(),
        "words": f"{panel.title}, last values: {last}",
        "file": f"{panel.stem}.png",
    }


def _drawn(panel: Panel, suffix: str, theme: str, titled: bool = True) -> bytes:
    page, ink, faint, grid = _PAGE[theme]
    colours = _COLOURS[theme]
    shown = panel.lines[:_LEGEND_UP_TO]
    beside = 2 if max(len(line.name) for line in shown) <= _BESIDE_UP_TO else 1
    rows = -(-len(shown) // beside) + (len(shown) < len(panel.lines))
    below = 0.62 + 0.23 * rows + 0.1
    top = 0.8 if titled else 0.15
    width, height = 5.6, 2.7 + below + top
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=160, facecolor=page)
        axes = figure.add_axes((0.62 / width, below / height, (width - 0.82) / width, 2.7 / height), facecolor=page)
        for line in panel.lines:
            x, y = zip(*line.points, strict=True)
            axes.plot(
                x,
                y,
                color=faint if line.faint else colours[line.run % len(colours)],
                linestyle=_DASHES[(line.dash + line.run // len(colours)) % len(_DASHES)],
                linewidth=1.7,
                label=line.name,
                marker="o" if len(x) <= _MARKS_UP_TO else None,
                markersize=3.5,
            )
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(int(value))))
        axes.set_xlabel("updates", fontsize=10, color=faint)
        axes.tick_params(length=0, labelsize=10, labelcolor=ink)
        axes.grid(color=grid, linewidth=0.8)
        axes.set_axisbelow(True)
        for spine in axes.spines.values():
            spine.set_visible(False)
        handles = axes.get_legend_handles_labels()[0][:_LEGEND_UP_TO]
        left = 0.62 / width
        legend = figure.legend(
            handles=handles,
            loc="upper left",
            bbox_to_anchor=(left - 0.015, (below - 0.5) / height),
            ncol=beside,
            fontsize=10,
            frameon=False,
            labelcolor=ink,
            handlelength=2.2,
            borderpad=0,
            columnspacing=1.4,
        )
        legend.set_in_layout(False)
        if left_out := len(panel.lines) - len(shown):
            figure.text(left, 0.12 / height, f"and {left_out} more", fontsize=10, color=faint)
        if titled:
            figure.text(left, 1 - 0.3 / height, panel.title, fontsize=13, fontweight="bold", color=ink, va="center")
            figure.text(left, 1 - 0.57 / height, panel.subtitle, fontsize=9.5, color=faint, va="center")
        content = io.BytesIO()
        figure.savefig(content, format=suffix, facecolor=page, metadata={"Date": None} if suffix == "svg" else None)
    return content.getvalue()
