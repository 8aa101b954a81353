"""The tables of a report, and its remarks on how the figures were made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import stdev

from langspec_lora.data.directions import Direction
from langspec_lora.evaluation.metrics import METRICS
from langspec_lora.evaluation.results import Run
from langspec_lora.report.analysis import Analysis
from langspec_lora.report.degeneration import Degeneration, mean_shares
from langspec_lora.report.groups import group_of, mean
from langspec_lora.report.means import Group, Interval, relative_mean
from langspec_lora.report.off_target import IDENTIFIER, identifier_version
from langspec_lora.report.significance import ALPHA, SEED
from langspec_lora.report.table import Table, table_of

DIRECTIONS = "report.directions.csv"
"""The file with the table of all directions."""

COPY = "copy of the source"
"""The name of the source texts, scored as if they were translations."""

DEGENERATION = ("empty", "copied", "repeated", "length")
"""Columns of output that has come apart."""


def overview_table(analysis: Analysis) -> Table:
    """One line a run: mean, difference, wins, ties and losses, wrong language."""
    names, found = [run.name for run in analysis.runs], analysis.off_target
    means = [cells[0] for _, cells in figures(analysis, [analysis.directions], keys=[("group", "all")])]
    columns = [("run", names), (analysis.label, means[: len(names)])]
    if len(names) > 1:
        columns.append((f"against {names[0]}", ["", *means[len(names) :]]))
        if has_relative(analysis):
            relative = [relative_mean(run, analysis.scores[0], analysis.directions) for run in analysis.scores[1:]]
            columns.append(("relative", ["", *(f"{signed(100 * value - 100, 1)} %" for value in relative)]))
    if analysis.comparisons:
        counts = [comparison.count(analysis.directions) for comparison in analysis.comparisons]
        columns.append(("wins / ties / losses", ["", *counts]))
    if found:
        shares = [percent(mean(own, analysis.directions), bool(found.bounds)) for own in found.shares]
        columns += [("wrong language", shares), ("no text", list(map(percent, found.silent)))]
    table = table_of(columns)
    copied = mean(analysis.copies, analysis.directions)
    if copied is None or len(analysis.copies) < len(analysis.directions):
        return table
    against = (
        [signed(copied - base)] if len(names) > 1 and (base := mean(analysis.scores[0], analysis.directions)) else []
    )
    line = [COPY, f"{copied:.2f}", *against]
    return Table(table.header, [*table.cells, [*line, *[""] * (len(table.header) - len(line))]])


def degeneration_table(analysis: Analysis) -> Table:
    """One line a run: output that has come apart, as means over the directions."""
    found = [mean_shares(own, analysis.directions) for own in analysis.degeneration]
    lines = [
        [run.name, *degeneration_cells(own)] for run, own in zip(analysis.runs, found, strict=False) if own is not None
    ]
    return Table(["run", *DEGENERATION], lines)


def degeneration_cells(found: Degeneration) -> list[str]:
    """The figures of :data:`DEGENERATION`."""
    length = "—" if found.length is None else f"{found.length:.2f}"
    return [percent(found.empty), percent(found.copied), percent(found.repeated), length]


def group_table(
    analysis: Analysis, metric: str | None = None, differences: bool = True, intervals: bool = True
) -> Table:
    """From level to level: directions, each run's mean, each later run's difference."""
    groups = analysis.groups
    columns = [("group", list(groups)), ("directions", [str(len(members)) for members in groups.values()])]
    keys = [("group", label) for label in groups] if intervals else None
    found = figures(analysis, groups.values(), metric, keys=keys, spread=intervals)
    return table_of([*columns, *found[: None if differences else len(analysis.runs)]])


def language_table(analysis: Analysis, differences: bool = True) -> Table:
    """Each language's level, and the figures of the group table for the directions from it and into it."""
    languages = analysis.languages
    columns = [("language", languages), ("level", [analysis.levels.get(name, "—") for name in languages])]
    for side, word in enumerate(("from", "into")):
        members = _by_language(analysis, side).values()
        keys = [(word, name) for name in languages] if differences else None
        found = figures(analysis, members, keys=keys)[: None if differences else len(analysis.runs)]
        columns += [(f"{word}: {name}", cells) for name, cells in found]
    return table_of(columns)


