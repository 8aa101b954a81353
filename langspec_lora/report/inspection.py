"""What a checkpoint or an adapter folder holds, as plain data and as text."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from langspec_lora.adapters.counts import Cell, Count, base_parameters, count_adapters, sum_by
from langspec_lora.adapters.packed import Adapters
from langspec_lora.checkpoints.stored_model import StoredModel
from langspec_lora.config import freezes_base, pruning_from_args, trained_languages
from langspec_lora.errors import UserError
from langspec_lora.languages import LEVELS
from langspec_lora.report.tables import Table
from langspec_lora.sites import POSITIONS


@dataclass(frozen=True)
class Inspection:
    """What there is to say of a file.

    Attributes:
        path: the file or folder.
        adapters: its adapters, or None for a model without.
        cells: what each adapter consists of.
        base: number of parameters of the base model, or None where it is not to be found.
        frozen: whether only the adapters train, or None where the file does not say.
        pruning: schedule and scope of the pruning it was trained with, or None.
        base_path: where the base lies that is not in the file, as far as that is known.
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
        pairs = (cell.count for cell in self.cells if self.trained is None or cell.language in self.trained)
        return sum(pairs, Count()).parameters + (0 if self.frozen else self.base)


def inspect(path: Path, base_checkpoint: str | Path | None = None) -> Inspection:
    """Looks into a checkpoint, with adapters or without, or an adapter folder.

    Args:
        path: the file or folder.
        base_checkpoint: where the base lies of a checkpoint that was saved without; None for where it says.

    Raises:
        UserError: it is missing, damaged or hostile, or the base is another one.
    """
    source = StoredModel(path, base_checkpoint)
    base = where = None
    if source.holds_base:
        base = base_parameters(source.base) or None
    else:
        where = source.base_path
        base = _base_elsewhere(source, given=base_checkpoint is not None)
    if any("lang_spec_lora" in name for name in source.entries):
        raise UserError(
            f"{source} is of the released implementation; 'langspec-lora import {path} --from lslo' makes one of ours"
        )
    if not source.has_adapters:
        return Inspection(path, None, [], base)
    cells, stated = count_adapters(source.adapters), None if source.holds_base else source.fingerprint
    if not source.is_checkpoint:
        return Inspection(path, source.adapters, cells, base, base_path=where, fingerprint=stated)
    frozen = freezes_base(source.args) if hasattr(source.args, "freeze_original_parameters") else None
    table = source.adapters.languages
    try:
        own = {table.names[index] for index in trained_languages(source.args, table)}
    except UserError:  # flags that no training of ours would take
        own = set(table.names)
    return Inspection(path, source.adapters, cells, base, frozen, _pruning(source.args), where, stated, own)


def _base_elsewhere(source: StoredModel, given: bool) -> int | None:
    """The parameters of a base that is not in the file; where it is not to be found, it is asked for only if given."""
    if not source.base_path or not (given or os.path.isfile(source.base_path)):  # noqa: PTH113
        return None
    try:
        return base_parameters(source.base)
    except UserError:
        if given:
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
    if found.adapters is None:
        return content
    adapters, table = found.adapters, found.adapters.languages
    languages = sum_by(found.cells, lambda cell: cell.language)
    stacks = sum_by(found.cells, lambda cell: (cell.site.stack, cell.site.layer))
    spots = sum_by(found.cells, lambda cell: (cell.site.stack, cell.site.position))
    content["adapters"] = {
        **_numbers(found.total),
        "slice": {"dim": adapters.dim, "start": adapters.start},
        "pruning": {"mask_epoch": adapters.mask_epoch, "trained_with": found.pruning},
        "languages": [
            {"name": name, "level": level, "rank": rank, **_numbers(languages[name])}
            for name, level, rank in zip(table.names, table.levels, table.ranks, strict=True)
        ],
        "levels": [{"level": level, **_numbers(count)} for level, count in _by_level(found.cells)],
        "layers": [
            {"stack": stack, "layer": layer, "direction": adapters.sides[stack][layer], **_numbers(count)}
            for (stack, layer), count in stacks.items()
        ],
        "positions": [
            {"stack": stack, "position": position, **_numbers(count)} for (stack, position), count in spots.items()
        ],
        "pairs": [{"language": cell.language, **cell.site._asdict(), **_numbers(cell.count)} for cell in found.cells],
    }
    return content


