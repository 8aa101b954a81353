"""What an estimate of subspaces says, as text for a terminal, as JSON, as CSV, and as flags and YAML files."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from langspec_lora.adapters.counts import Cell
from langspec_lora.adapters.subspaces import Values
from langspec_lora.adapters.suggestions import RANKS, SURVIVAL, Owner, Suggestion, owners
from langspec_lora.errors import printable
from langspec_lora.keys import GROUP, KEY_LEVELS, LANGUAGE
from langspec_lora.languages import LEVELS
from langspec_lora.naming import some_of
from langspec_lora.report.inspection import TITLES
from langspec_lora.report.rank_correlation import NOT_DEFINED
from langspec_lora.report.subspaces import KEYS, Agreement, Estimate
from langspec_lora.report.table import Table, markdown_text
from langspec_lora.sites import DIRECTION, SHARED, STACKS

_ROWS_ON_A_TERMINAL = 40
_ENDS = 12  # rows of the most and of the least, where there are more

_PLURAL = {LANGUAGE: "languages", GROUP: "groups", DIRECTION: "directions", SHARED: "shared adapter"}


def as_text(found: Estimate, out: Path | None) -> str:
    """The estimate as Markdown for a terminal.

    Args:
        found: the estimate.
        out: the folder of its files; None if none are written.
    """
    subspaces, adapters = found.subspaces, found.adapters
    surviving = _figure(100 * subspaces.surviving(), " %")
    sites = len(adapters.packed)
    lines = [
        f"# Subspaces: {markdown_text(some_of(found.paths))}",
        "",
        f"- {len(adapters.languages)} languages, {sites} sites; {surviving} of B survives"
        + (f"; means of {len(subspaces)} checkpoints ± standard deviation" if len(subspaces) > 1 else ""),
        *(f"- {markdown_text(remark)}" for remark in found.remarks),
    ]
    for title, table in _tables(found).items():
        lines += ["", f"## {title}", "", table.markdown()]
        if "demand" in table.header:
            lines += ["", "Demand: how much more survives of it than of the layers it is in, in points of percent."]
    if found.agreements:
        lines += ["", "## Do the checkpoints agree?", "", _agreement_table(found).markdown()]
    return "\n".join([*lines, "", *_suggestion_lines(found, out)])


def _figure(values: Values, unit: str = "", digits: int = 1) -> str:
    """A figure of several checkpoints: their mean and standard deviation."""
    spread = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}{unit}"


def _tables(found: Estimate) -> dict[str, Table]:
    subspaces, adapters = found.subspaces, found.adapters
    keys = subspaces.groups(lambda cell: cell.key)
    columns = ["of B survives", "living rows", "effective rank"] if found.is_pruned else ["effective rank"]
    demands = found.survival_tells(KEYS)

    def figures(cells: Sequence[int]) -> list[str]:
        effective = _figure(subspaces.effective[:, cells].mean(1), digits=2)
        if not found.is_pruned:
            return [effective]
        living = [_figure(100 * subspaces.surviving(cells), " %"), _figure(subspaces.rows[:, cells].mean(1))]
        return [*living, effective]

    def row(key: str, cells: Sequence[int]) -> list[str]:
        first = subspaces.cells[cells[0]]
        own = owners(adapters.languages, adapters.side(first.site), key)
        ranks = found.suggestions[0].ranks
        suggested = max(ranks[owner] for owner in own)
        demand = [_signed(100 * subspaces.demand(cells))] if demands else []
        share, *others = figures(cells)
        rank = f"{subspaces.ranks[cells[0]]:.0f}"
        return [key, first.level, rank, share, *demand, *others, str(suggested)]

    shown = [row(key, keys[key]) for key in _shown_keys(found, keys)]
    if len(shown) < len(keys):
        shown.insert(_ENDS, ["…", *[""] * (len(shown[0]) - 1)])
    header = [
        adapters.key,
        "level",
        "rank",
        columns[0],
        *(["demand"] if demands else []),
        *columns[1:],
        "suggested rank",
    ]
    levels = subspaces.groups(lambda cell: cell.level)
    layers = _in_order(subspaces.groups(lambda cell: (cell.site.stack, cell.site.layer)))
    positions = subspaces.groups(lambda cell: (cell.site.stack, cell.site.position))
    by_level = sorted(levels.items(), key=lambda entry: KEY_LEVELS.index(entry[0]))
    title = TITLES.get(adapters.key, "Adapters")
    if len(shown) <= len(keys) and any(line[0] == "…" for line in shown):
        title += f": {_ENDS} that use most, {_ENDS} that use least, of {len(keys):,}"
    return {
        title: Table(header, shown),
        "Levels": Table(["level", *columns], [[level, *figures(cells)] for level, cells in by_level]),
        "Layers": Table(["layer", *columns], [[" ".join(map(str, of)), *figures(cells)] for of, cells in layers]),
        "Positions": Table(
            ["position", *columns], [[" ".join(of), *figures(cells)] for of, cells in positions.items()]
        ),
    }


def _in_order(groups: Mapping[tuple[str, int], list[int]]) -> list[tuple[tuple[str, int], list[int]]]:
    return sorted(groups.items(), key=lambda entry: (STACKS.index(entry[0][0]), entry[0][1]))


def _shown_keys(found: Estimate, keys: Mapping[str, Sequence[int]]) -> list[str]:
    """All keys in their order; of many, those that use most of their room and those that use least."""
    if len(keys) <= _ROWS_ON_A_TERMINAL:
        return list(keys)
    by = found.measures[KEYS]
    used = {key: by.used[cells].sum() / by.room[cells].sum() for key, cells in keys.items()}
    order = sorted(keys, key=used.__getitem__, reverse=True)
    return [*order[:_ENDS], *order[-_ENDS:]]


def _signed(values: Values) -> str:
    text = _figure(values)
    return text if text.startswith("-") else f"+{text}"


def _agreement_table(found: Estimate) -> Table:
    header = ["over", "number", "by", "Spearman: mean", "least", "Kendall: mean", "least"]
    lines = []
    for own in found.agreements:
        figures = [cell for values in (own.spearman, own.kendall) for cell in _mean_and_least(values)]
        lines.append([_over(found, own), str(own.count), own.by, *figures])
    return Table(header, lines)


def _over(found: Estimate, agreement: Agreement) -> str:
    return agreement.over.replace(KEYS, _PLURAL.get(found.adapters.key, "adapters"))


def _mean_and_least(values: Sequence[float | None]) -> list[str]:
    known = [value for value in values if value is not None]
    return [f"{np.mean(known):.2f}", f"{min(known):.2f}"] if len(known) == len(values) else [NOT_DEFINED, NOT_DEFINED]


def _suggestion_lines(found: Estimate, out: Path | None) -> list[str]:
    own = sum(a.numel() + b.numel() for a, b, _ in found.adapters.packed.values())
    whose = ", as many as these adapters have" if found.budget == own else ""
    what = _PLURAL.get(found.adapters.key, "adapters")
    first = found.suggestions[0]
    by = "what survives" if first.by == SURVIVAL else "the effective ranks"
    how = f"Ranks are in proportion to {by} of the {what}, and at least 1"
    if len(found.suggestions[0].ranks) == 1:
        how = "The one adapter gets as large a rank as fits"
    lines = [
        f"## Suggestions for at most {found.budget:,} parameters{whose}",
        "",
        f"{how}. Add a line to the command of the training; it takes the place of the same flags there.",
    ]
    for suggestion in found.suggestions:
        lines += ["", f"{_sentence(suggestion)}:", "", f"    {flag_line(found, suggestion, out)}"]
        if out is None and len(found.adapters.languages) <= _ROWS_ON_A_TERMINAL:
            for name, text in suggestion_files(found, [suggestion]).items():
                lines += ["", f"with {name}:", "", *(f"    {line}" for line in text.splitlines() if line[0] != "#")]
    if out is None and suggestion_files(found):
        lines += ["", "--out DIR writes these files, and maps."]
    return lines


def _sentence(suggestion: Suggestion) -> str:
    size = f"{suggestion.parameters:,} parameters"
    if suggestion.name == RANKS:
        return f"The same layers and positions, {size}"
    survival = suggestion.sites_by == SURVIVAL
    room, used = ("the entries of B", "what survives") if survival else ("the ranks", "the effective ranks")
    return (
        f"Without {some_of(suggestion.left_out)}, {size}; the other {suggestion.name} hold "
        f"{100 * suggestion.held:.1f} % of {used}, with {100 * suggestion.room:.1f} % of {room}"
    )


def flag_line(found: Estimate, suggestion: Suggestion, out: Path | None) -> str:
    """The flags of a suggestion, as a shell takes them.

    Args:
        found: the estimate.
        suggestion: one of its suggestions.
        out: the folder of its files; None for names without a folder.
    """
    flags: dict[str, str] = {}
    for kind, name in _file_names(suggestion).items():
        flags["--lang-groups" if kind == GROUP else "--lang-resources"] = str(name if out is None else out / name)
    for owner, rank in suggestion.ranks.items():
        if owner.kind == SHARED:
            flags["--shared-rank"] = str(rank)
    flags |= {f"--{name.replace('_', '-')}": value for name, value in suggestion.flags.items()}
    return shlex.join(word for flag in flags.items() for word in flag)


def _file_names(suggestion: Suggestion) -> dict[str, str]:
    """The names of the files that a suggestion needs, by what they give ranks to."""
    end = "yaml" if suggestion.name == RANKS else f"{suggestion.name}.yaml"
    kinds = {owner.kind for owner in suggestion.ranks}
    return {kind: f"{word}.{end}" for kind, word in ((LANGUAGE, "ranks"), (GROUP, "groups")) if kind in kinds}


def suggestion_files(found: Estimate, suggestions: Sequence[Suggestion] | None = None) -> dict[str, str]:
    """The YAML files of suggestions, ``--lang-resources`` or ``--lang-groups``, by their names.

    Args:
        found: the estimate.
        suggestions: some of its suggestions; None for all.
    """
    files = {}
    languages = found.adapters.languages
    for suggestion in found.suggestions if suggestions is None else suggestions:
        for kind, name in _file_names(suggestion).items():
            heads = (LEVELS, languages.levels) if kind == LANGUAGE else (tuple(languages.group_ranks), languages.groups)
            lists = {
                head: [n for n, of in zip(languages.names, heads[1], strict=True) if of == head] for head in heads[0]
            }
            ranks = {owner.name: rank for owner, rank in suggestion.ranks.items() if owner.kind == kind}
            content = {**{head: names for head, names in lists.items() if names}, "ranks": ranks}
            text = yaml.safe_dump(content, default_flow_style=None, allow_unicode=True, sort_keys=False, width=120)
            note = f"# Suggested by langspec-lora subspaces from {some_of(map(str, found.paths))}:"
            files[name] = f"{printable(note)}\n# {suggestion.parameters:,} parameters\n{text}"
    return files


def as_json(found: Estimate) -> dict[str, Any]:
    """All of the estimate, as ``--json`` prints it."""
    subspaces, adapters = found.subspaces, found.adapters

    def figures(cells: Sequence[int] | slice) -> dict[str, Any]:
        return {
            "surviving": _values(subspaces.surviving(cells)),
            "living_rows": _values(subspaces.rows[:, cells].mean(1)),
            "effective_rank": _values(subspaces.effective[:, cells].mean(1)),
        }

    def entries(key: Callable[[Cell], tuple], *names: str, demand: bool = False) -> list[dict[str, Any]]:
        found_entries = []
        for of, cells in subspaces.groups(key).items():
            entry = {**dict(zip(names, of, strict=True)), **figures(cells)}
            found_entries.append({**entry, "demand": _values(subspaces.demand(cells))} if demand else entry)
        return found_entries

    rank_of = {cell.key: int(rank) for cell, rank in zip(subspaces.cells, subspaces.ranks, strict=True)}
    return {
        "checkpoints": list(map(str, found.paths)),
        "pruning_scope": found.scope,
        "pruned": found.is_pruned,
        "compared_by": {what: by.name for what, by in found.measures.items()},
        "remarks": list(found.remarks),
        "total": figures(slice(None)),
        "keys": entries(lambda cell: (cell.key, cell.level, rank_of[cell.key]), "name", "level", "rank", demand=True),
        "levels": entries(lambda cell: (cell.level,), "level"),
        "layers": entries(lambda cell: cell.site[:2], "stack", "layer"),
        "positions": entries(lambda cell: (cell.site.stack, cell.site.position), "stack", "position"),
        "keys_by_layer": entries(lambda cell: (cell.key, *cell.site[:2]), "name", "stack", "layer"),
        "agreement": [vars(own) for own in found.agreements],
        "budget": found.budget,
        "suggestions": [
            {
                "name": own.name,
                "parameters": own.parameters,
                "ranks": _ranks_by_kind(own.ranks),
                "flags": dict(own.flags),
                "left_out": list(own.left_out),
                "held": own.held,
                "room": own.room,
                "ranks_by": own.by,
                "sites_by": own.sites_by,
            }
            for own in found.suggestions
        ],
        "adapter_key": adapters.key,
    }


def _ranks_by_kind(ranks: Mapping[Owner, int]) -> dict[str, dict[str, int]]:
    kinds: dict[str, dict[str, int]] = {}
    for owner, rank in ranks.items():
        kinds.setdefault(owner.kind, {})[owner.name] = rank
    return kinds


def _values(values: Values) -> dict[str, Any]:
    spread = float(values.std(ddof=1)) if len(values) > 1 else None
    return {"mean": float(values.mean()), "sd": spread, "each": values.tolist()}


def csv_text(found: Estimate) -> str:
    """Every adapter at every site, a line each, with the figures of every checkpoint."""
    subspaces = found.subspaces
    several = len(subspaces) > 1
    header = ["key", "level", "stack", "layer", "position", "rank", "entries of B"]
    columns = []
    for number in range(len(subspaces)):
        ending = f" {number + 1}" if several else ""
        header += [f"{name}{ending}" for name in ("survives", "living rows", "effective rank")]
        share = subspaces.living[number] / subspaces.prunable
        columns += [
            [f"{value:.6g}" for value in values]
            for values in (share, subspaces.rows[number], subspaces.effective[number])
        ]
    sizes = ([f"{value:.0f}" for value in values] for values in (subspaces.ranks, subspaces.prunable))
    names = ([cell.key, cell.level, *map(str, cell.site)] for cell in subspaces.cells)
    return Table(
        header, [[*own, *more] for own, more in zip(names, zip(*sizes, *columns, strict=True), strict=True)]
    ).csv()
