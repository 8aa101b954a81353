"""The pictures of an ablation: languages by layers and positions, and each two languages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from langspec_lora.ablation.findings import BOTH, Findings, Row
from langspec_lora.ablation.options import LAYER, POSITION
from langspec_lora.report.heat_map import Head, Matrix

MOST_ROWS = 400
"""Of a picture; each direction between 21 languages has its adapter there."""

_LEAST_REACH = 0.01
_MOST_EXTENT = 5.0  # of the scale of similarities: below 0 they have no bound
_NONE = object()


def maps(found: Findings) -> dict[str, Matrix]:
    """The pictures by their names without endings, as far as their figures were asked for."""
    drawn: dict[str, Matrix] = {}
    key = found.about["adapters"]
    for kind, name in ((LAYER, "layers"), (POSITION, "positions")):
        rows = [row for row in found.cells if row["by"] == kind]
        if rows:
            drawn[name] = _cell_map(rows, kind, key)
    for role in dict.fromkeys(row["as"] for row in found.swaps):
        drawn[f"swap.{role}"] = _swap_map([row for row in found.swaps if row["as"] == role], role, found)
    pooled = [row for row in found.similarities if row["as"] == BOTH] or found.similarities
    if pooled:
        lowest = min((row["similarity"] for row in pooled if row["similarity"] is not None), default=0.0)
        extent = min(max(1.0, -lowest), _MOST_EXTENT)
        drawn["similarity"] = _pair_map(
            [{**row, "value": row["similarity"]} for row in pooled],
            f"How well two {key}s' adapters replace each other",
            "1: as well as each itself, 0: as leaving both out, below 0: worse than that",
            found,
            (-extent, extent),
        )
        found_cosines = [abs(row["cosine"]) for row in pooled if row["cosine"] is not None]
        reach = max([_LEAST_REACH, *found_cosines])
        drawn["cosine"] = _pair_map(
            [{**row, "value": row["cosine"]} for row in pooled],
            f"Cosine of two {key}s' updates B A",
            "of all their sites as one vector; no text is needed for it",
            found,
            (-reach, reach),
        )
    return drawn


def _cell_map(rows: Iterable[Row], kind: str, key: str) -> Matrix:
    rows = list(rows)
    heads = {row["name"]: Head(row["level"], row["name"]) for row in rows}
    columns = {(row["stack"], row[kind]): Head(row["stack"], row[kind]) for row in rows}
    values = {(row["name"], (row["stack"], row[kind])): row["change"] for row in rows}
    title = f"What is lost without an adapter: {key} × {kind}"
    return Matrix(title, "growth of the loss, bits per token; more is worse", heads, columns, values, **_losses(values))


def _swap_map(rows: list[Row], role: str, found: Findings) -> Matrix:
    names = list(dict.fromkeys(row["name"] for row in rows))
    key, levels = found.about["adapters"], found.about["levels"]
    heads = {name: Head(levels[name], name) for name in names}
    values: dict[Any, float | None] = {(row["name"], row["by"]): row["change"] for row in rows}
    values |= {(row["name"], _NONE): row["change_without"] for row in rows}
    where = "" if role in (BOTH, "direction") else f", as {role}"
    return Matrix(
        f"What is lost with another {key}'s adapter{where}",
        "growth of the loss, bits per token: rows replaced by columns; first column: left out",
        heads,
        {_NONE: Head("", "none"), **heads},
        values,
        words=("", "by"),
        **_losses(values),
    )


def _pair_map(rows: list[Row], title: str, subtitle: str, found: Findings, limits: tuple[float, float]) -> Matrix:
    levels = found.about["levels"]
    named = {name for row in rows for name in (row["one"], row["other"])}
    heads = {name: Head(level, name) for name, level in levels.items() if name in named}
    values = {}
    for row in rows:
        values[row["one"], row["other"]] = values[row["other"], row["one"]] = row["value"]
    return Matrix(title, subtitle, heads, heads, values, limits, signed=True, digits=2)


def _losses(values: Mapping[Any, float | None]) -> dict[str, Any]:
    """How differences of losses are shown."""
    reach = max([_LEAST_REACH, *(abs(value) for value in values.values() if value is not None)])
    return {"limits": (-reach, reach), "signed": True, "falling": True, "digits": 2 if reach >= 0.1 else 3}