def _numbers(count: Count) -> dict[str, Any]:
    return {**asdict(count), "surviving": count.surviving}


def _by_level(cells: list[Cell]) -> list[tuple[str, Count]]:
    sums = sum_by(cells, lambda cell: cell.level)
    return [(level, sums[level]) for level in LEVELS if level in sums]


def as_text(found: Inspection) -> str:
    """The same as Markdown for a terminal."""
    lines = [f"# {found.path}", "", f"- base parameters: {_base_text(found)}"]
    if found.adapters is None:
        return "\n".join([*lines, "- adapters: none"])
    adapters, total, table = found.adapters, found.total, found.adapters.languages
    trainable = "not said in the file" if found.trainable is None else f"{found.trainable:,}"
    slices = f"features {adapters.start} to {adapters.start + adapters.dim}" if adapters.dim else "whole layers"
    lines += [
        f"- trainable parameters: {trainable}",
        f"- adapters: {total.parameters:,}, {total.nonzero:,} of them not zero; {len(table)} languages, "
        f"{len(adapters.packed)} sites, {slices}",
        *(f"- {stack} layers are selected by {_runs(adapters.sides[stack])}" for stack in POSITIONS),
        f"- pruning: {_pruning_text(found)}",
    ]
    languages = sum_by(found.cells, lambda cell: cell.language)
    facts = zip(table.names, table.levels, table.ranks, strict=True)
    rows = [[name, level, str(rank), *_figures(languages[name])] for name, level, rank in facts]
    tables = {
        "Languages": Table(["language", "level", "rank", *_COLUMNS], rows),
        "Levels": Table(["level", *_COLUMNS], [[level, *_figures(count)] for level, count in _by_level(found.cells)]),
    }
    stacks = sum_by(found.cells, lambda cell: (cell.site.stack, cell.site.layer))
    rows = [
        [f"{stack} {layer}", adapters.sides[stack][layer], *_figures(count)]
        for (stack, layer), count in sorted(stacks.items(), key=lambda item: _order(*item[0]))
    ]
    tables["Layers"] = Table(["layer", "by", *_COLUMNS], rows)
    spots = sum_by(found.cells, lambda cell: (cell.site.stack, cell.site.position))
    rows = [[f"{stack} {position}", *_figures(count)] for (stack, position), count in spots.items()]
    tables["Positions"] = Table(["position", *_COLUMNS], rows)
    return "\n".join([*lines, *(f"\n## {title}\n\n{table.markdown()}" for title, table in tables.items())])


def _base_text(found: Inspection) -> str:
    count = "not in the file" if found.base is None else f"{found.base:,}"
    if found.fingerprint is None:
        return count
    where = ""
    if found.base_path:
        where = (
            f", in {found.base_path}" if found.base else f"; they lay in {found.base_path}, where they are no longer"
        )
    return f"{count}{where} (fingerprint {found.fingerprint[:19]})"


_COLUMNS = ("parameters", "not zero", "of B survives")


def _figures(count: Count) -> list[str]:
    return [f"{count.parameters:,}", f"{count.nonzero:,}", f"{100 * count.surviving:.1f} %"]


def _order(stack: str, layer: int) -> tuple[int, int]:
    return list(POSITIONS).index(stack), layer


def _runs(directions: tuple[str, ...]) -> str:
    """``src (0 to 8), tgt (9 to 11)``."""
    starts = [i for i, word in enumerate(directions) if i == 0 or word != directions[i - 1]]
    ends = [*starts[1:], len(directions)]
    words = [
        f"{directions[start]} ({start if end == start + 1 else f'{start} to {end - 1}'})"
        for start, end in zip(starts, ends, strict=True)
    ]
    return ", ".join(words)


def _pruning_text(found: Inspection) -> str:
    epoch = found.adapters.mask_epoch
    state = f"{100 * (1 - found.total.surviving):.1f} % of B pruned" if found.total.surviving < 1 else "nothing pruned"
    if epoch:
        state += f", masks of epoch {epoch}"
    if found.pruning is None:
        return state
    start, length, target = (found.pruning[key] for key in ("start", "length", "target"))
    scope = found.pruning["scope"]
    return f"{state}; trained to prune {100 * target:g} % by epoch {start + length}, from epoch {start} (scope {scope})"
