"""Cuts validation and test text out of the training text: by hashes of sentences, so the same lines each time.

Of a text of many languages, the same lines are cut in all of them. For a language pair, the smaller hash of both
sentences decides: a sentence that occurs with several languages is mostly cut everywhere or nowhere, and few other
training lines have to go because one of their sentences is held out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from langspec_lora.data.own_text.columns import EMPTY, Columns
from langspec_lora.data.own_text.text_files import ParallelText, pairs_of

LARGEST_SHARE = 10  # at most one line in so many is cut for a split

_LAST = np.uint64(2**64 - 1)


@dataclass(frozen=True)
class Cut:
    """What was cut for a split.

    Attributes:
        rows: for each text, which lines, ``(lines,)`` bool.
        short: how many units (language pairs, or texts of many languages) had too few lines and gave a tenth of them.
        units: how many there are.
    """

    rows: list[np.ndarray]
    short: int
    units: int


def cut(
    columns: Columns,
    texts: Sequence[ParallelText],
    count: int,
    taken: Sequence[np.ndarray],
    lacking: Collection[tuple[str, str]],
) -> Cut:
    """Cuts lines of each language pair, and of each text of more than two languages, and holds them out.

    Args:
        columns: the lines.
        texts: the training texts.
        count: how many lines; of few lines a tenth.
        taken: for each text, lines that were cut before, ``(lines,)`` bool.
        lacking: the language pairs for which lines are needed.
    """
    units: dict[object, list[int]] = {}
    for number, text in enumerate(texts):
        if pairs_of([text]).isdisjoint(lacking):
            continue
        pair = tuple(column.language for column in text.columns)
        units.setdefault(pair if len(pair) == 2 else number, []).append(number)
    chosen = [np.zeros(len(rows), dtype=bool) for rows in taken]
    short = 0
    for members in units.values():
        ranks, keys = zip(*(_ranks(columns, texts[number]) for number in members), strict=True)
        rank = np.where(np.concatenate([taken[number] for number in members]), _LAST, np.concatenate(ranks))
        _, first = np.unique(np.concatenate(keys), return_index=True)
        once = np.zeros(len(rank), dtype=bool)
        once[first] = True
        places = np.flatnonzero(once & (rank != _LAST))
        wanted = min(count, max(1, len(places) // LARGEST_SHARE), len(places) // 2)
        short += wanted < count
        mark = np.zeros(len(rank), dtype=bool)
        mark[places[np.argsort(rank[places], kind="stable")[:wanted]]] = True
        start = 0
        for number in members:
            chosen[number] |= mark[start : start + len(chosen[number])]
            start += len(chosen[number])
    hold_out(columns, texts, dict(enumerate(chosen)))
    return Cut(chosen, short, len(units))


def _ranks(columns: Columns, text: ParallelText) -> tuple[np.ndarray, np.ndarray]:
    """The place of each line in the order of cutting, the last if it cannot be cut, and a hash of each line."""
    lines = columns.lines(text.columns[0])
    rank = np.full(lines, _LAST, dtype=np.uint64)
    key = np.zeros(lines, dtype=np.uint64)
    usable = np.ones(lines, dtype=bool)
    for number, column in enumerate(text.columns):
        normal = columns.normal(column)
        rank = np.minimum(rank, normal)
        key = key * np.uint64(0x9E3779B97F4A7C15) + normal * np.uint64(2 * number + 3)
        usable &= (normal != EMPTY) & ~columns.is_held_out(column)
    return np.where(usable, rank, _LAST), key


def hold_out(columns: Columns, texts: Sequence[ParallelText], rows: Mapping[int, np.ndarray] | None = None) -> None:
    """Names the sentences of texts as held out.

    Args:
        columns: the lines.
        texts: the texts.
        rows: for each text by its number, which lines; None for all.
    """
    found: dict[str, list[np.ndarray]] = {}
    for number, text in enumerate(texts):
        for column in text.columns:
            normal = columns.normal(column)
            found.setdefault(column.language, []).append(normal if rows is None else normal[rows[number]])
    for language, parts in found.items():
        columns.hold_out(language, np.concatenate(parts))
