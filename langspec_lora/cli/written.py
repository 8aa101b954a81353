"""The lines by which commands name the files they wrote."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from langspec_lora.notes import show


def print_written(paths: Iterable[Path]) -> None:
    """Prints each file with its size."""
    for path in paths:
        size = path.stat().st_size
        show(f"written: {path} ({size / 1e6:,.1f} MB)" if size >= 1e5 else f"written: {path} ({size / 1e3:,.1f} kB)")