def verdict_table(analysis: Analysis) -> Table:
    """Wins, ties and losses of each later run from level to level."""
    columns = [("group", list(analysis.groups))]
    for run, comparison in zip(analysis.runs[1:], analysis.comparisons, strict=False):
        counts = [comparison.count(members) for members in analysis.groups.values()]
        columns.append((f"{run.name}: wins / ties / losses", counts))
    return table_of(columns)


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
    return table_of(columns)


def directions_table(analysis: Analysis, full: bool = False) -> Table:
    """Everything of every direction; in full, for other programs, with uncorrected p-values and two more digits."""
    directions, levels, digits = analysis.directions, analysis.levels, 4 if full else 2
    columns = [
        ("source", [direction.source for direction in directions]),
        ("target", [direction.target for direction in directions]),
        ("group", [group_of(direction, levels) if levels else "—" for direction in directions]),
        *figures(analysis, [[direction] for direction in directions], digits=digits, spread=not full),
    ]
    for run, comparison in zip(analysis.runs[1:], analysis.comparisons, strict=False):
        for name, values in (("p", comparison.p_values), ("p (Holm)", comparison.corrected))[0 if full else 1 :]:
            cells = [f"{values[d]:.{digits + 2}f}" if d in values else "" for d in directions]
            columns.append((f"{run.name}: {name}", cells))
        columns.append((f"{run.name}: verdict", [comparison.verdicts.get(d, "") for d in directions]))
    if analysis.off_target:
        for run, shares in zip(analysis.runs, analysis.off_target.shares, strict=True):
            columns.append((f"{run.name}: wrong language", [percent(shares.get(d)) for d in directions]))
    for run, own in zip(analysis.runs, analysis.degeneration, strict=False) if full else ():
        for place, name in enumerate(DEGENERATION):
            cells = [degeneration_cells(own[d])[place] if d in own else "" for d in directions]
            columns.append((f"{run.name}: {name}", cells))
    if full and analysis.copies:
        cells = [f"{analysis.copies[d]:.{digits}f}" if d in analysis.copies else "" for d in directions]
        columns.append((COPY, cells))
    for label in analysis.untrained:
        members = set(analysis.groups[label])
        columns.append((label, ["yes" if direction in members else "" for direction in directions]))
    for seed in [seed for run in range(len(analysis.runs)) for seed in analysis.members(run)] if full else ():
        if analysis.seeds and seed not in analysis.runs:
            scores = seed.metric(analysis.metric)
            columns.append((seed.name, [f"{scores[direction]:.{digits}f}" for direction in directions]))
    return table_of(columns)


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


def figures(
    analysis: Analysis,
    groups: Iterable[Sequence[Direction]],
    metric: str | None = None,
    digits: int = 2,
    keys: Sequence[Group] | None = None,
    spread: bool = True,
) -> list[tuple[str, list[str]]]:
    """A column of each run's means over the groups, one a line, then one of each later run's less the first run's.

    Args:
        analysis: the analysis.
        groups: directions.
        metric: the metric; None for the reported one.
        digits: after the point.
        keys: the names of the groups, whose intervals are shown after the means; None for none.
        spread: whether the standard deviation over the seeds is shown after the means.
    """
    names, groups, metric = [run.name for run in analysis.runs], list(groups), metric or analysis.metric
    rows = [[mean(run, members) for run in analysis.metrics[metric]] for members in groups]
    known = analysis.means.of if analysis.means and metric == analysis.metric and keys else {}
    found = [known.get(key) for key in keys] if keys else [None] * len(rows)

    def cell(row: int, run: int) -> str:
        value, own = rows[row][run], found[row]
        if value is None:
            return "—"
        deviation = seed_deviation(analysis, run, groups[row], metric) if spread else None
        text = f"{value:.{digits}f}" + ("" if deviation is None else f" ± {deviation:.{digits}f}")
        return text + interval_text(own[run].interval if own else None, digits)

    def difference(row: int, run: int) -> str:
        value, base, own = rows[row][run], rows[row][0], found[row]
        if value is None or base is None:
            return "—"
        return signed(value - base, digits) + interval_text(own[run].difference if own else None, digits, sign=True)

    columns = [(name, [cell(row, run) for row in range(len(rows))]) for run, name in enumerate(names)]
    for run, name in enumerate(names[1:], start=1):
        columns.append((f"{name} − {names[0]}", [difference(row, run) for row in range(len(rows))]))
    return columns


