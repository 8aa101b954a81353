"""The runs of a report: their names, and whether their scores can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.evaluation.metrics import METRICS
from langspec_lora.evaluation.results import Run
from langspec_lora.report.significance import comparable


def run_names(folders: Sequence[Path], names: Sequence[str] | None) -> list[str]:
    """The name of each run: the names given, or else those of the folders.

    Raises:
        UserError: not as many names as folders, or a name twice.
    """
    if names is not None:
        if len(names) != len(folders) or len(set(names)) != len(names):
            raise UserError(
                f"--names gives {','.join(names)} for {len(folders)} folders; give a different name to each folder"
            )
        return list(names)
    short = [folder.resolve().name for folder in folders]
    if len(set(short)) == len(short):
        return short
    longer = ["/".join(folder.resolve().parts[-2:]) for folder in folders]
    if len(set(longer)) == len(longer):
        return longer
    raise UserError(f"the folders {', '.join(short)} have the same names; give --names")


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
