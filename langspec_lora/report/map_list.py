"""The maps of a report, source × target, as they are drawn and shown in its HTML."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

from langspec_lora.data.directions import Direction
from langspec_lora.report.analysis import Analysis
from langspec_lora.report.groups import order_by_level
from langspec_lora.report.heat_map import LEAST_REACH, Head, Matrix
from langspec_lora.report.tables import percent


def direction_map(
    title: str, subtitle: str, values: Mapping[Direction, float | None], levels: Mapping[str, str], **more: Any
) -> Matrix:
    """A map of directions, with ``more`` fields: sources run down, targets to the right, from high to low resource.

    Raises:
        UserError: a language without a level.
    """
    languages = order_by_level(chain.from_iterable(values), levels)
    heads = {name: Head(levels.get(name, ""), name) for name in languages}
    return Matrix(title, subtitle, heads, heads, values, words=("from", "into"), **more)


def score_maps(analysis: Analysis) -> list[Matrix]:
    """Each run's scores, in the same colours."""
    limits = (0.0, max([LEAST_REACH, *(score for run in analysis.scores for score in run.values())]))
    maps = []
    for run, scores in zip(analysis.runs, analysis.scores, strict=True):
        subtitle = f"mean {sum(scores.values()) / len(scores):.2f} over {len(scores)} directions, source × target"
        titles = {direction: f"{arrow(direction)}: {score:.2f}" for direction, score in scores.items()}
        maps.append(direction_map(run.name, subtitle, scores, analysis.levels, limits=limits, titles=titles))
    return maps


def difference_maps(analysis: Analysis) -> list[Matrix]:
    """Each later run's scores less the first run's, in the same colours; significant differences are bold."""
    means = [sum(scores.values()) / len(scores) for scores in analysis.scores]
    differences = [analysis.differences(run) for run in range(len(means))]
    reach = max([LEAST_REACH, *(abs(value) for values in differences for value in values.values())])
    maps = []
    for run, values in list(enumerate(differences))[1:]:
        better = sum(value > 0 for value in values.values())
        subtitle = f"mean {means[run] - means[0]:+.2f}; higher in {better} of {len(values)} directions"
        titles = {
            d: f"{arrow(d)}: {analysis.scores[0][d]:.2f} → {analysis.scores[run][d]:.2f} ({value:+.2f})"
            for d, value in values.items()
        }
        more: dict[str, Any] = {"limits": (-reach, reach), "signed": True, "titles": titles}
        if analysis.comparisons:
            comparison = analysis.comparisons[run - 1]
            for direction, verdict in comparison.verdicts.items():
                titles[direction] += f"; p {comparison.corrected[direction]:.4f}, {verdict}"
            more["bold"] = {direction for direction, verdict in comparison.verdicts.items() if verdict != "tie"}
        title = f"{analysis.runs[run].name} − {analysis.runs[0].name}"
        maps.append(direction_map(title, subtitle, values, analysis.levels, **more))
    return maps


def off_target_maps(analysis: Analysis) -> list[Matrix]:
    """Each run's share of hypotheses in a wrong language, in percent."""
    found = analysis.off_target
    if found is None:
        return []
    subtitle = f"% of hypotheses; told in {len(found.shares[0])} of {len(analysis.texts)} directions"
    maps = []
    for run, shares in zip(analysis.runs, found.shares, strict=True):
        values = {d: 100 * shares[d] if d in shares else None for d in analysis.directions}
        titles = {d: f"{arrow(d)}: {percent(share, d.target in found.bounds)}" for d, share in shares.items()}
        maps.append(direction_map(run.name, subtitle, values, analysis.levels, limits=(0, 100), titles=titles))
    return maps


def drawn_maps(analysis: Analysis) -> dict[str, Matrix]:
    """The maps that are also files of their own, by the names of these without their endings, no two the same."""
    named: dict[str, Matrix] = {}
    for matrix in (*score_maps(analysis), *difference_maps(analysis)):
        plain = matrix.title.replace(" − ", "-minus-") if matrix.signed else matrix.title
        stem = "heatmap." + "".join(c if c.isalnum() or c in "._-" else "_" for c in plain)
        named[stem if stem not in named else f"{stem}.{len(named)}"] = matrix
    return named


def arrow(direction: Direction) -> str:
    """``en → fr``."""
    return f"{direction.source} → {direction.target}"
