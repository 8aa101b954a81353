"""The report as one HTML file that needs no network: real text, tables that sort, light and dark."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from langspec_lora.data.directions import Direction
from langspec_lora.report import colours, tables, worst
from langspec_lora.report.analysis import Analysis
from langspec_lora.report.heat_table import cell_shape, heat_table
from langspec_lora.report.maps import Heatmap, difference_maps, score_maps
from langspec_lora.report.notes import difference_note, made_notes, off_target_notes, significance_note
from langspec_lora.report.tables import Table, percent
from langspec_lora.report.texts import TextFile

_TEMPLATES = Path(__file__).with_name("templates")

# Control characters would be invisible or worse; they are shown as what Unicode has for what cannot be shown.
_CONTROLS = dict.fromkeys((*range(9), *range(10, 32), *range(127, 160)), "�")


def html_report(analysis: Analysis) -> str:
    """The whole file.

    Args:
        analysis: what there is to say.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html.j2").render(_view(analysis))


def _view(analysis: Analysis) -> dict[str, object]:
    """What the template fills in."""
    runs = analysis.runs
    names = [run.name for run in runs]
    cell, _ = cell_shape(len(analysis.languages))
    settings = tables.settings_table(runs)
    return {
        "title": f"{analysis.label}: {', '.join(names)}",
        "subtitle": f"{len(analysis.directions)} directions between {len(analysis.languages)} languages"
        + (f"; the others are compared with {names[0]}" if len(runs) > 1 else ""),
        "label": analysis.label,
        "grouped": bool(analysis.levels),
        "base": names[0],
        "shown": worst.SHOWN,
        "colours": Markup(colours.stylesheet()),
        "notes": analysis.notes,
        "significance": significance_note(analysis),
        "overview": _table(tables.overview_table(analysis)),
        "groups": _table(_with_verdicts(analysis)),
        "other_groups": [
            (label, _table(tables.group_table(analysis, metric)))
            for metric, label in analysis.labels.items()
            if metric != analysis.metric
        ],
        "languages": _languages(analysis),
        "map_width": cell * len(analysis.languages) + 80,
        "maps": [_score_map(analysis, heatmap) for heatmap in score_maps(analysis)],
        "differences": [_difference_map(analysis, heatmap) for heatmap in difference_maps(analysis)],
        "difference_note": difference_note(analysis),
        "off_target": _off_target(analysis) if analysis.off_target else None,
        "worst": [(names[run], _sentences(analysis, own, run)) for run, own in enumerate(analysis.worst)],
        "losses": [(names[run], _sentences(analysis, own, run, 0)) for run, own in enumerate(analysis.losses, 1)],
        "directions": _table(tables.directions_table(analysis)),
        "runs": [(run, run.signatures.get(analysis.metric)) for run in runs],
        "settings": _table(settings) if settings.cells else None,
        "made": made_notes(analysis),
    }


def _table(table: Table, over: Sequence[tuple[str, int]] = (), starts: Sequence[int] = ()) -> dict[str, object]:
    """A table for the template.

    Args:
        table: its text; it has lines.
        over: names above the columns, each with the number of columns that it spans.
        starts: columns with a line before them.
    """
    columns = list(zip(*table.cells, strict=True))
    textual = [not any(re.match(r"[+\-]?\d|≥|—", cell) for cell in column) for column in columns]
    styles = [[name for name, on in (("text", textual[i]), ("start", i in starts)) if on] for i in range(len(columns))]

    def cell(text: str, column: int) -> dict[str, str]:
        # Only differences have a sign.
        difference = float(text) if re.fullmatch(r"[+-]\d+(\.\d+)?", text) else 0.0
        sign = ["gain"] if difference > 0 else ["drop"] if difference < 0 else []
        return {"text": text.replace("-", "−") if sign else text, "style": " ".join(styles[column] + sign)}

    return {
        "over": over,
        "columns": [{"name": name, "style": " ".join(style)} for name, style in zip(table.header, styles, strict=True)],
        "rows": [[cell(text, column) for column, text in enumerate(row)] for row in table.cells],
    }


