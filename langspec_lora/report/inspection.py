"""What a checkpoint or an adapter folder holds: as plain data, as text, and as pictures of what pruning has left."""

# Imports in functions: matplotlib takes a second, and only pictures need it.

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langspec_lora.adapters.counts import Cell, Count, base_parameters, count_adapters, sum_by
from langspec_lora.adapters.packed import Adapters
from langspec_lora.checkpoints.stored_model import StoredModel
from langspec_lora.config import freezes_base, pruning_from_args, trained_languages
from langspec_lora.errors import UserError
from langspec_lora.languages import LEVELS, LanguageTable
from langspec_lora.report.groups import order_by_level
from langspec_lora.report.tables import Table
from langspec_lora.sites import POSITIONS

if TYPE_CHECKING:
    from langspec_lora.report.heat_map import Matrix

_NUMBERS = {*(field.name for field in fields(Count)), "surviving"}


@dataclass(frozen=True)
class Inspection:
    """What there is to say of a file.

    Attributes:
        path: the file or folder.
        adapters: its adapters, or None for a model without.
        cells: what each adapter consists of.
        base: number of parameters of the base model, or None if it was not found.
        frozen: whether only the adapters train, or None where the file does not say.
        pruning: schedule and scope of the pruning it was trained with, or None.
        base_path: where the base is that is not in the file, as far as that is known.
        fingerprint: of a base that is not in the file.
        trained: names of the languages that train; None for all.
    """

    path: Path
    adapters: Adapters | None
    cells: list[Cell]
    base: int | None
    frozen: bool | None = None
    pruning: Mapping[str, Any] | None = None
    base_path: str | None = None
    fingerprint: str | None = None
    trained: Set[str] | None = None

    @property
    def total(self) -> Count:
        """All adapters together."""
        return sum((cell.count for cell in self.cells), Count())

    @property
    def trainable(self) -> int | None:
        """How many parameters train, where the file says so."""
        if self.frozen is None or (self.base is None and not self.frozen):
            return None
        trained = (cell.count for cell in self.cells if self.trained is None or cell.language in self.trained)
        return sum(trained, Count()).parameters + (0 if self.frozen or self.base is None else self.base)


def inspect(path: Path, base_checkpoint: str | Path | None = None) -> Inspection:
    """Looks into a checkpoint, with adapters or without, or an adapter folder.

    Args:
        path: the file or folder.
        base_checkpoint: where the base is of a checkpoint that was saved without; None for where it says.

    Raises:
        UserError: it is missing, damaged or hostile, or the base is another one.
    """
    stored = StoredModel(path, base_checkpoint)
    base_path = None if stored.holds_base else stored.base_path
    base = base_parameters(stored.base) or None if stored.holds_base else _base_elsewhere(stored, base_checkpoint)
    if any("lang_spec_lora" in name for name in stored.entries):
        raise UserError(
            f"{stored} is of the released implementation; convert it with 'langspec-lora import {path} --from lslo'"
        )
    if not stored.has_adapters:
        return Inspection(path, None, [], base)
    cells, fingerprint = count_adapters(stored.adapters), None if stored.holds_base else stored.fingerprint
    if not stored.is_checkpoint:
        return Inspection(path, stored.adapters, cells, base, base_path=base_path, fingerprint=fingerprint)
    frozen = freezes_base(stored.args) if hasattr(stored.args, "freeze_original_parameters") else None
    table = stored.adapters.languages
    try:
        trained = {table.names[index] for index in trained_languages(stored.args, table)}
    except UserError:  # flags that no training of ours would take
        trained = set(table.names)
    pruning = _pruning(stored.args)
    return Inspection(path, stored.adapters, cells, base, frozen, pruning, base_path, fingerprint, trained)


