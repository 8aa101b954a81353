"""The report on one or more results folders: one HTML file, Markdown, tables as CSV, heat maps as pictures."""

# Imports in functions: matplotlib takes a second, in which the terminal shows its tables.

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader

from langspec_lora.errors import UserError
from langspec_lora.files import write_whole
from langspec_lora.report import mean_tables, table, tables
from langspec_lora.report.analysis import Analysis
from langspec_lora.report.tables import DIRECTIONS

CACHE = "report.cache.json"

_LANGUAGES_ON_A_TERMINAL = 40


def make_folder(out: Path) -> None:
    """Makes the folder to write into, before anything is computed.

    Raises:
        UserError: it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: {error.strerror}; give a writable folder as --out") from error


def terminal_text(analysis: Analysis) -> str:
    """The tables and remarks as Markdown, as much of them as a terminal holds."""
    return _markdown(analysis, terminal=True, languages=len(analysis.languages) <= _LANGUAGES_ON_A_TERMINAL)


def write_files(analysis: Analysis, out: Path) -> list[Path]:
    """Writes ``report.html``, ``.md``, ``.csv``, its tables as CSV, and maps and curves as PNG and SVG.

    Raises:
        UserError: a file cannot be written; those before it are there and whole.
    """
    from langspec_lora.report.curve_pictures import draw_panel, panels
    from langspec_lora.report.heat_map import draw
    from langspec_lora.report.html import html_report
    from langspec_lora.report.map_list import drawn_maps
    from langspec_lora.report.training import read_training
    from langspec_lora.report.training_page import training_maps

    maps, training = drawn_maps(analysis), read_training(analysis.runs)
    curves, of_training = panels(training.curves), training_maps(training, analysis.levels)
    pictures = [(matrix.title, f"{stem}.png") for stem, matrix in maps.items()]
    more = [(panel.title, f"{panel.stem}.png") for panel in curves]
    more += [(matrix.title, f"{stem}.png") for stem, matrix in of_training.items()]
    texts = {
        "report.html": html_report(analysis, training),
        "report.md": _markdown(
            analysis, languages=True, pictures=pictures, training=more, training_notes=training.notes
        )
        + "\n",
        "report.csv": mean_tables.group_csv(analysis),
        mean_tables.LANGUAGES: mean_tables.language_csv(analysis),
        DIRECTIONS: tables.directions_table(analysis, full=True).csv(),
    }
    for name, text in texts.items():
        write_whole(out / name, text)
    files = [out / name for name in texts]
    for stem, matrix in maps.items():
        files += draw(matrix, out / stem, f"{analysis.label}: {matrix.title}")
    for panel in curves:
        files += draw_panel(panel, out)
    for stem, matrix in of_training.items():
        files += draw(matrix, out / stem, matrix.title)
    return files


def _markdown(analysis: Analysis, **options: object) -> str:
    environment = Environment(loader=PackageLoader("langspec_lora.report"), trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"text": table.markdown_text, "code": table.markdown_code}
    return (
        environment.get_template("report.md.j2")
        .render(analysis=analysis, tables=tables, means=mean_tables, **options)
        .strip()
    )
