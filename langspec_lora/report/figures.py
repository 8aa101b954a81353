"""What all figures share: fonts, and files that are the same for the same values."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from langspec_lora.files import write_whole

STYLE = {"font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "svg.hashsalt": "langspec"}
"""Settings to draw and save with, so that a matplotlibrc of the user cannot make a figure unreadable."""


def save_figure(figure: Figure, paths: Sequence[Path]) -> None:
    """Writes a figure into files of the formats that they are named after, each whole or not at all.

    Raises:
        UserError: a file cannot be written.
    """
    for path in paths:
        content = io.BytesIO()
        # Neither date nor random names: the same values give the same file.
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(content, format=path.suffix[1:], dpi=figure.dpi, metadata=metadata)
        write_whole(path, content.getvalue())
