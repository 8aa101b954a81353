"""A heat map, source × target, as a table of HTML: its figures can be read, copied and pointed at."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from types import MappingProxyType

from langspec_lora.data.directions import Direction
from langspec_lora.report import colours
from langspec_lora.report.groups import order_by_level
from langspec_lora.report.maps import Heatmap

_ROOM_FOR_LABEL = 60  # pixels that "from high" takes
_ROOM_FOR_FIGURE = 24  # pixels that "+12.3" takes
_ROOM_FOR_NAME = 16  # pixels that a language's name takes across


def cell_shape(languages: int) -> tuple[int, int]:
    """Width and height of a cell in pixels, such that a map fits a screen of 1280."""
    if languages <= 13:
        return 40, 27
    if languages <= 31:
        return 36, 22
    side = max(5, 1120 // languages)
    return side, min(side, 20)


def heat_table(
    heatmap: Heatmap,
    levels: Mapping[str, str],
    titles: Mapping[Direction, str],
    marks: Mapping[Direction, str] = MappingProxyType({}),
) -> dict[str, object]:
    """Describes a map for the template.

    Args:
        heatmap: what it shows; a value of None is shown as not known.
        levels: resource level of each language.
        titles: what is shown when a cell is pointed at.
        marks: a further class of some cells.
    """
    values = heatmap.values
    languages = order_by_level([name for direction in values for name in direction], levels)
    cell, tall = cell_shape(len(languages))
    text = cell >= _ROOM_FOR_FIGURE
    low, high = heatmap.limits
    letter = "d" if heatmap.differences else "s"
    spans = [
        (level, len(list(members))) for level, members in groupby(languages, key=lambda name: levels.get(name, ""))
    ]
    starts = [sum(span for _, span in spans[:number]) for number in range(1, len(spans))]
    firsts = dict(zip([0, *starts], spans, strict=True))

    def describe(source: str, target: str) -> dict[str, str]:
        direction = Direction(source, target)
        edge = ["first-column"] if languages.index(target) in starts else []
        if values.get(direction) is None:
            return {"text": "—" if text and direction in values else "", "style": " ".join(edge), "title": ""}
        value = values[direction]
        style = [f"{letter}{colours.step(value, low, high)}", *edge, marks.get(direction, "")]
        return {
            "text": _figure(value, heatmap.differences) if text else "",
            "style": " ".join(filter(None, style)),
            "title": titles[direction],
        }

    longest = max(map(len, languages))
    step = 1 if text else -(-_ROOM_FOR_NAME // cell)
    return {
        "title": heatmap.title,
        "subtitle": heatmap.subtitle,
        "cell": cell,
        "tall": tall,
        "font": 11 if cell >= 32 else 9,
        "name": max(26, 8 * longest + 8),
        "upright": 8 * longest > cell * step,
        "levels": [_label("into", level, span, span * cell) for level, span in spans],
        "languages": [(name, number % step == 0, number in starts) for number, name in enumerate(languages)],
        "rows": [
            {
                "name": source if number % step == 0 else "",
                "first": number in starts,
                "level": _label("from", *firsts[number], firsts[number][1] * tall) if number in firsts else None,
                "cells": [describe(source, target) for target in languages],
            }
            for number, source in enumerate(languages)
        ],
        "kind": letter,
        "low": _figure(low, heatmap.differences),
        "high": _figure(high, heatmap.differences),
    }


def _label(word: str, level: str, span: int, pixels: int) -> tuple[str, int]:
    return f"{word} {level}".strip() if pixels >= _ROOM_FOR_LABEL else level, span


def _figure(value: float, signed: bool) -> str:
    text = f"{value:+.1f}" if signed else f"{value:.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")
