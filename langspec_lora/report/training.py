"""How the runs of a report were trained: the curves beside their checkpoints, and what pruning has left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from langspec_lora.curve_file import Curves, curve_file_name, read_curves
from langspec_lora.errors import UserError
from langspec_lora.evaluation.results import Run
from langspec_lora.files import sha256
from langspec_lora.naming import some_of
from langspec_lora.report.groups import order_by_level
from langspec_lora.report.heat_map import LEAST_REACH, Head, Matrix
from langspec_lora.report.inspection import inspect, survival_maps

_COLUMNS = 16
"""Validations of which the map of losses by language has a column."""


@dataclass(frozen=True)
class Training:
    """How the runs of a report were trained.

    Attributes:
        curves: by the name of the run, of those that have any.
        survival: maps of what pruning has left, by the name of the run, of those that were pruned.
        notes: remarks, on what was not found.
    """

    curves: Mapping[str, Curves] = field(default_factory=dict)
    survival: Mapping[str, Sequence[Matrix]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_training(runs: Iterable[Run]) -> Training:
    """Finds the curves of runs beside their checkpoints, and looks into these.

    What is missing or damaged becomes a remark: results outlive checkpoints.
    """
    curves, survival, notes, without = {}, {}, [], []
    for run in runs:
        path, digest = _checkpoint(run)
        if path is None:
            continue  # the base alone, an ensemble, or a results folder that does not say
        try:
            is_there = path.is_file()
            if is_there and digest and sha256(path) != digest:
                notes.append(f"{run.name}: {path} is another checkpoint than the one that was evaluated")
                continue
            file = path.with_name(curve_file_name())
            if file.is_file():
                curves[run.name] = read_curves(file)
                if damaged := curves[run.name].damaged:
                    notes.append(f"{run.name}: {damaged} damaged line{'s' * (damaged > 1)} of {file} left out")
            else:
                without.append(run.name)
            if is_there and (maps := survival_maps(inspect(path))):
                survival[run.name] = [
                    replace(matrix, title=f"{run.name}: {matrix.title[0].lower()}{matrix.title[1:]}") for matrix in maps
                ]
        except UserError as error:
            notes.append(f"{run.name}: {error}")
        except OSError as error:
            notes.append(f"{run.name}: {path}: {error.strerror}")
    if without:
        notes.append(
            f"no learning curves of {some_of(without)}: {curve_file_name()} is not beside the checkpoint; trainings "
            "write it there"
        )
    return Training(curves, survival, tuple(notes))


def _checkpoint(run: Run) -> tuple[Path | None, str]:
    """The checkpoint behind a results folder and its hash, if it is a single one with what its training changed."""
    held = run.settings.get("checkpoint")
    if not isinstance(held, list) or len(held) != 1 or not isinstance(held[0], Mapping):
        return None, ""
    path, digest = held[0].get("path"), held[0].get("sha256")
    return (Path(path), str(digest or "")) if isinstance(path, str) and Path(path).name else (None, "")


def loss_map(name: str, curves: Curves, levels: Mapping[str, str]) -> Matrix | None:
    """Validation loss by target language over the course of a training; None if the curves do not hold it.

    Args:
        name: of the run.
        curves: its curves.
        levels: resource level of each language; empty where they are not known.
    """
    subset = next((line.get("subset") for line in curves.validations), None)
    lines = [line for line in curves.validations if line.get("subset") == subset and _into(line)]
    if not lines:
        return None
    if len(lines) > _COLUMNS:
        lines = [lines[round(number * (len(lines) - 1) / (_COLUMNS - 1))] for number in range(_COLUMNS)]
    names = dict.fromkeys(language for line in lines for language in _into(line))
    known = levels if all(language in levels for language in names) else {}
    rows = {language: Head(known.get(language, ""), language) for language in order_by_level(names, known)}
    columns = {line["updates"]: Head("updates", short(line["updates"])) for line in lines}
    values = {(row, line["updates"]): _into(line).get(row) for line in lines for row in rows}
    found = [value for value in values.values() if value is not None]
    return Matrix(
        f"{name}: validation loss by target language",
        "negative log-likelihood of a token, in bits; lower is better",
        rows,
        columns,
        values,
        (min(found), max(max(found), min(found) + LEAST_REACH)),
        titles={
            (row, column): f"{row} after {column:,} updates: {value:.2f}"
            for (row, column), value in values.items()
            if value is not None
        },
        digits=2,
    )


def _into(line: Mapping) -> Mapping[str, float]:
    found = line.get("by_language", {}).get("nll_loss", {}).get("into", {})
    return {name: value for name, value in found.items() if isinstance(value, (int, float))}


def short(updates: int) -> str:
    """A number of updates in few characters: ``950``, ``12k``, ``1.5M``."""
    for size, letter in ((1_000_000, "M"), (1000, "k")):
        if updates >= size:
            return f"{updates / size:.3g}{letter}"
    return str(updates)
