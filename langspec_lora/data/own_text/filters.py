"""Which lines of a language pair are kept, and how many each filter removes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from langspec_lora.data.own_text.columns import EMPTY, Columns
from langspec_lora.data.own_text.defaults import MAX_LENGTH, MAX_RATIO
from langspec_lora.data.own_text.text_files import Column

FILTERS = ("empty", "held_out", "duplicate", "length", "ratio")
"""What removes a line, in order: it counts under the first of them."""

_ODD = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))


@dataclass(frozen=True)
class Limits:
    """What a training pair may be.

    Attributes:
        max_length: most tokens of a side.
        max_ratio: how many times as many tokens as the other side a side may have.
        duplicates: whether a pair that occurs again is kept.
    """

    max_length: int = MAX_LENGTH
    max_ratio: float = MAX_RATIO
    duplicates: bool = False


@dataclass(frozen=True)
class Part:
    """A part of the text of a language pair: two columns of one text, and which of their lines may be used.

    Attributes:
        source: the column of the first language.
        target: the column of the second.
        rows: ``(lines,)`` bool; None for all.
    """

    source: Column
    target: Column
    rows: np.ndarray | None = None


@dataclass
class PairLines:
    """What is left of a language pair.

    Attributes:
        rows: for each part, which lines are kept, ``(lines,)`` bool.
        read: how many lines there were.
        removed: how many each filter removed.
    """

    rows: list[np.ndarray]
    read: int
    removed: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FILTERS, 0))

    @property
    def kept(self) -> int:
        """How many lines are kept."""
        return self.read - sum(self.removed.values())


def training_lines(columns: Columns, parts: Sequence[Part], limits: Limits) -> PairLines:
    """Filters the training text of a language pair.

    Args:
        columns: the lines, encoded, with all held-out sentences named.
        parts: the pair's text, in order: of duplicates the first is kept.
        limits: lengths and ratio.
    """
    keep = _usable(columns, parts)
    found = PairLines([], sum(map(len, keep)))
    found.removed["empty"] = _remove(keep, [~_both(columns, part) for part in parts])
    held = [columns.is_held_out(part.source) | columns.is_held_out(part.target) for part in parts]
    found.removed["held_out"] = _remove(keep, held)
    if not limits.duplicates:
        found.removed["duplicate"] = _remove(keep, repeated(columns, parts, keep))
    for part, rows in zip(parts, keep, strict=True):
        # without end of sentence
        sides = columns.sizes(part.source) - 1, columns.sizes(part.target) - 1
        shorter, longer = np.minimum(*sides), np.maximum(*sides)
        found.removed["length"] += _remove([rows], [longer > limits.max_length])
        found.removed["ratio"] += _remove([rows], [longer > shorter * limits.max_ratio])
    # Lines that were cut out for validation or test are not part of the training text.
    given = [part.rows for part in parts if part.rows is not None]
    found.read -= sum(int((~rows).sum()) for rows in given)
    found.rows = keep
    return found


def held_out_lines(columns: Columns, parts: Sequence[Part]) -> PairLines:
    """The validation or test text of a language pair: all of it but lines with an empty side."""
    keep = _usable(columns, parts)
    found = PairLines([], sum(int(rows.sum()) for rows in keep))
    found.removed["empty"] = _remove(keep, [~_both(columns, part) for part in parts])
    found.rows = keep
    return found


def _usable(columns: Columns, parts: Sequence[Part]) -> list[np.ndarray]:
    return [
        np.ones(columns.lines(part.source), dtype=bool) if part.rows is None else part.rows.copy() for part in parts
    ]


def _both(columns: Columns, part: Part) -> np.ndarray:
    """Which lines have both sides."""
    return (columns.exact(part.source) != EMPTY) & (columns.exact(part.target) != EMPTY)


def _remove(keep: Sequence[np.ndarray], wrong: Sequence[np.ndarray]) -> int:
    """Removes lines in place, and counts those that were still kept."""
    removed = 0
    for rows, bad in zip(keep, wrong, strict=True):
        removed += int((rows & bad).sum())
        rows &= ~bad
    return removed


def repeated(columns: Columns, parts: Sequence[Part], keep: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Which of the kept lines are exactly as an earlier one, on both sides."""
    chosen = [np.flatnonzero(rows) for rows in keep]
    keys = [
        columns.exact(part.source)[rows] * _ODD[0] + columns.exact(part.target)[rows] * _ODD[1]
        for part, rows in zip(parts, chosen, strict=True)
    ]
    _, first = np.unique(np.concatenate(keys), return_index=True)
    again = np.ones(sum(map(len, keys)), dtype=bool)
    again[first] = False
    marks = [np.zeros(len(rows), dtype=bool) for rows in keep]
    start = 0
    for mark, rows in zip(marks, chosen, strict=True):
        mark[rows] = again[start : start + len(rows)]
        start += len(rows)
    return marks
