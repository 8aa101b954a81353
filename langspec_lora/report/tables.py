"""The tables of a report, as Markdown and as CSV, and its remarks on how the figures were made."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from langspec_lora.data.directions import Direction
from langspec_lora.errors import printable
from langspec_lora.evaluation.metrics import METRICS
from langspec_lora.evaluation.results import Run
from langspec_lora.report.analysis import Analysis
from langspec_lora.report.groups import group_of, mean
from langspec_lora.report.off_target import IDENTIFIER, identifier_version
from langspec_lora.report.significance import ALPHA, SEED

DIRECTIONS = "report.directions.csv"
"""The file with the table of all directions."""

MOST_ROWS = 400
"""Of a table or a picture of adapters; each direction between 21 languages has its adapter there."""

_MARKDOWN = str.maketrans({**{char: f"\\{char}" for char in "\\|`[]"}, "<": "&lt;"})
_ENTITY = re.compile(r"&(?=#?\w+;)")


def markdown_text(text: str) -> str:
    """A name as text of Markdown, in which it makes no table cell, link or code, no HTML and no new line."""
    return _ENTITY.sub("&amp;", printable(text)).translate(_MARKDOWN)


def markdown_code(text: str) -> str:
    """A text as code of Markdown, in one line."""
    return f"`{printable(text).replace('`', chr(39))}`"


@dataclass(frozen=True)
class Table:
    """A table of text: the names of its columns, and its lines."""

    header: Sequence[str]
    cells: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """As Markdown whose columns are aligned in plain text as well: the first left, the others right."""
        escaped = [list(map(markdown_text, line)) for line in [self.header, *self.cells]]
        widths = [max(3, *(len(line[i]) for line in escaped)) for i in range(len(self.header))]

        def line(texts: Sequence[str]) -> str:
            first, *others = texts
            padded = [first.ljust(widths[0]), *(t.rjust(w) for t, w in zip(others, widths[1:], strict=True))]
            return f"| {' | '.join(padded)} |"

        rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
        return "\n".join([line(escaped[0]), line(rule), *map(line, escaped[1:])])

    def csv(self) -> str:
        """As comma-separated values."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.header, *self.cells])
        return text.getvalue()


def overview_table(analysis: Analysis) -> Table:
    """One line a run: mean, difference, wins, ties and losses, wrong language."""
    names, found = [run.name for run in analysis.runs], analysis.off_target
    means = [cells[0] for _, cells in _figures(analysis, [analysis.directions])]
    columns = [("run", names), (analysis.label, means[: len(names)])]
    if len(names) > 1:
        columns.append((f"against {names[0]}", ["", *means[len(names) :]]))
    if analysis.comparisons:
        counts = [comparison.count(analysis.directions) for comparison in analysis.comparisons]
        columns.append(("wins / ties / losses", ["", *counts]))
    if found:
        shares = [percent(mean(own, analysis.directions), bool(found.bounds)) for own in found.shares]
        columns += [("wrong language", shares), ("no text", list(map(percent, found.silent)))]
    return _table(columns)


def group_table(analysis: Analysis, metric: str | None = None) -> Table:
    """From level to level: directions, each run's mean, each later run's difference."""
    groups = analysis.groups
    columns = [("group", list(groups)), ("directions", [str(len(members)) for members in groups.values()])]
    return _table([*columns, *_figures(analysis, groups.values(), metric)])


def language_table(analysis: Analysis, differences: bool = True) -> Table:
    """Each language's level, and the figures of the group table for the directions from it and into it."""
    languages = analysis.languages
    columns = [("language", languages), ("level", [analysis.levels.get(name, "—") for name in languages])]
    for side, word in enumerate(("from", "into")):
        members = _by_language(analysis, side).values()
        figures = _figures(analysis, members)[: None if differences else len(analysis.runs)]
        columns += [(f"{word}: {name}", cells) for name, cells in figures]
    return _table(columns)


def verdict_table(analysis: Analysis) -> Table:
    """Wins, ties and losses of each later run from level to level."""
    columns = [("group", list(analysis.groups))]
    for run, comparison in zip(analysis.runs[1:], analysis.comparisons, strict=False):
        counts = [comparison.count(members) for members in analysis.groups.values()]
        columns.append((f"{run.name}: wins / ties / losses", counts))
    return _table(columns)


def off_target_table(analysis: Analysis) -> Table:
    """Share of hypotheses in a wrong language, by target language and over all."""
    found = analysis.off_target
    if found is None:
        return Table([], [])
    into = _by_language(analysis, 1)
    targets = [language for language in into if language in found.judges]
    judges = [found.judges[target] for target in targets]
    columns = [
        ("into", [*targets, "all"]),
        ("told by", [*(judge.method for judge in judges), ""]),
        ("references", [*(percent(judge.error if judge.identified else None) for judge in judges), ""]),
    ]
    for run, shares in zip(analysis.runs, found.shares, strict=True):
        cells = [percent(mean(shares, into[target]), target in found.bounds) for target in targets]
        columns.append((run.name, [*cells, percent(mean(shares, analysis.directions), bool(found.bounds))]))
    return _table(columns)


