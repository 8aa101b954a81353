"""What an ablation found as text: tables for the terminal, and comma-separated values with all digits."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from langspec_lora.ablation.findings import Findings, Row
from langspec_lora.ablation.options import FC, LANGUAGE, LAYER, POSITION
from langspec_lora.report.table import Table, markdown_text
from langspec_lora.sites import SHARED

_MOST_ROWS = 400  # of a table on the terminal


def as_text(found: Findings) -> str:
    """The figures as Markdown for a terminal; those of each two languages are only in the files."""
    about, loss = found.about, found.loss
    head = [
        f"# {markdown_text(about['checkpoint'])} without some of its adapters",
        "",
        f"- loss: base {loss['base']:.3f}, with all adapters {loss['full']:.3f} bits per target token; gain of the "
        f"adapters: {_with_interval(loss, 'gain')}",
        f"- text: {about['subset']} of {markdown_text(about['data'])}, {len(found.directions):,} directions, "
        f"{sum(row['sentences'] for row in found.directions):,} sentences, "
        f"{sum(row['tokens'] for row in found.directions):,} tokens; the tokens of languages are not counted",
        "- below: how much the loss grows, in bits per token; more is worse",
        *(f"- {markdown_text(note)}" for note in found.notes),
    ]
    sections = [
        ("Left out: each language's adapter", _language_table(found)),
        *((f"Left out: each {kind}", _group_table(found, kind)) for kind in (LAYER, POSITION)),
        ("Feed-forward (fc) and attention adapters", _kind_table(found)),
        ("Replaced by another language's adapter", _swap_table(found)),
    ]
    key = about["adapters"]
    for title, table in sections:
        if table.cells:
            title = title.replace("each language's", "the shared") if key == SHARED else title.replace(LANGUAGE, key)
            head += ["", f"## {title}", "", Table(table.header, table.cells[:_MOST_ROWS]).markdown()]
            if len(table.cells) > _MOST_ROWS:
                head += ["", f"… {len(table.cells) - _MOST_ROWS:,} more; --out writes all"]
    return "\n".join(head)


def _language_table(found: Findings) -> Table:
    rows = [row for row in found.parts if row["by"] == LANGUAGE]
    roles = list(dict.fromkeys(row["as"] for row in rows))
    changes = {(row["name"], row["as"]): row for row in rows}
    levels = {row["name"]: row["level"] for row in rows}
    cells = [
        [name, level, *(_with_interval(changes.get((name, role), {}), "change") for role in roles)]
        for name, level in levels.items()
    ]
    return Table([found.about["adapters"], "level", *(_as(role) for role in roles)], cells)


def _group_table(found: Findings, kind: str) -> Table:
    rows = [row for row in found.parts if row["by"] == kind]
    cells = [[row["name"], row["as"], _with_interval(row, "change"), _percent(row["share"])] for row in rows]
    return Table([kind, "adapts the", "change", "of the gain"], cells)


def _kind_table(found: Findings) -> Table:
    cells = [
        [
            row["kind"],
            str(row["sites"]),
            f"{row['alone']:.3f}",
            _percent_with_interval(row, "gained_alone"),
            f"{row['left_out']:.3f}",
            _percent_with_interval(row, "lost_without"),
        ]
        for row in found.kinds
    ]
    header = ["adapters", "sites", "loss with them alone", "of the gain", "loss without them", "of the gain lost"]
    return Table(header, cells)


def _swap_table(found: Findings) -> Table:
    """For each language: the nearest and the farthest other, and how many are worse than no adapter at all."""
    members: dict[tuple[str, str], list[Row]] = {}
    for row in found.swaps:
        members.setdefault((row["as"], row["name"]), []).append(row)
    cells = []
    for (role, name), rows in members.items():
        nearest, farthest = (pick(rows, key=lambda row: row["change"]) for pick in (min, max))
        worse = sum(row["change"] > row["change_without"] for row in rows)
        cells.append(
            [
                name,
                role,
                f"{nearest['by']} {_signed(nearest['change'])}",
                f"{farthest['by']} {_signed(farthest['change'])}",
                _signed(rows[0]["change_without"]),
                f"{worse} of {len(rows)}",
            ]
        )
    header = [found.about["adapters"], "as", "nearest", "farthest", "left out", "worse than left out"]
    return Table(header, cells)


def _as(role: str) -> str:
    return {"source": "as source", "target": "as target"}.get(role, role)


def _with_interval(row: Row, name: str) -> str:
    if row.get(name) is None:
        return "—"
    interval = row[f"{name}_interval"]
    return _signed(row[name]) + (f" ({_signed(interval[0])} to {_signed(interval[1])})" if interval else "")


def _signed(value: float) -> str:
    text = f"{value:+.3f}"
    return "0.000" if float(text) == 0 else text


def _percent(value: float | None) -> str:
    return "—" if value is None else f"{100 * value:.1f} %"


def _percent_with_interval(row: Row, name: str) -> str:
    if row[f"{name}_interval"] is None:
        return _percent(row[name])
    low, high = row[f"{name}_interval"]
    return f"{_percent(row[name])} ({100 * low:.1f} to {100 * high:.1f})"


def csv_files(found: Findings) -> dict[str, str]:
    """The content of each file by its name; those that were not asked for are left out."""
    kinds = [
        {
            "by": FC,
            "name": row["kind"],
            "level": None,
            "as": None,
            "directions": len(found.directions),
            "change": row["left_out"] - found.loss["full"],
            "change_interval": None,
            "share": row["lost_without"],
            "gained_alone": row["gained_alone"],
        }
        for row in found.kinds
    ]
    cells = [
        {
            **{name: row[name] for name in ("name", "level", "stack")},
            "layer": row.get(LAYER),
            "position": row.get(POSITION),
        }
        | {name: row[name] for name in ("change", "change_interval")}
        for row in found.cells
    ]
    similarities = [
        {**{name: value for name, value in row.items() if name != "cosines"}, **row["cosines"]}
        for row in found.similarities
    ]
    parts = [{**row, "gained_alone": None} for row in found.parts]
    rows = {
        "ablation.csv": [*parts, *kinds],
        "ablation.languages.csv": cells,
        "ablation.directions.csv": found.directions,
        "swap.csv": found.swaps,
        "similarity.csv": similarities,
    }
    return {name: _csv(content) for name, content in rows.items() if content}


def _csv(rows: Sequence[Row]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    header = [name for column in columns for name in _columns(column)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([cell for column in columns for cell in _cells(column, row.get(column))] for row in rows)
    return text.getvalue()


def _columns(column: str) -> Iterable[str]:
    name = column.removesuffix("_interval")
    return (column,) if name == column else (f"{name}_low", f"{name}_high")


def _cells(column: str, value: Any) -> Iterable[Any]:
    if column.endswith("_interval"):
        return ("", "") if value is None else value
    return ("" if value is None else value,)