def _base_elsewhere(stored: StoredModel, given: str | Path | None) -> int | None:
    """The parameters of a base that is not in the file; only a base that was given has to be found."""
    if not stored.base_path or not (given is not None or os.path.isfile(stored.base_path)):  # noqa: PTH113
        return None
    try:
        return base_parameters(stored.base)
    except UserError:
        if given is not None:
            raise
        return None


def _pruning(args: Namespace) -> dict[str, Any] | None:
    try:
        settings = pruning_from_args(args)
    except (AttributeError, TypeError, ValueError):  # of another task, or another version of ours
        return None
    if settings is None:
        return None
    schedule, scope = settings
    return {**asdict(schedule), "scope": scope}


def as_json(found: Inspection) -> dict[str, Any]:
    """The same as plain data for other programs."""
    content: dict[str, Any] = {
        "path": str(found.path),
        "base": {"parameters": found.base, "path": found.base_path, "fingerprint": found.fingerprint},
        "trainable": found.trainable,
        "frozen": found.frozen,
        "adapters": None,
    }
    if found.adapters is not None:
        adapters, cells = found.adapters, found.cells
        content["adapters"] = {
            **_numbers(found.total),
            "slice": {"dim": adapters.dim, "start": adapters.start},
            "pruning": {"mask_epoch": adapters.mask_epoch, "trained_with": found.pruning},
            **_breakdown(adapters, cells),
            "pairs": [{"language": cell.language, **cell.site._asdict(), **_numbers(cell.count)} for cell in cells],
        }
    return content


def _breakdown(adapters: Adapters, cells: Sequence[Cell]) -> dict[str, list[dict[str, Any]]]:
    """The counts by language, by level, by layer and by position."""
    table = adapters.languages
    languages = sum_by(cells, lambda cell: cell.language)
    levels = sum_by(cells, lambda cell: cell.level)
    layers = sum_by(cells, lambda cell: (cell.site.stack, cell.site.layer))
    positions = sum_by(cells, lambda cell: (cell.site.stack, cell.site.position))
    return {
        "languages": [
            {"name": name, "level": level, "rank": rank, **_numbers(languages[name])}
            for name, level, rank in zip(table.names, table.levels, table.ranks, strict=True)
        ],
        "levels": [{"level": level, **_numbers(levels[level])} for level in LEVELS if level in levels],
        "layers": [
            {"stack": stack, "layer": layer, "direction": adapters.sides[stack][layer], **_numbers(count)}
            for (stack, layer), count in layers.items()
        ],
        "positions": [
            {"stack": stack, "position": position, **_numbers(count)} for (stack, position), count in positions.items()
        ],
    }


def _numbers(count: Count) -> dict[str, Any]:
    return {**asdict(count), "surviving": count.surviving}


def as_text(found: Inspection) -> str:
    """The same as Markdown for a terminal."""
    lines = [f"# {found.path}", "", f"- base parameters: {_base_text(found)}"]
    if found.adapters is None:
        return "\n".join([*lines, "- adapters: none"])
    adapters, total = found.adapters, found.total
    trainable = "not said in the file" if found.trainable is None else f"{found.trainable:,}"
    slices = f"features {adapters.start} to {adapters.start + adapters.dim}" if adapters.dim else "whole layers"
    lines += [
        f"- trainable parameters: {trainable}",
        f"- adapters: {total.parameters:,}, {total.nonzero:,} of them not zero; {len(adapters.languages)} languages, "
        f"{len(adapters.packed)} sites, {slices}",
        *(f"- {stack} layers are selected by {_selection(adapters.sides[stack])}" for stack in POSITIONS),
        f"- pruning: {_pruning_text(found, adapters.mask_epoch)}",
    ]
    counts = _breakdown(adapters, found.cells)
    counts["layers"].sort(key=lambda entry: _order(entry["stack"], entry["layer"]))
    for title, entries in counts.items():
        header = {"languages": ["language", "level", "rank"], "layers": ["layer", "by"]}.get(title, [title[:-1]])
        figures = ("parameters", "not zero", "of B survives")
        lines += ["", f"## {title.capitalize()}", "", Table([*header, *figures], list(map(_line, entries))).markdown()]
    return "\n".join(lines)


