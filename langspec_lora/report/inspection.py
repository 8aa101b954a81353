"""What a checkpoint or an adapter folder holds: as plain data, as text, and as pictures of what pruning has left."""

# Imports in functions: matplotlib takes a second, and only pictures need it.

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langspec_lora.adapters.counts import Cell, Count, base_parameters, count_adapters, sum_by
from langspec_lora.adapters.packed import Adapters
from langspec_lora.checkpoints.arguments import pruning_from_stored
from langspec_lora.checkpoints.stored_model import StoredModel
from langspec_lora.config import freezes_base, trained_languages
from langspec_lora.errors import UserError
from langspec_lora.keys import GROUP, KEY_LEVELS, LANGUAGE, key_layout, keys_of
from langspec_lora.naming import some_of
from langspec_lora.parts import part_of, trained_parts
from langspec_lora.pruning.choices import CHOICES
from langspec_lora.report.table import MOST_ROWS, Table, markdown_text
from langspec_lora.sites import DIRECTION, LEARNED, SHARED, STACKS, Site

if TYPE_CHECKING:
    from langspec_lora.report.heat_map import Matrix

TITLES = {LANGUAGE: "Languages", GROUP: "Groups", DIRECTION: "Directions", SHARED: "Shared"}
"""Titles of tables, by what an adapter belongs to."""

_PARTS = ("position", "layer")
"""Against what the maps show the languages."""


@dataclass(frozen=True)
class Inspection:
    """What there is to say of a file.

    Attributes:
        content: all of it, as ``inspect --json`` prints it; None stands for what the file does not say or hold.
        adapters: its adapters, or None for a model without.
        cells: what each adapter consists of.
    """

    content: dict[str, Any]
    adapters: Adapters | None = None
    cells: Sequence[Cell] = ()


def inspect(path: Path, base_checkpoint: str | Path | None = None) -> Inspection:
    """Looks into a checkpoint, with adapters or without, or an adapter folder.

    Args:
        path: the file or folder.
        base_checkpoint: the base of a checkpoint that was saved without it; None for the path that it stores.

    Raises:
        UserError: it is missing, damaged or hostile, or the base is another one.
    """
    stored = StoredModel(path, base_checkpoint)
    base = base_parameters(stored.base) or None if stored.holds_base else _base_elsewhere(stored, base_checkpoint)
    check_not_released(stored)
    content: dict[str, Any] = {
        "path": str(path),
        "base": {"parameters": base, "path": None, "fingerprint": None},
        "trainable": None,
        "frozen": None,
        "adapters": None,
    }
    if not stored.has_adapters:
        return Inspection(content)
    adapters, cells = stored.adapters, count_adapters(stored.adapters)
    if not stored.holds_base:
        content["base"] |= {"path": stored.base_path, "fingerprint": stored.fingerprint}
    if stored.is_checkpoint and hasattr(stored.args, "freeze_original_parameters"):
        if not hasattr(stored.args, "add_lora"):
            raise UserError(f"{stored} holds wrong training arguments (no add_lora); give a whole checkpoint")
        frozen = content["frozen"] = freezes_base(stored.args)
        if frozen or base is not None:
            parts = trained_parts(stored.args)
            of_base = {name: value for name, value in stored.base.items() if part_of(name) in parts} if parts else {}
            content["trainable"] = _trained_parameters(cells, adapters, stored.args) + base_parameters(of_base)
    content["adapters"] = {
        **_numbers(sum((cell.count for cell in cells), Count())),
        "slice": {"dim": adapters.dim, "start": adapters.start},
        "pruning": {
            "mask_epoch": adapters.mask_epoch,
            "trained_with": trained_pruning(stored.args) if stored.is_checkpoint else None,
        },
        **_breakdown(adapters, cells),
        "pairs": [{_word(adapters): cell.key, **cell.site._asdict(), **_numbers(cell.count)} for cell in cells],
    }
    return Inspection(content, adapters, cells)


def check_not_released(stored: StoredModel) -> None:
    """Refuses a checkpoint of the released implementation, whose adapters have other names.

    Raises:
        UserError: it is one.
    """
    if any("lang_spec_lora" in name for name in stored.entries):
        raise UserError(
            f"{stored} is of the released implementation; convert it with 'langspec-lora import {stored.path} --from "
            "lslo'"
        )


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


