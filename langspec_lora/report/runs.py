"""The runs of a report: their names, and whether their scores can be compared."""

from __future__ import annotations

from collections.abc import Sequence

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError, printable
from langspec_lora.evaluation.metrics import METRICS
from langspec_lora.evaluation.results import Run
from langspec_lora.naming import some_of
from langspec_lora.report.seeds import RunFolders, folders_of
from langspec_lora.report.significance import comparable


def run_names(runs: Sequence[RunFolders], names: Sequence[str | None] | None) -> list[str]:
    """The name of each run: the names given, or else those of the folders.

    Args:
        runs: the folder of each, or those of its seeds, which need a name.
        names: a name for each; None for the folder's.

    Raises:
        UserError: not as many names as runs, or a name twice.
    """
    if names is not None:
        given = [name for name in names if name is not None]
        if len(names) != len(runs) or len(set(given)) != len(given):
            raise UserError(
                f"--names gives {some_of(given, ',')} for {len(runs)} folders; give a different name to each folder"
            )
        if len(given) == len(names):
            return _shown(given)
    unnamed = [run for run, name in zip(runs, names or [None] * len(runs), strict=True) if not name]
    if several := next((run for run in unnamed if len(folders_of(run)) > 1), None):
        raise UserError(f"the seeds {some_of(map(str, folders_of(several)))} have no name; give one to their mean")
    for depth in (1, 2):
        folders = ["/".join(folders_of(run)[0].resolve().parts[-depth:]) for run in runs]
        found = [name or folder for name, folder in zip(names or [None] * len(runs), folders, strict=True)]
        if len(set(found)) == len(found):
            return _shown(found)
    raise UserError(
        f"the folders {some_of(folders_of(run)[0].resolve().name for run in runs)} have the same names; give --names"
    )


def _shown(names: Sequence[str]) -> list[str]:
    """Names as every format of the report can show them: folders' names may have line breaks and terminal codes."""
    return [printable(name) for name in names]


def common_directions(runs: Sequence[Run], metric: str) -> tuple[list[Direction], int]:
    """The directions that all runs have, in the order of the first, and how many directions of others there are.

    Raises:
        UserError: no direction is common to all, or a run lacks the metric.
    """
    first, *others = (run.metric(metric) for run in runs)
    common = [direction for direction in first if all(direction in other for other in others)]
    if not common:
        raise UserError(f"{some_of(str(run.folder) for run in runs)} have no direction in common; nothing to compare")
    return common, len(set(first).union(*others)) - len(common)


def require_comparable(runs: Sequence[Run], metric: str) -> None:
    """Makes sure that the runs were scored alike, as far as they say how.

    Raises:
        UserError: they were scored on different test sets, or with different settings of the metric.
    """
    for what, values in (
        ("the subset", [run.settings.get("subset", "") for run in runs]),
        (METRICS[metric].title(""), [comparable(run.signatures.get(metric, "")) for run in runs]),
    ):
        known = {value: run.name for value, run in zip(values, runs, strict=True) if value}
        if len(known) > 1:
            (one, first), (other, second) = list(known.items())[:2]
            raise UserError(
                f"{first} has {what} {one} and {second} has {other}, so their scores cannot be compared; run "
                "'langspec-lora evaluate' on both with the same settings, or report them separately"
            )


def shared_metrics(runs: Sequence[Run], directions: Sequence[Direction], first: str) -> list[str]:
    """The metrics that every run has of every direction, computed alike; ``first`` leads."""

    def shared(metric: str) -> bool:
        alike = len({comparable(run.signatures.get(metric, "")) for run in runs} - {""}) <= 1
        return alike and all(set(directions) <= run.scores.get(metric, {}).keys() for run in runs)

    return [first, *(metric for metric in METRICS if metric != first and shared(metric))]