def directions_table(analysis: Analysis, full: bool = False) -> Table:
    """Everything of every direction; in full, for other programs, with uncorrected p-values and two more digits."""
    directions, levels, digits = analysis.directions, analysis.levels, 4 if full else 2
    columns = [
        ("source", [direction.source for direction in directions]),
        ("target", [direction.target for direction in directions]),
        ("group", [group_of(direction, levels) if levels else "—" for direction in directions]),
        *_figures(analysis, [[direction] for direction in directions], digits=digits),
    ]
    for run, comparison in zip(analysis.runs[1:], analysis.comparisons, strict=False):
        for name, values in (("p", comparison.p_values), ("p (Holm)", comparison.corrected))[0 if full else 1 :]:
            cells = [f"{values[d]:.{digits + 2}f}" if d in values else "" for d in directions]
            columns.append((f"{run.name}: {name}", cells))
        columns.append((f"{run.name}: verdict", [comparison.verdicts.get(d, "") for d in directions]))
    if analysis.off_target:
        for run, shares in zip(analysis.runs, analysis.off_target.shares, strict=True):
            columns.append((f"{run.name}: wrong language", [percent(shares.get(d)) for d in directions]))
    return _table(columns)


def settings_table(runs: Sequence[Run]) -> Table:
    """The settings that differ between the runs that have their settings stored."""
    flat = [_flat({key: value for key, value in run.settings.items() if key not in _OF_THE_DATA}) for run in runs]
    cells = []
    for name in dict.fromkeys(name for settings in flat for name in settings):
        if len({str(settings[name]) for settings in flat if name in settings}) > 1:
            cells.append([name, *(str(settings.get(name, "not said")) for settings in flat)])
    return Table(["setting", *(run.name for run in runs)], cells)


_OF_THE_DATA = ("sources", "checkpoint", "dictionary_sha256")


def _flat(settings: Mapping[str, object]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in settings.items():
        found |= _flat(value) if isinstance(value, Mapping) else {name: value}
    return found


def percent(share: float | None, bound: bool = False) -> str:
    """A share in percent; ``—`` if it is not known, ``≥`` before a lower bound."""
    return "—" if share is None else f"{'≥ ' if bound else ''}{100 * share:.1f} %"


def _by_language(analysis: Analysis, side: int) -> dict[str, list[Direction]]:
    """The directions from each language (side 0), or into it (side 1)."""
    members: dict[str, list[Direction]] = {language: [] for language in analysis.languages}
    for direction in analysis.directions:
        members[direction[side]].append(direction)
    return members


def _figures(
    analysis: Analysis, groups: Iterable[Sequence[Direction]], metric: str | None = None, digits: int = 2
) -> list[tuple[str, list[str]]]:
    """A column of each run's means over the groups, one a line, then one of each later run's less the first run's."""
    names = [run.name for run in analysis.runs]
    rows = [[mean(run, members) for run in analysis.metrics[metric or analysis.metric]] for members in groups]

    def cell(value: float | None, base: float | None = None) -> str:
        if value is None:
            return "—"
        if base is None:
            return f"{value:.{digits}f}"
        text = f"{value - base:+.{digits}f}"
        return text if float(text) else text.replace("-", "+")  # what is rounded to zero is no loss

    columns = [(name, [cell(row[run]) for row in rows]) for run, name in enumerate(names)]
    for run, name in enumerate(names[1:], start=1):
        columns.append((f"{name} − {names[0]}", [cell(row[run], row[0]) for row in rows]))
    return columns


def _table(columns: Sequence[tuple[str, Sequence[str]]]) -> Table:
    """A table of columns, each a name and its cells."""
    return Table([name for name, _ in columns], list(map(list, zip(*(cells for _, cells in columns), strict=True))))


def significance_note(analysis: Analysis) -> str:
    """What a win is."""
    if not analysis.comparisons:
        return ""
    return (
        f"Wins, ties and losses against {analysis.runs[0].name}: a difference counts if sacrebleu's paired "
        f"bootstrap (--paired-bs, {analysis.samples:,} resamples, seed {SEED}) has p below {ALPHA} after Holm's "
        f"correction over the {len(analysis.comparisons[0].p_values)} directions."
    )


def difference_note(analysis: Analysis) -> str:
    """How the maps of differences are to be read."""
    bold = " Significant differences are bold." if analysis.comparisons else ""
    return f"Blue is higher than {analysis.runs[0].name}, orange lower; all maps have the same colours.{bold}"


def off_target_notes(analysis: Analysis) -> list[str]:
    """How wrong language was told, and what the figures do not tell."""
    found = analysis.off_target
    if found is None:
        return []
    notes = ["Share of hypotheses in another language than the target; means over directions."]
    if any(judge.identified for judge in found.judges.values()):
        notes.append(
            f"{IDENTIFIER} {identifier_version()} judges languages that it knows by code and whose own references it "
            "recognises; the column “references” says how many of those it takes for another language, which is the "
            "error to expect in the other columns too; broken text may be more often mistaken."
        )
    if not all(judge.identified for judge in found.judges.values()):
        notes.append(
            "Where the script judges, a hypothesis is wrong if most of its letters are in a script that the references "
            "do not use. It cannot tell languages of one script apart: “≥” marks a share that misses output in other "
            "languages of the target's script, and directions whose two languages share a script have none (“—”)."
        )
    told, all_directions = len(found.shares[0]), len(analysis.texts)
    if told < all_directions:
        notes.append(f"It could be told in {told} of {all_directions} directions.")
    notes.append("Hypotheses without any letter are counted apart, as “no text”.")
    return notes


def made_notes(analysis: Analysis) -> list[str]:
    """Where the other figures come from."""
    notes = [f"{METRICS[analysis.metric].explanation(analysis.label)}; means are plain means over directions."]
    if analysis.worst:
        notes.append("Sentences are ranked by sacrebleu's sentence-level chrF++ (--chrf-word-order 2).")
    return notes
