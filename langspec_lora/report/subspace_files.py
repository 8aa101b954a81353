"""The files of an estimate of subspaces: maps as pictures, tables, and YAML files for a next training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from langspec_lora.files import write_json, write_whole
from langspec_lora.naming import some_of
from langspec_lora.report.adapter_maps import adapter_map, has_too_many_rows
from langspec_lora.report.heat_map import Matrix, draw
from langspec_lora.report.subspace_tables import as_json, csv_text, suggestion_files
from langspec_lora.report.subspaces import Estimate

_SURVIVAL, _EFFECTIVE = "survival", "effective-rank"
_MAPS = ("layer", "position", "level")
_TABLES = ("subspaces.json", "subspaces.csv")
_YAML = [f"{word}.{end}" for word in ("ranks", "groups") for end in ("yaml", "positions.yaml", "layers.yaml")]

FILES = (
    *_TABLES,
    *_YAML,
    *(f"{what}.{part}.{end}" for what in (_SURVIVAL, _EFFECTIVE) for part in _MAPS for end in ("png", "svg")),
)
"""All files that may be written."""


def write_files(found: Estimate, out: Path) -> list[str]:
    """Writes all files of an estimate into a folder.

    Args:
        found: the estimate.
        out: the folder.

    Returns:
        The names of the files.

    Raises:
        UserError: one cannot be written.
    """
    write_json(out / _TABLES[0], as_json(found))
    write_whole(out / _TABLES[1], csv_text(found))
    texts = suggestion_files(found)
    for name, text in texts.items():
        write_whole(out / name, text)
    pictures = []
    for stem, matrix in maps(found).items():
        pictures += [path.name for path in draw(matrix, out / stem, matrix.title)]
    return [*texts, *_TABLES, *pictures]


def maps(found: Estimate) -> dict[str, Matrix]:
    """The maps, by the names of their files without endings: what survives, where there is pruning; effective ranks."""
    subspaces, cells = found.subspaces, found.subspaces.cells
    several = len(subspaces) > 1
    whose = f"mean of {len(subspaces)} checkpoints" if several else some_of(path.name for path in found.paths)
    rows = "level" if has_too_many_rows(cells) else found.adapters.key

    def survives(numbers: Sequence[int]) -> float:
        return float(100 * subspaces.surviving(numbers).mean())

    def effective(numbers: Sequence[int]) -> float:
        return float(subspaces.effective[:, numbers].mean())

    drawn = {}
    total = f"{whose}, {100 * subspaces.surviving().mean():.1f} % of all entries of B"
    mean = f"{whose}, mean over sites; {subspaces.effective.mean():.1f} over all"
    kinds = [(_EFFECTIVE, "Effective rank of B A", mean, effective)]
    if found.is_pruned:
        kinds.insert(0, (_SURVIVAL, "What survives of B, in %", total, survives))
    for stem, title, subtitle, figure in kinds:
        for part in _MAPS:
            by_level = part == "level"
            across = "layer" if by_level else part
            name = f"{title}: {'level' if by_level else rows} × {across}"
            drawn[f"{stem}.{part}"] = adapter_map(name, subtitle, cells, figure, across, by_level)
    return drawn
