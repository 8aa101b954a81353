"""Filters and writes the text of all language pairs, and counts what is left of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from langspec_lora.data.own_text.columns import Columns, lines_of
from langspec_lora.data.own_text.filters import FILTERS, Limits, PairLines, Part, held_out_lines, training_lines
from langspec_lora.data.own_text.sides import Sides
from langspec_lora.data.own_text.text_files import Column, ParallelText
from langspec_lora.progress import Progress

Rows = np.ndarray
Pair = tuple[str, str]


@dataclass
class Pairs:
    """What is written, and what is left of each language pair.

    Attributes:
        sides: writes the binarised folder.
        columns: the lines, encoded.
        languages: all languages, in order.
        counts: by split and language pair.
        kept: the lines of each column that are trained on in any language pair, by the column's number.
    """

    sides: Sides
    columns: Columns
    languages: Sequence[str]
    counts: dict[tuple[str, Pair], PairLines] = field(default_factory=dict)
    kept: dict[int, tuple[Column, Rows]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._places = {name: number for number, name in enumerate(self.languages)}

    def write_training(self, texts: Sequence[ParallelText], rows: Sequence[Rows | None] | None, limits: Limits) -> None:
        """Filters and writes the training text.

        Args:
            texts: the texts.
            rows: for each text, which lines may be used, ``(lines,)`` bool; None for all.
            limits: what a training pair may be.
        """
        for pair, parts in self._parts("train", texts, rows):
            found = self.counts["train", pair] = training_lines(self.columns, parts, limits)
            for part, chosen in zip(parts, found.rows, strict=True):
                for column in (part.source, part.target):
                    new = column, np.zeros(len(chosen), dtype=bool)
                    self.kept.setdefault(self.columns.number(column), new)[1][:] |= chosen
            self._write("train", pair, parts, found)
            found.rows = []

    def write_held_out(
        self, split: str, texts: Sequence[ParallelText], rows: Sequence[Rows | None] | None, mono: Path
    ) -> None:
        """Writes validation or test text, and as plain text too if each language has one side in all its directions.

        Args:
            split: ``valid`` or ``test``.
            texts: the texts.
            rows: for each text, which lines are used, ``(lines,)`` bool; None for all.
            mono: the folder of the plain text.
        """
        sides: dict[str, dict[str, list[tuple[Column, Rows]]]] = {}
        for pair, parts in self._parts(split, texts, rows):
            found = self.counts[split, pair] = held_out_lines(self.columns, parts)
            for language, stem, columns in zip(
                pair,
                self._write(split, pair, parts, found),
                ([part.source for part in parts], [part.target for part in parts]),
                strict=False,
            ):
                sides.setdefault(language, {})[stem] = list(zip(columns, found.rows, strict=True))
            found.rows = []
        if all(len(own) == 1 for own in sides.values()):
            texts_of = {column: text for text in texts for column in text.columns}
            for language, own in sides.items():
                (lines,) = own.values()
                _write_text(mono / f"{split}.{language}", [(texts_of[column], column, rows) for column, rows in lines])

    def _parts(
        self, split: str, texts: Sequence[ParallelText], rows: Sequence[Rows | None] | None
    ) -> Iterator[tuple[Pair, Sequence[Part]]]:
        """Yields the parts of each language pair, in the order of the languages; shows how far they are."""
        parts: dict[Pair, list[Part]] = {}
        for number, text in enumerate(texts):
            for a, b in text.pairs():
                chosen = None if rows is None else rows[number]
                parts.setdefault((a.language, b.language), []).append(Part(a, b, chosen))
        bar = Progress(sorted(parts, key=self._place), desc=f"writing {split}", unit="pair", disable=None, leave=False)
        for pair in bar:
            yield pair, parts[pair]

    def _place(self, pair: Pair) -> tuple[int, int]:
        return self._places[pair[0]], self._places[pair[1]]

    def _write(self, split: str, pair: Pair, parts: Sequence[Part], found: PairLines) -> tuple[str, ...]:
        """Writes what is left of a language pair; returns the names of both sides, of nothing none."""
        if not found.kept:
            return ()
        return self.sides.add(split, pair, [(part.source, part.target) for part in parts], found.rows)

    def directions(self) -> list[Pair]:
        """Both directions of each language pair with training and validation text, by source, then target."""
        pairs = self.trained_pairs()
        return sorted((way for a, b in pairs for way in ((a, b), (b, a))), key=self._place)

    def trained_pairs(self, validated: bool = True) -> list[Pair]:
        """The language pairs with training text and validation text, or with training text alone."""
        own = {
            split: {pair for (name, pair), found in self.counts.items() if name == split and found.kept}
            for split in ("train", "valid")
        }
        return sorted(own["train"] & own["valid"] if validated else own["train"] - own["valid"], key=self._place)

    def sentences(self) -> dict[str, int]:
        """How many different sentences of each language are trained on."""
        own: dict[str, list[np.ndarray]] = {name: [] for name in self.languages}
        for column, rows in self.kept.values():
            own[column.language].append(self.columns.normal(column)[rows])
        return {name: len(np.unique(np.concatenate(parts))) if parts else 0 for name, parts in own.items()}

    def total(self, split: str) -> dict[str, int]:
        """The counts of all language pairs of a split together."""
        own = [found for (name, _), found in self.counts.items() if name == split]
        return {
            "pairs": sum(found.kept > 0 for found in own),
            "read": sum(found.read for found in own),
            **{name: sum(found.removed[name] for found in own) for name in FILTERS},
            "kept": sum(found.kept for found in own),
        }

    def table(self) -> str:
        """The counts of each language pair, as a TSV table with a line of names."""
        rows: list[tuple[str, ...]] = [("pair", "split", "read", *FILTERS, "kept")]
        for (split, pair), found in self.counts.items():
            rows.append(("-".join(pair), split, *map(str, (found.read, *found.removed.values(), found.kept))))
        return "".join("\t".join(row) + "\n" for row in rows)


def _write_text(path: Path, parts: Sequence[tuple[ParallelText, Column, Rows]]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for text, column, rows in parts:
            start = 0
            for block in lines_of(text, column):
                file.writelines(f"{block[number]}\n" for number in np.flatnonzero(rows[start : start + len(block)]))
                start += len(block)
