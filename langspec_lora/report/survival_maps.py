"""Heat maps of what pruning has left: language by position, and language by layer."""

from __future__ import annotations

from pathlib import Path

from langspec_lora.adapters.counts import Cell, sum_by
from langspec_lora.errors import UserError
from langspec_lora.report.grid import draw_grid
from langspec_lora.report.inspection import Inspection
from langspec_lora.sites import POSITIONS


def draw_survival(found: Inspection, out: Path) -> list[Path]:
    """Draws both maps as PNG and SVG.

    Args:
        found: what to draw.
        out: the folder to write into; ``survival.position`` and ``survival.layer`` there are replaced.

    Returns:
        The files.

    Raises:
        UserError: there are no adapters, or a file cannot be written.
    """
    if found.adapters is None:
        raise UserError(f"{found.path} holds no adapters, of which there would be pictures; leave --out out")
    table = found.adapters.languages
    levels = dict(zip(table.names, table.levels, strict=True))
    kinds = {
        "position": lambda cell: (cell.site.stack, cell.site.position),
        "layer": lambda cell: (cell.site.stack, str(cell.site.layer)),
    }
    paths = []
    for kind, column in kinds.items():
        counts = sum_by(sorted(found.cells, key=_order), lambda cell, of=column: (cell.language, of(cell)))
        values = {key: 100 * count.surviving for key, count in counts.items()}
        files = [out / f"survival.{kind}.{suffix}" for suffix in ("png", "svg")]
        title = f"What survives of B, in %: language × {kind}"
        subtitle = f"{found.path.name}, {100 * found.total.surviving:.1f} % of all entries of B"
        draw_grid(values, levels, files, title, subtitle, (0.0, max(values.values())))
        paths += files
    return paths


def _order(cell: Cell) -> tuple[int, int, int]:
    stacks = list(POSITIONS)
    stack = cell.site.stack
    return stacks.index(stack), cell.site.layer, list(POSITIONS[stack]).index(cell.site.position)
