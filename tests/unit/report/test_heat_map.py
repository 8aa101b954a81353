"""Pictures of few and of many languages, with short names and with NLLB's: no name stands on another."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from langspec_lora.report.heat_map import Head, Matrix, draw

LETTERS = "abcdefghijklmno"
SCRIPTS = ("_Latn", "_Cyrl", "_Hans")


def names(count: int, kind: str) -> list[str]:
    codes = ["".join(pair) for pair in product(LETTERS, repeat=2)][:count]
    if kind == "short":
        return codes
    if kind == "nllb":
        return [f"{code}m{SCRIPTS[number % 3]}" for number, code in enumerate(codes)]
    return [code * 40 for code in codes]


def matrix(found: list[str]) -> Matrix:
    heads = {name: Head(("high", "med", "low")[3 * number // len(found)], name) for number, name in enumerate(found)}
    values = {(a, b): float(len(a + b) % 50) for a in found for b in found if a != b}
    return Matrix("title", "subtitle", heads, heads, values, (0.0, 50.0), words=("from", "into"))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures, which are kept instead of written."""
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *args, **settings: figures.append(figure))
    return figures


def boxes(texts: list, renderer: object) -> list[Bbox]:
    return [text.get_window_extent(renderer) for text in texts if text.get_text()]


@pytest.mark.parametrize(
    ("count", "kind"),
    [(12, "short"), (100, "short"), (3, "nllb"), (12, "nllb"), (50, "nllb"), (12, "long"), (50, "long")],
)
def test_names_stand_apart_from_each_other_and_from_all_else(tmp_path, drawn, count, kind) -> None:
    draw(matrix(names(count, kind)), tmp_path / "map", "title")
    figure = drawn[0]
    renderer = FigureCanvasAgg(figure).get_renderer()
    axes = figure.axes[0]
    columns = boxes(axes.get_xticklabels(), renderer)
    rows = boxes(axes.get_yticklabels(), renderer)
    assert len(columns) == len(rows) == count
    for one, other in [*pairwise(columns), *pairwise(rows)]:
        assert not one.overlaps(other)
    brackets = [line.get_window_extent(renderer) for line in axes.lines if not line.get_clip_on()]
    groups = [text.get_window_extent(renderer) for text in axes.texts if text.get_text().startswith(("from", "into"))]
    headings = boxes(figure.texts, renderer)
    assert (len(brackets), len(groups), len(headings)) == (6, 6, 2)
    for name in [*columns, *rows]:
        assert not any(name.overlaps(other) for other in [*brackets, *groups, *headings])
    for box in [*columns, *rows, *groups, *headings]:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1


def test_low_values_that_are_good_have_the_colours_of_high_ones_that_are(tmp_path, monkeypatch) -> None:
    shown = []
    stock = Axes.pcolormesh
    monkeypatch.setattr(
        Axes, "pcolormesh", lambda *args, cmap, **more: shown.append(cmap) or stock(*args, cmap=cmap, **more)
    )
    heads = {"a": Head("", "a")}
    for falling in (False, True):
        draw(Matrix("t", "s", heads, heads, {}, (-1, 1), signed=True, falling=falling), tmp_path / "map", "t")
    first, *_, last = shown  # the scale beside a picture is drawn with the same function
    assert first(0.9) == last(1 - 0.9) != last(0.9)


def test_figures_have_as_many_digits_as_asked_for() -> None:
    heads = {"a": Head("", "a")}
    matrix = Matrix("t", "s", heads, heads, {}, (-1, 1), signed=True, digits=3)
    assert [matrix.figure(value) for value in (0.12345, -0.5, -0.0001, 0)] == ["+0.123", "−0.500", "0.000", "0.000"]
