"""What resamples say of the means of a report, as tables and remarks, and each seed's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from langspec_lora.data.directions import Direction
from langspec_lora.naming import some_of
from langspec_lora.report.analysis import Analysis
from langspec_lora.report.groups import mean
from langspec_lora.report.means import FLOOR, LEVEL, Group, mean_groups, relative_mean
from langspec_lora.report.significance import ALPHA, SEED
from langspec_lora.report.table import Table, table_of
from langspec_lora.report.tables import COPY, figures, group_table, has_relative, seed_deviation, signed

LANGUAGES = "report.languages.csv"
"""The file with all figures of the means from each language, and into it."""


def difference_table(analysis: Analysis, short: bool = False) -> Table:
    """From level to level, each later run against the first: difference, p, relative mean.

    Args:
        analysis: of at least two runs.
        short: without the intervals of the relative means.
    """
    groups = analysis.groups
    keys: list[Group] = [("group", label) for label in groups]
    columns = [("group", list(groups))]
    differences = figures(analysis, groups.values(), keys=keys)[len(analysis.runs) :]
    for run, column in enumerate(differences, start=1):
        columns.append(column)
        if analysis.means:
            columns.append(("p", [_p_text(analysis, key, run) for key in keys]))
        if has_relative(analysis):
            cells = [relative_text(analysis, key, groups[key[1]], run, short) for key in keys]
            columns.append(("relative", cells))
    return table_of(columns)


def relative_text(analysis: Analysis, key: Group, members: Sequence[Direction], run: int, short: bool = False) -> str:
    """The relative mean of a run over a group as a change in per cent, with its interval."""
    found = analysis.means.of.get(key) if analysis.means else None
    change = 100 * relative_mean(analysis.scores[run], analysis.scores[0], members) - 100
    text = f"{signed(change, 1)} %"
    relative = found[run].relative if found else None
    if relative is None or short:
        return text
    low, high = (signed(100 * bound - 100, 1) for bound in relative)
    return f"{text} ({low}, {high})"


def _p_text(analysis: Analysis, key: Group, run: int) -> str:
    found = analysis.means.of.get(key) if analysis.means else None
    p = found[run].p if found else None
    digits = 3 if analysis.means and analysis.means.samples < 2000 else 4
    return "—" if p is None else f"{p:.{digits}f}"


def seed_table(analysis: Analysis) -> Table:
    """From level to level the mean of each seed of the runs that have several."""
    columns = [("group", list(analysis.groups))]
    for run in range(len(analysis.runs)):
        for seed in analysis.members(run) if len(analysis.members(run)) > 1 else ():
            scores = seed.metric(analysis.metric)
            columns.append((seed.name, [_number(mean(scores, members), 2) for members in analysis.groups.values()]))
    return table_of(columns)


def group_csv(analysis: Analysis) -> str:
    """The groups for other programs: the plain table, whose columns come first as ever, then all that is known."""
    plain = group_table(analysis, intervals=False)
    keys = {("group", label): members for label, members in analysis.groups.items()}
    columns = zip(plain.header, zip(*plain.cells, strict=True), strict=True)
    return table_of([*columns, *_further_columns(analysis, keys)]).csv()


def language_csv(analysis: Analysis) -> str:
    """Likewise one line for the directions from each language, and one for those into it."""
    keys = {
        key: members for key, members in mean_groups({}, analysis.languages, analysis.directions).items() if members
    }
    columns = [
        ("side", [side for side, _ in keys]),
        ("language", [name for _, name in keys]),
        ("directions", [str(len(members)) for members in keys.values()]),
        *figures(analysis, keys.values(), spread=False),
    ]
    return table_of([*columns, *_further_columns(analysis, keys)]).csv()


def _further_columns(
    analysis: Analysis, groups: Mapping[Group, Sequence[Direction]]
) -> list[tuple[str, Sequence[str]]]:
    """Columns of figures: each run's interval and seeds, then each later run's difference and relative mean."""
    base, known = analysis.runs[0].name, analysis.means.of if analysis.means else {}
    columns: list[tuple[str, Sequence[str]]] = []

    def bounds(name: str, run: int, which: str) -> None:
        if not analysis.means:
            return
        found = [getattr(known[key][run], which) if key in known else None for key in groups]
        for side, word in enumerate(("low", "high")):
            columns.append((f"{name}: {word}", [_number(None if pair is None else pair[side]) for pair in found]))

    if analysis.copies:
        columns.append((COPY, [_number(mean(analysis.copies, members)) for members in groups.values()]))
    for run, own in enumerate(analysis.runs):
        bounds(own.name, run, "interval")
        if len(analysis.members(run)) > 1:
            deviations = [seed_deviation(analysis, run, members) for members in groups.values()]
            columns.append((f"{own.name}: sd over seeds", list(map(_number, deviations))))
            for seed in analysis.members(run):
                scores = seed.metric(analysis.metric)
                columns.append((seed.name, [_number(mean(scores, members)) for members in groups.values()]))
    for run, own in list(enumerate(analysis.runs))[1:]:
        bounds(f"{own.name} − {base}", run, "difference")
        if analysis.means:
            ps = [known[key][run].p if key in known else None for key in groups]
            columns.append((f"{own.name} − {base}: p", [_number(p, 5) for p in ps]))
        if has_relative(analysis):
            ratios = [relative_mean(analysis.scores[run], analysis.scores[0], members) for members in groups.values()]
            columns.append((f"{own.name} / {base}", list(map(_number, ratios))))
            bounds(f"{own.name} / {base}", run, "relative")
    return columns


def _number(value: float | None, digits: int = 4) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def mean_notes(analysis: Analysis) -> list[str]:
    """What stands in parentheses, what p is, and what is drawn."""
    notes, found = [], analysis.means
    counts = {run.name: len(analysis.members(number)) for number, run in enumerate(analysis.runs)}
    several = {name: count for name, count in counts.items() if count > 1}
    if several:
        seeds = " or ".join(map(str, dict.fromkeys(several.values())))
        notes.append(f"The figures of {some_of(several)} are means over {seeds} seeds ± their standard deviation.")
    if found:
        drawn = "sentences and seeds" if several else "sentences"
        notes.append(
            f"In parentheses are {LEVEL} % intervals: percentiles of {found.samples:,} resamples of {drawn}, "
            f"seed {SEED}. {found.note}"
        )
        if len(analysis.runs) > 1:
            test = {
                "bootstrap": "sacrebleu's paired bootstrap (--paired-bs)",
                "randomization": "sacrebleu's paired approximate randomization (--paired-ar)",
            }[found.test]
            drawn = "swaps the same sentences" if found.test == "randomization" else "draws the same sentences"
            notes.append(
                f"p is that of {test}, taken to the mean of a group: each sample {drawn} in all directions that share "
                "them. It is not corrected for the number of groups."
                + (f" With so few, none can be below {ALPHA}." if 1 / (found.samples + 1) >= ALPHA else "")
            )
        missing = [label for label in analysis.groups if ("group", label) not in found.of]
        if missing:
            notes.append(f"No interval is known of {some_of(missing)}, as sentences of some directions are missing.")
    return [*notes, *relative_notes(analysis)]


def relative_notes(analysis: Analysis) -> list[str]:
    """What the relative mean is."""
    if not has_relative(analysis):
        return []
    low = sum(any(own[d] < FLOOR for own in analysis.scores) for d in analysis.directions)
    return [
        f"“Relative” to {analysis.runs[0].name} is the geometric mean of the directions' ratios of scores, less 1: an "
        "improvement by a tenth counts the same in every language."
        + (f" Scores below {FLOOR:g}, of {low} directions, count as {FLOOR:g}." if low else "")
    ]
