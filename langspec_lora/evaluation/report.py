"""The report on one or more results folders: a table by resource group and heat maps."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from langspec_lora.errors import UserError
from langspec_lora.evaluation.directions import Direction
from langspec_lora.evaluation.groups import GroupRow, group_rows
from langspec_lora.evaluation.results import Run, read_run, write_whole

_SPM_TOKENIZERS = ("spm", "flores101", "flores200", "spBLEU-1K")


@dataclass(frozen=True)
class Report:
    """What a report made.

    Attributes:
        table: the table as Markdown, to print.
        notes: remarks on what was left out, to print below it.
        files: every file written.
    """

    table: str
    notes: tuple[str, ...]
    files: tuple[Path, ...]


def run_names(folders: Sequence[Path], names: Sequence[str] | None) -> list[str]:
    """What each run is called: the names given, or else the folders' own.

    Raises:
        UserError: not as many names as folders, or a name twice.
    """
    if names is not None:
        if len(names) != len(folders) or len(set(names)) != len(names):
            raise UserError(
                f"--names gives {','.join(names)} for {len(folders)} folders; give a different name to each folder"
            )
        return list(names)
    own = [folder.resolve().name for folder in folders]
    if len(set(own)) == len(own):
        return own
    longer = ["/".join(folder.resolve().parts[-2:]) for folder in folders]
    if len(set(longer)) == len(longer):
        return longer
    raise UserError(f"the folders {', '.join(own)} are not told apart by name; give --names")


def metric_label(metric: str, signature: str) -> str:
    """How a metric is called in titles: BLEU by a SentencePiece tokenizer is spBLEU."""
    if metric == "chrf":
        return "chrF++"
    tokenizer = next((part[4:] for part in signature.split("|") if part.startswith("tok:")), "")
    return "spBLEU" if tokenizer in _SPM_TOKENIZERS else f"BLEU ({tokenizer})" if tokenizer else "BLEU"


def common_scores(runs: Sequence[Run], metric: str) -> tuple[list[dict[Direction, float]], int]:
    """Restricts the runs to the directions that all of them have.

    Returns:
        Each run's scores, and how many directions of the runs were left out.

    Raises:
        UserError: no direction is common to all, or a run lacks the metric.
    """
    scores = [run.metric(metric) for run in runs]
    common = [direction for direction in scores[0] if all(direction in other for other in scores)]
    if not common:
        raise UserError(f"{', '.join(str(run.folder) for run in runs)} have no direction in common; nothing to compare")
    left_out = len({direction for run in scores for direction in run} - set(common))
    return [{direction: run[direction] for direction in common} for run in scores], left_out


def table_columns(rows: Sequence[GroupRow], names: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """The table's header and cells as text: group, directions, each run's mean, each later run's difference."""
    header = ["group", "directions", *names, *(f"{name} − {names[0]}" for name in names[1:])]
    cells = [
        [
            row.label,
            str(row.directions),
            *(f"{mean:.2f}" for mean in row.means),
            *(f"{difference:+.2f}" for difference in row.differences[1:]),
        ]
        for row in rows
    ]
    return header, cells


def markdown_table(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns are aligned in plain text as well: the first left, the others right."""
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in [header, *cells]]
    widths = [max(3, *(len(line[i]) for line in escaped)) for i in range(len(header))]

    def line(texts: Sequence[str]) -> str:
        first, *others = texts
        padded = [first.ljust(widths[0]), *(t.rjust(w) for t, w in zip(others, widths[1:], strict=True))]
        return f"| {' | '.join(padded)} |"

    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(escaped[0]), line(rule), *map(line, escaped[1:])])


def write_report(
    folders: Sequence[Path],
    levels: Mapping[str, str],
    out: Path,
    names: Sequence[str] | None = None,
    metric: str = "bleu",
) -> Report:
    """Reads results folders and writes ``report.md``, ``report.csv`` and the heat maps.

    Args:
        folders: results folders; the first is what the others are compared with.
        levels: resource level of each language.
        out: the folder to write into.
        names: what each run is called; the folders' names where None.
        metric: ``bleu`` or ``chrf``.

    Raises:
        UserError: a folder is no results folder, a language has no level, or the runs share no direction.
    """
    from langspec_lora.evaluation.heatmap import draw_heatmap

    runs = [read_run(folder, name) for folder, name in zip(folders, run_names(folders, names), strict=True)]
    scores, left_out = common_scores(runs, metric)
    signatures = [run.signatures.get(metric, "") for run in runs]
    rows = group_rows(scores, levels)
    labels = {metric_label(metric, signature) for signature in signatures}
    label = labels.pop() if len(labels) == 1 else "BLEU"
    header, cells = table_columns(rows, [run.name for run in runs])
    table = markdown_table(header, cells)

    notes = [f"{label}, mean over directions"]
    if left_out:
        notes.append(f"directions left out because not every run has them: {left_out}")
    if len({_comparable(signature) for signature in signatures}) > 1:
        notes.append("the runs were scored with different signatures, so their scores do not compare")

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: {error.strerror}; give a folder that can be written as --out") from error
    pictures = []
    top = max(max(run.values()) for run in scores)
    for run, values in zip(runs, scores, strict=True):
        path = out / f"heatmap.{_file_name(run.name)}.png"
        subtitle = f"mean {rows[-1].means[runs.index(run)]:.2f} over {len(values)} directions, source × target"
        draw_heatmap(values, levels, path, f"{label}: {run.name}", subtitle, limits=(0.0, top))
        pictures.append((run.name, path))
    for number, run in enumerate(runs[1:], start=1):
        path = out / f"heatmap.{_file_name(run.name)}-minus-{_file_name(runs[0].name)}.png"
        differences = {direction: scores[number][direction] - scores[0][direction] for direction in scores[0]}
        better = sum(value > 0 for value in differences.values())
        subtitle = f"mean {rows[-1].differences[number]:+.2f}; higher in {better} of {len(differences)} directions"
        title = f"{label}: {run.name} − {runs[0].name}"
        draw_heatmap(differences, levels, path, title, subtitle, differences=True)
        pictures.append((f"{run.name} − {runs[0].name}", path))

    write_whole(out / "report.csv", _csv(header, cells))
    write_whole(out / "report.md", _markdown(label, table, notes, runs, signatures, pictures))
    return Report(table, tuple(notes), (out / "report.md", out / "report.csv", *(path for _, path in pictures)))


def _comparable(signature: str) -> str:
    """A signature without the version, which does not change scores between sacrebleu's releases of today."""
    return "|".join(part for part in signature.split("|") if not part.startswith("version:"))


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in name)


def _csv(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([header, *cells])
    return text.getvalue()


def _markdown(
    label: str,
    table: str,
    notes: Sequence[str],
    runs: Sequence[Run],
    signatures: Sequence[str],
    pictures: Sequence[tuple[str, Path]],
) -> str:
    lines = [f"# {label} by resource group", "", table, "", *(f"- {note}" for note in notes), ""]
    for run, signature in zip(runs, signatures, strict=True):
        checkpoint = f", {run.checkpoint}" if run.checkpoint else ""
        lines.append(f"- **{run.name}**: `{signature}`{checkpoint}")
    lines += ["", *(f"![{name}]({path.name})\n" for name, path in pictures)]
    return "\n".join(lines).rstrip() + "\n"
