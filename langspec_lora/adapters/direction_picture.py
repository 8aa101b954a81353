"""A bar picture of learned directions: how much the source and the target count in each layer."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from langspec_lora.adapters.learned_directions import LearnedLayer
from langspec_lora.files import write_whole
from langspec_lora.sites import STACKS

_COLOURS = {"source": "#2166ac", "target": "#d6604d"}
_STYLE: dict[Any, Any] = {"font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "svg.hashsalt": "langspec"}


def draw_directions(layers: Sequence[LearnedLayer], title: str, stem: Path) -> list[Path]:
    """Draws ``stem.png`` and ``stem.svg``, each whole or not at all.

    Args:
        layers: the layers and their weights.
        title: what stands above.
        stem: the files' path without its ending.

    Raises:
        UserError: a file cannot be written.
    """
    stacks = [stack for stack in STACKS if any(found.stack == stack for found in layers)]
    counts = [sum(found.stack == stack for found in layers) for stack in stacks]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(2.2 + 0.36 * sum(counts) + 0.5 * len(stacks), 3.4), dpi=140, facecolor="white")
        parts = figure.subplots(1, len(stacks), squeeze=False, sharey=True, gridspec_kw={"width_ratios": counts})[0]
        for stack, axes in zip(stacks, parts, strict=True):
            own = [found for found in layers if found.stack == stack]
            places, shares = range(len(own)), [found.source for found in own]
            axes.bar(places, shares, 0.78, color=_COLOURS["source"], label="source")
            axes.bar(places, [1 - share for share in shares], 0.78, shares, color=_COLOURS["target"], label="target")
            axes.axhline(0.5, color="white", linewidth=1)
            axes.set_xticks(places, [str(found.layer) for found in own], fontsize=8)
            axes.set_xlabel(f"{stack} layer", fontsize=9)
            axes.set_ylim(0, 1)
            axes.set_xlim(-0.6, len(own) - 0.4)
            axes.tick_params(labelsize=8, length=2)
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)
        parts[0].set_ylabel("weight", fontsize=9)
        figure.suptitle(title, fontsize=11, x=0.02, ha="left", fontweight="bold")
        handles, labels = parts[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="center right", frameon=False, fontsize=9)
        figure.subplots_adjust(
            left=0.62 / figure.get_figwidth(), right=1 - 0.95 / figure.get_figwidth(), top=0.86, bottom=0.17
        )
        paths = []
        for suffix, metadata in (("png", None), ("svg", {"Date": None})):
            content = io.BytesIO()
            figure.savefig(content, format=suffix, metadata=metadata)
            path = Path(f"{stem}.{suffix}")
            write_whole(path, content.getvalue())
            paths.append(path)
    return paths
