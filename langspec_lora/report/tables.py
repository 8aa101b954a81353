"""The tables of a report, as Markdown and as CSV, and its remarks on how the figures were made."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from langspec_lora.data.directions import Direction
from langspec_lora.evaluation.metrics import METRICS
from langspec_lora.evaluation.results import Run
from langspec_lora.report.analysis import Analysis, Comparison
from langspec_lora.report.groups import GroupRow
from langspec_lora.report.off_target import IDENTIFIER, identifier_version
from langspec_lora.report.significance import ALPHA, SEED


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        header: the columns' names.
        cells: the lines.
    """

    header: Sequence[str]
    cells: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """As Markdown whose columns are aligned in plain text as well: the first left, the others right."""
        escaped = [[cell.replace("|", "\\|") for cell in line] for line in [self.header, *self.cells]]
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
    runs, found = analysis.runs, analysis.off_target
    total = analysis.groups[analysis.metric][-1]
    header = ["run", analysis.label]
    columns = [[run.name for run in runs], [f"{mean:.2f}" for mean in total.means]]
    if len(runs) > 1:
        header.append(f"against {runs[0].name}")
        columns.append(["", *(f"{value:+.2f}" for value in total.differences[1:])])
    if analysis.comparisons:
        header.append("wins / ties / losses")
        columns.append(["", *(_counts(comparison, analysis.directions) for comparison in analysis.comparisons)])
    if found:
        header += ["wrong language", "no text"]
        columns.append([percent(found.mean(run), bool(found.bounds)) for run in range(len(runs))])
        columns.append([percent(silent / found.sentences) for silent in found.silent])
    return Table(header, list(zip(*columns, strict=True)))


def group_table(analysis: Analysis, metric: str | None = None) -> Table:
    """From level to level: directions, each run's mean, each later run's difference."""
    rows = analysis.groups[metric or analysis.metric]
    columns = _run_columns(analysis)
    cells = [[row.label, str(row.directions), *_figures(row, len(columns))] for row in rows]
    return Table(["group", "directions", *columns], cells)


def language_table(analysis: Analysis, differences: bool = True) -> Table:
    """Each language's level, and the figures of the group table for the directions from it and into it.

    Args:
        analysis: what there is to say.
        differences: False leaves the differences out.
    """
    columns = _run_columns(analysis)[: None if differences else len(analysis.runs)]
    header = ["language", "level", *(f"from: {column}" for column in columns), *(f"into: {name}" for name in columns)]
    cells = [
        [
            row.language,
            row.level or "—",
            *_figures(row.source, len(columns)),
            *_figures(row.target, len(columns)),
        ]
        for row in analysis.languages
    ]
    return Table(header, cells)


def verdict_table(analysis: Analysis) -> Table:
    """Wins, ties and losses of each later run from level to level."""
    header = ["group", *(f"{run.name}: wins / ties / losses" for run in analysis.runs[1:])]
    cells = [
        [label, *(_counts(comparison, members) for comparison in analysis.comparisons)]
        for label, members in analysis.members.items()
    ]
    return Table(header, cells)


def off_target_table(analysis: Analysis) -> Table:
    """Share of hypotheses in a wrong language, by target language and over all."""
    found = analysis.off_target
    if found is None:
        return Table([], [])
    header = ["into", "told by", "references", *(run.name for run in analysis.runs)]
    runs = range(len(analysis.runs))
    cells = [
        [
            language,
            judge.method,
            percent(judge.error) if judge.identified else "—",
            *(percent(found.mean(run, language), language in found.bounds) for run in runs),
        ]
        for language, judge in ((row.language, found.judges.get(row.language)) for row in analysis.languages)
        if judge
    ]
    cells.append(["all", "", "", *(percent(found.mean(run), bool(found.bounds)) for run in runs)])
    return Table(header, cells)


def directions_table(analysis: Analysis, full: bool = False) -> Table:
    """Everything of every direction.

    Args:
        analysis: what there is to say.
        full: with uncorrected p-values as well, and two more digits; for other programs.
    """
    digits = 4 if full else 2
    later, levels, found = analysis.runs[1:], analysis.levels, analysis.off_target
    header = ["source", "target", "group", *_run_columns(analysis)]
    for run, _ in zip(later, analysis.comparisons, strict=False):
        header += [f"{run.name}: p"] if full else []
        header += [f"{run.name}: p (Holm)", f"{run.name}: verdict"]
    header += [f"{run.name}: wrong language" for run in analysis.runs] if found else []
    cells = []
    for direction in analysis.directions:
        scores = [run[direction] for run in analysis.scores]
        group = f"{levels[direction.source]}→{levels[direction.target]}" if levels else "—"
        line = [direction.source, direction.target, group]
        line += [f"{score:.{digits}f}" for score in scores]
        line += [f"{score - scores[0]:+.{digits}f}" for score in scores[1:]]
        for comparison in analysis.comparisons:
            tested = direction in comparison.p_values
            for p_values in (comparison.p_values, comparison.corrected) if full else (comparison.corrected,):
                line.append(f"{p_values[direction]:.{digits + 2}f}" if tested else "")
            line.append(comparison.verdicts.get(direction, ""))
        line += [percent(shares.get(direction)) for shares in found.shares] if found else []
        cells.append(line)
    return Table(header, cells)


def settings_table(runs: Sequence[Run]) -> Table:
    """The settings in which runs differ, of those that say how they were made."""
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
    """A share in percent; ``—`` where it is not known, ``≥`` before a lower bound."""
    return "—" if share is None else f"{'≥ ' if bound else ''}{100 * share:.1f} %"


def _run_columns(analysis: Analysis) -> list[str]:
    """Each run's name, then each later run's difference."""
    first, *later = [run.name for run in analysis.runs]
    return [first, *later, *(f"{name} − {first}" for name in later)]


def _counts(comparison: Comparison, members: Collection[Direction]) -> str:
    return " / ".join(map(str, comparison.count(members)))


def _figures(row: GroupRow | None, columns: int) -> list[str]:
    """As many of a row's means and differences as there are columns."""
    if row is None:
        return ["—"] * columns
    return [*(f"{mean:.2f}" for mean in row.means), *(f"{value:+.2f}" for value in row.differences[1:])][:columns]


def significance_note(analysis: Analysis) -> str:
    """What a win is."""
    if not analysis.comparisons:
        return ""
    return (
        f"Wins, ties and losses against {analysis.runs[0].name}: a difference counts where sacrebleu's paired "
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
