"""The report as one HTML file that needs no network: real text, tables that sort, light and dark."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from functools import cache, partial

from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from sacrebleu.metrics import CHRF

from langspec_lora.errors import printable
from langspec_lora.evaluation.metrics import METRICS
from langspec_lora.report import mean_tables, tables
from langspec_lora.report.analysis import Analysis
from langspec_lora.report.heat_map import Matrix, pixels, spans, step, stylesheet
from langspec_lora.report.map_list import arrow, drawn_maps, off_target_maps
from langspec_lora.report.measure import Sentence
from langspec_lora.report.measure_direction import SHOWN
from langspec_lora.report.table import Table
from langspec_lora.report.texts import TextFile
from langspec_lora.report.training import Training
from langspec_lora.report.training_page import training_parts

_ROOM_FOR_LABEL = 60  # pixels that "from high" takes
_ROOM_FOR_FIGURE = 24  # pixels that "+12.3" takes
_ROOM_FOR_NAME = 16  # pixels that a name takes across

_ROOM_FOR_MAP = 1188  # pixels of a screen of 1280, without margins and the gaps between groups
_ROOM_FOR_LEVEL = 20  # pixels of the names of the groups

_WITH_INTERVAL = re.compile(r"([+-]?\d.*) (\([-+0-9., ]+\))")

_CELLS_UP_TO = 60  # languages up to which each cell of a map is an element; 200 would have 40,000
_ROWS_ON_A_PAGE = 100
_LINES_IN_SIGHT = 60  # lines up to which a table does not scroll by itself
_ROWS_AT_ONCE = 1000  # rows up to which a table is not split into pages

# Control characters would be invisible or worse; they are shown as what Unicode has for what cannot be shown.
_CONTROLS = dict.fromkeys((*range(9), *range(10, 32), *range(127, 160)), "�")


def html_report(analysis: Analysis, training: Training | None = None) -> str:
    """The whole file.

    Args:
        analysis: what the report says.
        training: how its runs were trained, if that is known.
    """
    environment = Environment(
        loader=PackageLoader("langspec_lora.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    styled = partial(_styled, higher_is_better=METRICS[analysis.metric].higher_is_better)
    environment.filters |= {"styled": styled, "data": _data, "printable": printable}
    width, _ = cell_shape(analysis.languages)
    maps = [(matrix, map_table(matrix, f"{stem}.png")) for stem, matrix in drawn_maps(analysis).items()]
    directions = tables.directions_table(analysis)
    return environment.get_template("report.html.j2").render(
        analysis=analysis,
        tables=tables,
        colours=Markup(stylesheet()),
        names=[run.name for run in analysis.runs],
        shown=SHOWN,
        **_means(analysis),
        languages=_languages(analysis),
        map_width=width * len(analysis.languages) + _name_width(analysis.languages) + _ROOM_FOR_LEVEL + 8,
        maps=[described for matrix, described in maps if not matrix.signed],
        differences=[described for matrix, described in maps if matrix.signed],
        off_target_maps=[map_table(matrix) for matrix in off_target_maps(analysis)],
        **training_parts(training or Training(), analysis.levels),
        directions=styled(directions, paged=len(directions.cells) > _ROWS_AT_ONCE),
        worst=[_sentences(analysis, found, run) for run, found in enumerate(analysis.worst)],
        losses=[_sentences(analysis, found, run, 0) for run, found in enumerate(analysis.losses, 1)],
    )


def _means(analysis: Analysis) -> dict[str, object]:
    """The tables of the groups: means and differences, in one table as long as they are mere numbers."""
    verdicts, several = tables.verdict_table(analysis), len(analysis.runs) > 1
    if not (analysis.means or analysis.seeds):
        groups = _beside(tables.group_table(analysis), verdicts)
        return {"groups": groups, "mean_notes": mean_tables.relative_notes(analysis)}
    return {
        "groups": tables.group_table(analysis, differences=False),
        "against": _beside(mean_tables.difference_table(analysis), verdicts) if several else None,
        "mean_notes": mean_tables.mean_notes(analysis),
        "seeds": mean_tables.seed_table(analysis),
    }


def _styled(
    table: Table,
    over: Sequence[tuple[str, int]] = (),
    starts: Sequence[int] = (),
    paged: bool = False,
    higher_is_better: bool = True,
) -> dict[str, object]:
    """A table for the template.

    Args:
        table: its text; it has lines.
        over: names above the columns, each with the number of columns that it spans.
        starts: columns with a line before them.
        higher_is_better: whether differences above zero are gains.
        paged: whether the page gets the lines as data, of which its script shows some at a time.
    """
    columns = list(zip(*table.cells, strict=True))
    textual = [not any(re.match(r"[+\-]?\d|≥|—", cell) for cell in column) for column in columns]
    styles = [[name for name, on in (("text", textual[i]), ("start", i in starts)) if on] for i in range(len(columns))]

    def cell(text: str, column: int) -> dict[str, str]:
        interval = ""
        if match := _WITH_INTERVAL.fullmatch(text):
            text, interval = match[1], match[2].replace("-", "−")
        # Only differences have a sign.
        difference = float(text.removesuffix(" %")) if re.fullmatch(r"[+-]\d+(\.\d+)?( %)?", text) else 0.0
        sign = (["gain"] if (difference > 0) == higher_is_better else ["drop"]) if difference else []
        shown = text.replace("-", "−") if sign else printable(text)
        return {"text": shown, "style": " ".join(styles[column] + sign), "interval": interval}

    return {
        "over": over,
        "columns": [
            {"name": printable(name), "style": " ".join(style)}
            for name, style in zip(table.header, styles, strict=True)
        ],
        "rows": [] if paged else [[cell(text, column) for column, text in enumerate(row)] for row in table.cells],
        "tall": not paged and len(table.cells) > _LINES_IN_SIGHT,
        "paged": {"rows": [list(map(printable, row)) for row in table.cells], "size": _ROWS_ON_A_PAGE}
        if paged
        else None,
    }


def _data(content: object) -> Markup:
    """Data for the page's script, which no text in them can end."""
    return Markup(json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"))


def _beside(table: Table, other: Table) -> Table:
    """A table with the columns of another of the same lines, whose first column is the same."""
    cells = [[*line, *more[1:]] for line, more in zip(table.cells, other.cells, strict=True)]
    return Table([*table.header, *other.header[1:]], cells)


def _languages(analysis: Analysis) -> dict[str, object]:
    table = tables.language_table(analysis)
    width = (len(table.header) - 2) // 2
    names = [name.removeprefix("from: ").removeprefix("into: ") for name in table.header]
    over = (("", 2), ("from it", width), ("into it", width))
    higher = METRICS[analysis.metric].higher_is_better
    return _styled(Table(names, table.cells), over, (2, 2 + width), higher_is_better=higher)


def _sentences(
    analysis: Analysis, found: Sequence[Sentence], run: int, base: int | None = None
) -> list[dict[str, object]]:
    """A list of sentences for the template: of one run, or of one beside that which it is compared with."""
    read, chrf = cache(TextFile.read), CHRF(word_order=2)
    items = []
    for sentence in found:
        texts = analysis.texts[sentence.direction]
        source, target = sentence.direction
        reference = read(texts.reference)[sentence.index]
        shown = [("source", source, read(texts.source)[sentence.index])] if texts.source else []
        shown.append(("reference", target, reference))
        for number in [run] if base is None else [base, run]:
            for place in analysis.numbers[number]:
                hypothesis = read(texts.hypotheses[place])[sentence.index]
                score = "" if base is None else f" ({chrf.sentence_score(hypothesis, [reference]).score:.1f})"
                shown.append((analysis.all_runs[place].name + score, target, hypothesis))
        items.append(
            {
                "direction": arrow(sentence.direction),
                "number": sentence.index + 1,
                "value": f"chrF++ {sentence.value:.1f}" if base is None else f"−{abs(sentence.value):.1f} chrF++",
                "texts": [(name, _language_tag(language), text.translate(_CONTROLS)) for name, language, text in shown],
            }
        )
    return items


def _language_tag(language: str) -> str:
    """A language's name as HTML's ``lang``, which picks fonts; empty if it is not a valid tag."""
    code = language.partition("_")[0]
    return code if re.fullmatch("[a-z]{2,3}", code) else ""


def cell_shape(names: Sequence[str]) -> tuple[int, int]:
    """Width and height of a cell of the HTML in pixels, such that a map fits a screen of 1280.

    Args:
        names: those of the rows and columns.
    """
    columns = len(names)
    if columns <= 13:
        return 40, 27
    side = max(5, (_ROOM_FOR_MAP - _ROOM_FOR_LEVEL - _name_width(names)) // columns)
    return (36, 22) if side >= 36 else (side, min(side, 20))


def _name_width(names: Iterable[str]) -> int:
    """Pixels of the column of names."""
    return max(26, 8 * max(map(len, names)) + 8)


def map_table(matrix: Matrix, file: str = "") -> dict[str, object]:
    """Describes a map of directions for the template's macro ``heat``: its figures can be read, copied, pointed at.

    Args:
        matrix: what it shows.
        file: a picture of it, with all names; empty if there is none.
    """
    names = [head.name for head in matrix.rows.values()]  # the columns are the same languages
    width, height = cell_shape(names)
    readable = width >= _ROOM_FOR_FIGURE
    letter = "d" if matrix.signed else "s"
    groups = [(start, group, end - start) for group, start, end in spans(matrix.rows)]
    edges = {start for start, *_ in groups if start}

    def level(word: str, group: str, size: int, pixels: int) -> tuple[str, int]:
        return f"{word} {group}".strip() if size * pixels >= _ROOM_FOR_LABEL else group, size

    def cell(place: tuple[str, str], number: int) -> dict[str, str]:
        edge = ["first-column"] if number in edges else []
        value = matrix.values.get(place)
        if value is None:
            return {"text": "—" if readable and place in matrix.values else "", "style": " ".join(edge), "title": ""}
        style = [f"{letter}{step(value, *matrix.limits)}", *edge, *(["sure"] if place in matrix.bold else [])]
        text = matrix.figure(value) if readable else ""
        return {"text": text, "style": " ".join(style), "title": matrix.titles[place]}

    picture = _picture(matrix, names, edges) if len(names) > _CELLS_UP_TO else None
    longest = max(map(len, names))
    every = 1 if readable else -(-_ROOM_FOR_NAME // width)  # names that there is room for
    down = {start: level(matrix.words[0], group, size, height) for start, group, size in groups}
    return {
        "title": printable(matrix.title),
        "subtitle": printable(matrix.subtitle),
        "cell": width,
        "tall": height,
        "font": 11 if width >= 32 else 9,
        "name": _name_width(names),
        "upright": 8 * longest > width * every,
        "levels": [level(matrix.words[1], group, size, width) for _, group, size in groups],
        "languages": [(name, number % every == 0, number in edges) for number, name in enumerate(names)],
        "rows": [
            {
                "name": name if number % every == 0 else "",
                "first": number in edges,
                "level": down.get(number),
                "cells": [] if picture else [cell((row, column), place) for place, column in enumerate(matrix.columns)],
            }
            for number, (row, name) in enumerate(zip(matrix.rows, names, strict=True))
        ],
        "picture": picture,
        "file": file,
        "kind": letter,
        "low": matrix.figure(matrix.limits[0]),
        "high": matrix.figure(matrix.limits[1]),
    }


def _picture(matrix: Matrix, names: Sequence[str], edges: Iterable[int]) -> dict[str, object]:
    """The cells of a large map as an image for light and one for dark pages, and what each shows when pointed at."""

    def title(row: str, column: str) -> str:
        return matrix.titles.get((row, column), "").removeprefix(f"{row} → {column}: ")

    return {
        "light": b64encode(pixels(matrix)).decode(),
        "dark": b64encode(pixels(matrix, dark=True)).decode(),
        "count": len(names),
        "edges": sorted(edges),
        "data": {"names": names, "titles": [[title(row, column) for column in names] for row in names]},
    }
