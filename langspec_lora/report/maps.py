"""Which heat maps a report has, in its pictures as in its HTML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from langspec_lora.data.directions import Direction
from langspec_lora.report.analysis import Analysis

_LEAST_REACH = 0.1  # of a scale, so that equal values have one


@dataclass(frozen=True)
class Heatmap:
    """One heat map.

    Attributes:
        run: number of the run that it shows.
        title: what it shows.
        subtitle: a line below that.
        values: the value of each direction, or None where it is not known.
        limits: values of the first and the last colour, the same for all maps of one kind.
        differences: whether the values are differences from the first run, coloured around 0.
    """

    run: int
    title: str
    subtitle: str
    values: Mapping[Direction, float | None]
    limits: tuple[float, float]
    differences: bool = False


def score_maps(analysis: Analysis) -> list[Heatmap]:
    """Each run's scores."""
    means = analysis.groups[analysis.metric][-1].means
    limits = (0.0, max([_LEAST_REACH, *(score for run in analysis.scores for score in run.values())]))
    return [
        Heatmap(number, run.name, f"mean {mean:.2f} over {len(scores)} directions, source × target", scores, limits)
        for number, (run, scores, mean) in enumerate(zip(analysis.runs, analysis.scores, means, strict=True))
    ]


def difference_maps(analysis: Analysis) -> list[Heatmap]:
    """Each later run's scores less the first run's."""
    means = analysis.groups[analysis.metric][-1].differences
    differences = [analysis.differences(run) for run in range(1, len(analysis.runs))]
    reach = max([_LEAST_REACH, *(abs(value) for values in differences for value in values.values())])
    maps = []
    for number, values in enumerate(differences, start=1):
        better = sum(value > 0 for value in values.values())
        subtitle = f"mean {means[number]:+.2f}; higher in {better} of {len(values)} directions"
        title = f"{analysis.runs[number].name} − {analysis.runs[0].name}"
        maps.append(Heatmap(number, title, subtitle, values, (-reach, reach), True))
    return maps