def _with_verdicts(analysis: Analysis) -> Table:
    table = tables.group_table(analysis)
    if not analysis.comparisons:
        return table
    verdicts = tables.verdict_table(analysis)
    lines = [[*line, *more[1:]] for line, more in zip(table.cells, verdicts.cells, strict=True)]
    return Table([*table.header, *verdicts.header[1:]], lines)


def _languages(analysis: Analysis) -> dict[str, object]:
    table = tables.language_table(analysis)
    width = (len(table.header) - 2) // 2
    names = [name.removeprefix("from: ").removeprefix("into: ") for name in table.header]
    over = (("", 2), ("from it", width), ("into it", width))
    return _table(Table(names, table.cells), over, (2, 2 + width))


def _score_map(analysis: Analysis, heatmap: Heatmap) -> dict[str, object]:
    titles = {direction: f"{_arrow(direction)}: {score:.2f}" for direction, score in heatmap.values.items()}
    return heat_table(heatmap, analysis.levels, titles)


def _difference_map(analysis: Analysis, heatmap: Heatmap) -> dict[str, object]:
    comparison = analysis.comparisons[heatmap.run - 1] if analysis.comparisons else None
    titles, marks = {}, {}
    for direction, value in heatmap.values.items():
        pair = f"{analysis.scores[0][direction]:.2f} → {analysis.scores[heatmap.run][direction]:.2f}"
        titles[direction] = f"{_arrow(direction)}: {pair} ({value:+.2f})"
        if comparison and direction in comparison.corrected:
            titles[direction] += f"; p {comparison.corrected[direction]:.4f}, {comparison.verdicts[direction]}"
            if comparison.verdicts[direction] != "tie":
                marks[direction] = "sure"
    return heat_table(heatmap, analysis.levels, titles, marks)


def _off_target(analysis: Analysis) -> dict[str, object]:
    found = analysis.off_target
    maps = []
    subtitle = f"% of hypotheses; told in {len(found.shares[0])} of {len(analysis.texts)} directions"
    for number, (run, shares) in enumerate(zip(analysis.runs, found.shares, strict=True)):
        values = {d: 100 * shares[d] if d in shares else None for d in analysis.directions}
        titles = {d: f"{_arrow(d)}: {percent(share, d.target in found.bounds)}" for d, share in shares.items()}
        maps.append(heat_table(Heatmap(number, run.name, subtitle, values, (0, 100)), analysis.levels, titles))
    return {"table": _table(tables.off_target_table(analysis)), "maps": maps, "notes": off_target_notes(analysis)}


def _sentences(
    analysis: Analysis, found: Sequence[worst.Sentence], run: int, base: int | None = None
) -> list[dict[str, object]]:
    """A list of sentences for the template: of one run, or of one beside that which it is compared with."""
    from sacrebleu.metrics import CHRF

    read, chrf = cache(TextFile.read), CHRF(word_order=2)
    items = []
    for sentence in found:
        own = analysis.texts[sentence.direction]
        reference = read(own.reference)[sentence.index]
        source = [("source", sentence.direction.source, read(own.source)[sentence.index])] if own.source else []
        shown = [run] if base is None else [base, run]
        hypotheses = []
        for number in shown:
            text = read(own.hypotheses[number])[sentence.index]
            name = analysis.runs[number].name
            if base is not None:
                name += f" ({chrf.sentence_score(text, [reference]).score:.1f})"
            hypotheses.append((name, sentence.direction.target, text))
        texts = [*source, ("reference", sentence.direction.target, reference), *hypotheses]
        items.append(
            {
                "direction": _arrow(sentence.direction),
                "number": sentence.index + 1,
                "value": f"chrF++ {sentence.value:.1f}" if base is None else f"−{abs(sentence.value):.1f} chrF++",
                "texts": [(name, _language_tag(language), text.translate(_CONTROLS)) for name, language, text in texts],
            }
        )
    return items


def _arrow(direction: Direction) -> str:
    return f"{direction.source} → {direction.target}"


def _language_tag(language: str) -> str:
    """A language's name as HTML's ``lang``, which picks fonts; nothing where it cannot be one."""
    code = language.partition("_")[0]
    return code if re.fullmatch("[a-z]{2,3}", code) else ""