def _line(entry: Mapping[str, Any]) -> list[str]:
    """An entry of the breakdown as a line of a table: what it counts, a stack together with its part, and figures."""
    names = [str(value) for name, value in entry.items() if name not in _NUMBERS]
    if "stack" in entry:
        names[:2] = [" ".join(names[:2])]
    return [*names, f"{entry['parameters']:,}", f"{entry['nonzero']:,}", f"{100 * entry['surviving']:.1f} %"]


def _base_text(found: Inspection) -> str:
    count = "not in the file" if found.base is None else f"{found.base:,}"
    if found.fingerprint is None:
        return count
    where = ""
    if found.base_path:
        where = f", in {found.base_path}" if found.base else f"; they were in {found.base_path}, which was not found"
    return f"{count}{where} (fingerprint {found.fingerprint[:19]})"


def _order(stack: str, layer: int) -> tuple[int, int]:
    return list(POSITIONS).index(stack), layer


def _selection(sides: Sequence[str]) -> str:
    """``src (0 to 8), tgt (9 to 11)``."""
    words = []
    for side, members in groupby(range(len(sides)), key=sides.__getitem__):
        first, *others = members
        words.append(f"{side} ({first} to {others[-1]})" if others else f"{side} ({first})")
    return ", ".join(words)


def _pruning_text(found: Inspection, epoch: int) -> str:
    state = f"{100 * (1 - found.total.surviving):.1f} % of B pruned" if found.total.surviving < 1 else "nothing pruned"
    if epoch:
        state += f", masks of epoch {epoch}"
    if found.pruning is None:
        return state
    start, length, target, scope = (found.pruning[key] for key in ("start", "length", "target", "scope"))
    return f"{state}; trained to prune {100 * target:g} % by epoch {start + length}, from epoch {start} (scope {scope})"


def draw_survival(found: Inspection, out: Path) -> list[Path]:
    """Draws what pruning has left, language by position and language by layer, as PNG and SVG.

    Args:
        found: what to draw.
        out: the folder to write into; ``survival.position`` and ``survival.layer`` there are replaced.

    Returns:
        The files.

    Raises:
        UserError: there are no adapters, or a file cannot be written.
    """
    if found.adapters is None:
        raise UserError(f"{found.path} holds no adapters to draw; leave --out out")
    from langspec_lora.report.heat_map import draw

    paths = []
    for part in ("position", "layer"):
        files = [out / f"survival.{part}.{suffix}" for suffix in ("png", "svg")]
        matrix = _survival_map(found, found.adapters.languages, part)
        draw(matrix, files, matrix.title)
        paths += files
    return paths


def _survival_map(found: Inspection, table: LanguageTable, part: str) -> Matrix:
    """What pruning has left in percent, language by ``position`` or by ``layer``."""
    from langspec_lora.report.heat_map import LEAST_REACH, Head, Matrix

    def column(cell: Cell) -> Head:
        return Head(cell.site.stack, str(getattr(cell.site, part)))

    def order(cell: Cell) -> tuple[int, ...]:
        return *_order(*cell.site[:2]), list(POSITIONS[cell.site.stack]).index(cell.site.position)

    cells = sorted(found.cells, key=order)
    levels = dict(zip(table.names, table.levels, strict=True))
    values = {
        (language, " ".join(head)): 100 * count.surviving
        for (language, head), count in sum_by(cells, lambda cell: (cell.language, column(cell))).items()
    }
    return Matrix(
        f"What survives of B, in %: language × {part}",
        f"{found.path.name}, {100 * found.total.surviving:.1f} % of all entries of B",
        {name: Head(levels[name], name) for name in order_by_level(table.names, levels)},
        {" ".join(head): head for head in map(column, cells)},
        values,
        (0.0, max(LEAST_REACH, *values.values())),
    )