def _trained_parameters(cells: Iterable[Cell], adapters: Adapters, args: Namespace) -> int:
    trained = trained_keys(adapters, args)
    everything = all((adapters.side(cell.site), cell.key) in trained for cell in cells)
    mixture = 2 * len(adapters.mixture) if everything else 0
    return mixture + sum(cell.count.parameters for cell in cells if (adapters.side(cell.site), cell.key) in trained)


def trained_keys(adapters: Adapters, args: Namespace) -> set[tuple[str, str]]:
    """The keys whose adapters a training trained (``--train-languages``), each with the side of its layers.

    Args:
        adapters: the adapters.
        args: the arguments of the training.
    """
    trained: Sequence[int] = range(len(adapters.languages))
    with suppress(UserError):  # flags that no training of ours would take: all
        trained = trained_languages(args, adapters.languages)
    layout = key_layout(adapters.languages, adapters.used_sides)
    return {
        (side, keys_of(adapters.languages, side).names[key])
        for side in adapters.used_sides
        for key in layout.only_for(side, trained)
    }


def _word(adapters: Adapters) -> str:
    """What an adapter belongs to, in the JSON text."""
    return LANGUAGE if adapters.key == LANGUAGE else "key"


def trained_pruning(args: Namespace) -> dict[str, Any] | None:
    """Schedule and choices of the pruning that a checkpoint was trained with, by their names; None without pruning."""
    settings = pruning_from_stored(args)
    if settings is None:
        return None
    of_task = {"criterion": settings.criterion, "matrices": settings.target, "unit": settings.unit}
    return {**asdict(settings.schedule), "scope": settings.scope, **of_task}


def _breakdown(adapters: Adapters, cells: Sequence[Cell]) -> dict[str, list[dict[str, Any]]]:
    """The counts by language, by level, by layer and by position."""

    def sums(key: Callable[[Cell], tuple], *names: str) -> list[dict[str, Any]]:
        found = sum_by(cells, key).items()
        return [{**dict(zip(names, values, strict=True)), **_numbers(count)} for values, count in found]

    ranks = {
        name: rank
        for side in adapters.used_sides
        for name, rank in zip(*itemgetter(0, 2)(keys_of(adapters.languages, side)), strict=True)
    }
    levels = sums(lambda cell: (cell.level,), "level")
    return {
        f"{_word(adapters)}s": sums(lambda cell: (cell.key, cell.level, ranks[cell.key]), "name", "level", "rank"),
        "levels": sorted(levels, key=lambda entry: KEY_LEVELS.index(entry["level"])),
        "layers": sums(lambda cell: (*cell.site[:2], _side(adapters, cell.site)), "stack", "layer", "direction"),
        "positions": sums(lambda cell: (cell.site.stack, cell.site.position), "stack", "position"),
    }


def _side(adapters: Adapters, site: Site) -> str:
    """What selects the adapter at a site; where source and target are mixed, with their weights."""
    if adapters.side(site) != LEARNED:
        return adapters.side(site)
    source, target = adapters.weights(site[:2])
    return f"learned (src {source:.3f}, tgt {target:.3f})"


def _numbers(count: Count) -> dict[str, Any]:
    return {**asdict(count), "surviving": count.surviving}


def as_text(found: Inspection) -> str:
    """The same as Markdown for a terminal."""
    content, adapters = found.content, found.adapters
    lines = [f"# {markdown_text(content['path'])}", "", f"- base parameters: {_base_text(**content['base'])}"]
    if adapters is None:
        return "\n".join([*lines, "- adapters: none"])
    total = content["adapters"]
    trainable = "not said in the file" if content["trainable"] is None else f"{content['trainable']:,}"
    slices = f"features {adapters.start} to {adapters.start + adapters.dim}" if adapters.dim else "whole layers"
    lines += [
        f"- trainable parameters: {trainable}",
        f"- adapters: {total['parameters']:,}, {total['nonzero']:,} of them not zero; {len(adapters.languages)} "
        f"languages, {len(adapters.packed)} sites, {slices}",
        *(f"- {stack} layers are selected by {_selection(adapters.sides[stack])}" for stack in STACKS),
        f"- pruning: {_pruning_text(total['surviving'], **total['pruning'])}",
    ]
    ranks = total["living_components"] < total["components"]
    layers = sorted(total["layers"], key=lambda entry: (STACKS.index(entry["stack"]), entry["layer"]))
    for title, header, entries in (
        (TITLES.get(adapters.key, "Keys"), [adapters.key, "level", "rank"], total[f"{_word(adapters)}s"][:MOST_ROWS]),
        ("Levels", ["level"], total["levels"]),
        ("Layers", ["layer", "by"], layers),
        ("Positions", ["position"], total["positions"]),
    ):
        figures = ["parameters", "not zero", "of B survives", *(["rank left"] if ranks else [])]
        table = Table([*header, *figures], [_line(entry, ranks) for entry in entries])
        lines += ["", f"## {title}", "", table.markdown()]
    return "\n".join(lines)


