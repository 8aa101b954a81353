"""How runs were trained, as parts of the HTML report: curves, losses by language, and what pruning has left."""

from __future__ import annotations

from collections.abc import Mapping

from langspec_lora.errors import printable
from langspec_lora.report.curve_pictures import for_page, panels
from langspec_lora.report.heat_map import Matrix, spans, step
from langspec_lora.report.training import Training, loss_map

_TALL = 60  # rows from which the maps of a run are folded
_CELL, _HEIGHT, _FONT = 40, 22, 11  # pixels


def training_maps(training: Training, levels: Mapping[str, str]) -> dict[str, Matrix]:
    """The maps that are also files of their own, by the names of these without their endings."""
    named: dict[str, Matrix] = {}
    for run, maps in _by_run(training, levels).items():
        plain = "".join(c if c.isalnum() or c in "._-" else "_" for c in run)
        for kind, matrix in maps.items():
            stem = f"{kind}.{plain}"
            named[stem if stem not in named else f"{stem}.{len(named)}"] = matrix
    return named


def training_parts(training: Training, levels: Mapping[str, str]) -> dict[str, object]:
    """What the template of the report needs.

    Args:
        training: how the runs were trained.
        levels: resource level of each language; empty where they are not known.
    """
    maps = {run: [*of_run.values()] for run, of_run in _by_run(training, levels).items()}
    return {
        "curves": [for_page(panel) for panel in panels(training.curves)],
        "training_maps": [(run, [*map(map_of_languages, of_run)]) for run, of_run in maps.items()],
        "training_notes": training.notes,
    }


def _by_run(training: Training, levels: Mapping[str, str]) -> dict[str, dict[str, Matrix]]:
    found: dict[str, dict[str, Matrix]] = {}
    for run, curves in training.curves.items():
        losses = loss_map(run, curves, levels)
        if losses is not None:
            found[run] = {"losses": losses}
    for run, maps in training.survival.items():
        found.setdefault(run, {}).update(zip(("survival.position", "survival.layer"), maps, strict=True))
    return found


def map_of_languages(matrix: Matrix) -> dict[str, object]:
    """Describes a map whose rows are languages for the template's macro ``heat``."""
    rows, columns = [*matrix.rows.items()], [*matrix.columns.items()]
    longest = max(len(head.name) for _, head in rows)
    edges = {start for _, start, _ in spans(matrix.columns) if start}
    down = {start: (group, end - start) for group, start, end in spans(matrix.rows) if group}

    def cell(row: object, column: object, number: int) -> dict[str, str]:
        edge = ["first-column"] if number in edges else []
        value = matrix.values.get((row, column))
        if value is None:
            return {"text": "", "style": " ".join(edge), "title": ""}
        style = [f"s{step(value, *matrix.limits)}", *edge]
        title = matrix.titles.get((row, column), f"{matrix.rows[row].name}, {matrix.columns[column].name}: {value:.1f}")
        return {"text": matrix.figure(value), "style": " ".join(style), "title": title}

    return {
        "title": printable(matrix.title),
        "subtitle": printable(matrix.subtitle),
        "cell": _CELL if len(columns) <= 13 else 30,
        "tall": _HEIGHT,
        "font": _FONT if len(columns) <= 13 else 9,
        "name": max(26, 8 * longest + 8),
        "upright": any(8 * len(head.name) > _CELL for _, head in columns),
        "levels": [(group, end - start) for group, start, end in spans(matrix.columns)],
        "languages": [(head.name, True, number in edges) for number, (_, head) in enumerate(columns)],
        "rows": [
            {
                "name": head.name,
                "first": number in down and number > 0,
                "level": down.get(number),
                "cells": [cell(key, column, place) for place, (column, _) in enumerate(columns)],
            }
            for number, (key, head) in enumerate(rows)
        ],
        "picture": None,
        "file": "",
        "kind": "s",
        "low": matrix.figure(matrix.limits[0]),
        "high": matrix.figure(matrix.limits[1]),
        "tall_map": len(rows) > _TALL,
    }
