"""Writes the binarised folder from columns that are encoded: each distinct side once, and links with its names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from langspec_lora.data.binarise import SHARED, Summary, link
from langspec_lora.data.encoding import SideWriter
from langspec_lora.data.own_text.columns import Columns
from langspec_lora.data.own_text.text_files import Column


@dataclass
class Sides:
    """The sides that were written.

    Attributes:
        folder: the binarised folder.
        columns: the lines.
        entries: the size of the dictionary.
        unknown_id: the id of unknown tokens.
    """

    folder: Path
    columns: Columns
    entries: int
    unknown_id: int

    def __post_init__(self) -> None:
        (self.folder / SHARED).mkdir(parents=True)
        self._known: dict[tuple, str] = {}
        self._stems: set[str] = set()
        self._names = self._sentences = self._tokens = self._unknown = 0

    @property
    def summary(self) -> Summary:
        """What the folder holds."""
        return Summary(len(self._stems), self._names, self._sentences, self._tokens, self._unknown)

    def add(
        self, split: str, pair: tuple[str, str], parts: Sequence[tuple[Column, Column]], rows: Sequence[np.ndarray]
    ) -> tuple[str, str]:
        """Writes both sides of a language pair, if they are new, and their names.

        Args:
            split: ``train``, ``valid`` or ``test``.
            pair: both languages.
            parts: the columns of the first and the second language, text by text.
            rows: which lines of each text, ``(lines,)`` bool.

        Returns:
            The names of both sides: equal ones are the same lines.
        """
        stems = []
        masks = [hashlib.blake2b(np.packbits(mask).tobytes(), digest_size=16).digest() for mask in rows]
        for side, language in enumerate(pair):
            columns = [part[side] for part in parts]
            key = (
                split,
                language,
                *((self.columns.number(one), mask) for one, mask in zip(columns, masks, strict=True)),
            )
            if key not in self._known:
                self._known[key] = self._write(split, language, columns, rows)
            stems.append(self._known[key])
            for end in ("bin", "idx"):
                name = self.folder / f"{split}.{pair[0]}-{pair[1]}.{language}.{end}"
                link(self.folder / SHARED / f"{stems[side]}.{end}", name)
            self._names += 1
        return stems[0], stems[1]

    def _write(self, split: str, language: str, columns: Sequence[Column], rows: Sequence[np.ndarray]) -> str:
        digest = hashlib.blake2b(digest_size=8)
        for column, mask in zip(columns, rows, strict=True):
            digest.update(self.columns.exact(column)[mask].tobytes())
        stem = f"{split}.{language}.{digest.hexdigest()}"
        if stem in self._stems:
            return stem
        self._stems.add(stem)
        with SideWriter(self.folder / SHARED / stem, self.entries) as side:
            for column, mask in zip(columns, rows, strict=True):
                for ids, sizes in self.columns.sentences(column, mask):
                    side.add(ids, sizes)
                    self._sentences += len(sizes)
                    self._tokens += len(ids)
                    self._unknown += int((ids == self.unknown_id).sum())
        return stem

    def add_files(self, files: Iterable[tuple[str, Path]]) -> None:
        """Copies files into ``shared/`` and links names to them."""
        for name, path in files:
            shared = self.folder / SHARED / path.name
            if not shared.exists():
                shared.write_bytes(path.read_bytes())
            link(shared, self.folder / name)
