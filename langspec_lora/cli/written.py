"""The lines by which commands name the files they wrote."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from langspec_lora.notes import show

_MOST = 24


def print_written(paths: Iterable[Path]) -> None:
    """Prints each file with its size, or of very many their number and the size of all."""
    sizes = {path: path.stat().st_size for path in paths}
    if len(sizes) > _MOST:
        folder = os.path.commonpath([path.parent for path in sizes])
        show(f"written: {len(sizes):,} files in {folder} ({_amount(sum(sizes.values()))})")
        return
    for path, size in sizes.items():
        show(f"written: {path} ({_amount(size)})")


def _amount(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"