def has_relative(analysis: Analysis) -> bool:
    """Whether ratios of the reported metric's scores mean something: it has no negative ones, and more is better."""
    metric = METRICS[analysis.metric]
    return len(analysis.runs) > 1 and metric.bounds[0] >= 0 and metric.higher_is_better


def signed(value: float, digits: int = 2) -> str:
    """A difference with its sign; what is rounded to zero is no loss."""
    text = f"{value:+.{digits}f}"
    return text if float(text) else text.replace("-", "+")


def interval_text(interval: Interval | None, digits: int = 2, sign: bool = False) -> str:
    """`` (12.30, 14.56)``, to be put after a mean; nothing if it is not known."""
    if interval is None:
        return ""
    low, high = (signed(bound, digits) if sign else f"{bound:.{digits}f}" for bound in interval)
    return f" ({low}, {high})"


def seed_deviation(
    analysis: Analysis, run: int, members: Sequence[Direction], metric: str | None = None
) -> float | None:
    """The standard deviation over the seeds of a run of their means over some directions; None if it has one seed."""
    seeds = analysis.members(run)
    if len(seeds) == 1:
        return None
    values = [mean(seed.metric(metric or analysis.metric), members) for seed in seeds]
    found = [value for value in values if value is not None]
    return stdev(found) if len(found) == len(seeds) else None


def significance_note(analysis: Analysis) -> str:
    """What a win is."""
    if not analysis.comparisons:
        return ""
    test = {
        "bootstrap": f"bootstrap (--paired-bs, {analysis.samples:,} resamples, seed {SEED})",
        "randomization": f"approximate randomization (--paired-ar, {analysis.samples:,} trials, seed {SEED})",
    }[analysis.test]
    seeds = " Seeds are drawn together with the sentences." if analysis.seeds else ""
    return (
        f"Wins, ties and losses against {analysis.runs[0].name}: a difference counts if sacrebleu's paired "
        f"{test} has p below {ALPHA} after Holm's "
        f"correction over the {len(analysis.comparisons[0].p_values)} directions.{seeds}"
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


def degeneration_notes(analysis: Analysis) -> list[str]:
    """What the columns of degeneration count."""
    if not analysis.degeneration:
        return []
    notes = [
        "Shares of hypotheses, as means over directions. Copied: at least half of the words are in the source too, and "
        "not so in the reference. Repeated: the most frequent 4-gram occurs at least two times more than in the "
        "reference. Length: characters of the hypotheses divided by those of the references."
    ]
    if any(found.copied is None for own in analysis.degeneration for found in own.values()):
        notes.append("Copies are not known of directions whose source texts are missing.")
    if analysis.copies:
        notes.append(f"“{COPY}” is the score of the source texts as if they were translations.")
    return notes


def made_notes(analysis: Analysis) -> list[str]:
    """Where the other figures come from."""
    notes = [f"{METRICS[analysis.metric].explanation(analysis.label)}; means are plain means over directions."]
    if analysis.worst:
        notes.append("Sentences are ranked by sacrebleu's sentence-level chrF++ (--chrf-word-order 2).")
    return notes
