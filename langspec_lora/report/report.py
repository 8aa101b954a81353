"""The report on one or more results folders: one HTML file, Markdown, tables as CSV, heat maps as pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from langspec_lora.errors import UserError
from langspec_lora.files import write_whole
from langspec_lora.report.analysis import Analysis
from langspec_lora.report.maps import Heatmap, difference_maps, score_maps
from langspec_lora.report.notes import made_notes, off_target_notes, significance_note
from langspec_lora.report.tables import (
    directions_table,
    group_table,
    language_table,
    off_target_table,
    overview_table,
    verdict_table,
)

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
        raise UserError(f"{out}: {error.strerror}; give a folder that can be written as --out") from error


def terminal_text(analysis: Analysis) -> str:
    """The tables and remarks as Markdown, as much of them as a terminal holds."""
    parts = _summary(analysis)
    if len(analysis.languages) <= _LANGUAGES_ON_A_TERMINAL:
        parts += ["## From and into each language", language_table(analysis, differences=False).markdown()]
    return "\n\n".join(parts)


def _summary(analysis: Analysis) -> list[str]:
    parts = [
        f"# {analysis.label}{' by resource group' if analysis.levels else ''}",
        group_table(analysis).markdown(),
        _list([f"{analysis.label}, means over directions", *analysis.notes]),
    ]
    if analysis.comparisons or analysis.off_target:
        parts += ["## Runs", overview_table(analysis).markdown()]
    if analysis.off_target and analysis.off_target.bounds:
        parts.append("≥ is a lower bound: neither a script nor the identifier tells all languages apart.")
    if analysis.comparisons:
        parts += ["## Wins, ties and losses", verdict_table(analysis).markdown(), significance_note(analysis)]
    return parts


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def write_files(analysis: Analysis, out: Path) -> list[Path]:
    """Writes ``report.html``, ``.md`` and ``.csv``, ``report.directions.csv`` and the heat maps as PNG and SVG.

    Args:
        analysis: what there is to say.
        out: the folder to write into.

    Returns:
        The files.

    Raises:
        UserError: a file cannot be written; those before it are there and whole.
    """
    from langspec_lora.report.heatmap import draw_heatmap
    from langspec_lora.report.html import html_report

    maps = [*score_maps(analysis), *difference_maps(analysis)]
    pictures = [[out / f"heatmap.{name}.{suffix}" for suffix in ("png", "svg")] for name in _file_names(maps)]
    texts = {
        "report.html": html_report(analysis),
        "report.md": _report_md(
            analysis, [(heatmap.title, paths[0]) for heatmap, paths in zip(maps, pictures, strict=True)]
        ),
        "report.csv": group_table(analysis).csv(),
        "report.directions.csv": directions_table(analysis, full=True).csv(),
    }
    for name, text in texts.items():
        write_whole(out / name, text)
    for heatmap, paths in zip(maps, pictures, strict=True):
        title = f"{analysis.label}: {heatmap.title}"
        draw_heatmap(
            heatmap.values, analysis.levels, paths, title, heatmap.subtitle, heatmap.differences, heatmap.limits
        )
    return [*(out / name for name in texts), *(path for paths in pictures for path in paths)]


def _file_names(maps: Sequence[Heatmap]) -> list[str]:
    """Names of files for the maps, no two the same."""
    names: list[str] = []
    for heatmap in maps:
        plain = heatmap.title.replace(" − ", "-minus-") if heatmap.differences else heatmap.title
        plain = "".join(c if c.isalnum() or c in "._-" else "_" for c in plain)
        names.append(plain if plain not in names else f"{plain}.{len(names)}")
    return names


def _report_md(analysis: Analysis, pictures: Sequence[tuple[str, Path]]) -> str:
    parts = [*_summary(analysis), "## From and into each language", language_table(analysis).markdown()]
    if analysis.off_target:
        parts += ["## Wrong language", off_target_table(analysis).markdown(), _list(off_target_notes(analysis))]
    parts += ["## Heat maps", *(f"![{name}]({path.name})" for name, path in pictures)]
    runs = []
    for run in analysis.runs:
        checkpoint = f", {run.checkpoint}" if run.checkpoint else ""
        runs.append(f"**{run.name}**: `{run.signatures.get(analysis.metric) or 'no signature'}`{checkpoint}")
    parts += ["## How it was made", _list([*made_notes(analysis), *runs])]
    return "\n\n".join(parts) + "\n"