def _line(entry: Mapping[str, Any], ranks: bool) -> list[str]:
    """An entry of the breakdown as a line of a table: what it counts, a stack together with its part, and figures.

    Args:
        entry: the entry.
        ranks: whether to add the mean rank that pruning has left.
    """
    names = [str(value) for name, value in entry.items() if name not in _numbers(Count())]
    if "stack" in entry:
        names[:2] = [" ".join(names[:2])]
    figures = [f"{entry['parameters']:,}", f"{entry['nonzero']:,}", f"{100 * entry['surviving']:.1f} %"]
    if ranks:
        left, trained = Count(**{field.name: entry[field.name] for field in fields(Count)}).rank_left
        figures.append(f"{left:.2f} of {trained:.4g}")
    return [*names, *figures]


def _base_text(parameters: int | None, path: str | None, fingerprint: str | None) -> str:
    count = "not in the file" if parameters is None else f"{parameters:,}"
    if fingerprint is None:
        return count
    where = ""
    if path:
        named = markdown_text(path)
        where = f", in {named}" if parameters else f"; they were in {named}, which was not found"
    return f"{count}{where} (fingerprint {fingerprint[:19]})"


def _selection(sides: Sequence[str]) -> str:
    """``src (0 to 8), tgt (9 to 11)``."""
    words = []
    for side, members in groupby(range(len(sides)), key=sides.__getitem__):
        first, *others = members
        words.append(f"{side} ({first} to {others[-1]})" if others else f"{side} ({first})")
    return some_of(words)


def _pruning_text(surviving: float, mask_epoch: int, trained_with: Mapping[str, Any] | None) -> str:
    state = f"{100 * (1 - surviving):.1f} % of B pruned" if surviving < 1 else "nothing pruned"
    if mask_epoch:
        state += f", masks of epoch {mask_epoch}"
    if trained_with is None:
        return state
    start, length, target, scope = (trained_with[key] for key in ("start", "length", "target", "scope"))
    others = {name: trained_with[name] for name in ("criterion", "matrices", "unit")}
    paper = [words[0] for words in CHOICES.values()]
    unlike = [f"{name} {own}" for (name, own), word in zip(others.items(), paper, strict=True) if own != word]
    how = some_of([f"scope {scope}", *unlike])
    return f"{state}; trained to prune {100 * target:g} % by epoch {start + length}, from epoch {start} ({how})"


def draw_survival(found: Inspection, out: Path) -> list[Path]:
    """Draws what pruning has left, language by position and language by layer, as PNG and SVG in the folder ``out``.

    Raises:
        UserError: there are no adapters, or a file cannot be written.
    """
    if found.adapters is None:
        raise UserError(f"{found.content['path']} holds no adapters to draw; leave --out out")
    from langspec_lora.report.heat_map import draw

    paths = []
    for part in _PARTS:
        matrix = _survival_map(found, found.adapters, part)
        paths += draw(matrix, out / f"survival.{part}", matrix.title)
    return paths


def survival_maps(found: Inspection) -> list[Matrix]:
    """What pruning has left, language by position and language by layer; none if nothing is pruned."""
    if found.adapters is None or found.content["adapters"]["surviving"] == 1:
        return []
    return [_survival_map(found, found.adapters, part) for part in _PARTS]


def _survival_map(found: Inspection, adapters: Adapters, part: str) -> Matrix:
    """What pruning has left in percent, language by ``position`` or by ``layer``."""
    from langspec_lora.report.adapter_maps import adapter_map, has_too_many_rows

    rows = "level" if has_too_many_rows(found.cells) else adapters.key
    surviving = found.content["adapters"]["surviving"]
    subtitle = f"{Path(found.content['path']).name}, {100 * surviving:.1f} % of all entries of B"

    def figure(numbers: Sequence[int]) -> float:
        return 100 * sum((found.cells[number].count for number in numbers), Count()).surviving

    return adapter_map(f"What survives of B, in %: {rows} × {part}", subtitle, found.cells, figure, part)
