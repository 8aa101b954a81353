"""What is known of each line of each column: two hashes, and later its tokens; kept in files, 8 bytes a hash.

One hash is of the line, to find exact duplicates. The other is of its normal form, so that a held-out sentence is
found in the training text although its case, its spaces or the width of its characters differ.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from langspec_lora.data.encoding import Encoder, dtype_of
from langspec_lora.data.own_text.lines import read_blocks, read_table_blocks
from langspec_lora.data.own_text.text_files import Column, ParallelText
from langspec_lora.errors import UserError, collect_errors
from langspec_lora.progress import Progress

EMPTY = 0
"""The hash of a line without a sentence."""

_CACHE = 1 << 28  # bytes
_AT_ONCE = 1 << 18  # sentences


def normal_form(line: str) -> str:
    """A line as it is compared with held-out text: Unicode NFKC, without case, one space between words."""
    text = line if line.isascii() else unicodedata.normalize("NFKC", line)
    return " ".join(text.casefold().split())


def hashes_of(lines: Iterable[str]) -> np.ndarray:
    """A 64-bit hash of each line, the same in every process; :data:`EMPTY` for one that is empty."""
    blake = hashlib.blake2b
    content = b"".join(blake(line.encode(), digest_size=8).digest() if line else b"\0" * 8 for line in lines)
    return np.frombuffer(content, dtype=np.uint64)


class Columns:
    """The lines of all columns, as numbers.

    Args:
        folder: holds the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers: dict[tuple[Path, int | None], int] = {}
        self._lines: dict[int, int] = {}
        self._cache: OrderedDict[tuple[str, int], np.ndarray] = OrderedDict()
        self._cached_bytes = 0
        self._held: dict[str, np.ndarray] = {}
        self._dtype: type[np.integer] = np.uint32

    def measure(self, texts: Iterable[ParallelText]) -> None:
        """Reads all texts once.

        Raises:
            UserError: a file is not as expected, or the columns of a text differ in length; all mistakes are listed.
        """
        with collect_errors() as errors:
            for text in Progress(list(texts), desc="reading", unit="text", disable=None, leave=False):
                with errors.check():
                    self._measure(text)

    def _measure(self, text: ParallelText) -> None:
        for columns in _by_file(text):
            missing = [column for column in columns if (column.path, column.number) not in self._numbers]
            if not missing:
                continue
            found: list[list[list[np.ndarray]]] = [[[], []] for _ in missing]
            for blocks in _blocks(text, missing):
                for parts, lines in zip(found, blocks, strict=True):
                    parts[0].append(hashes_of(lines))
                    parts[1].append(hashes_of(map(normal_form, lines)))
            for column, (exact, normal) in zip(missing, found, strict=True):
                number = len(self._numbers)
                self._store("exact", number, exact)
                self._lines[number] = self._store("normal", number, normal)
                self._numbers[column.path, column.number] = number
        _check_lengths(text, self.lines)

    def _store(self, kind: str, number: int, parts: Sequence[np.ndarray]) -> int:
        with self._file(kind, number).open("wb") as file:
            for part in parts:
                file.write(part.tobytes())
        return sum(map(len, parts))

    def _file(self, kind: str, number: int) -> Path:
        return self._folder / f"{number}.{kind}"

    def number(self, column: Column) -> int:
        """A number that stands for the column's lines."""
        return self._numbers[column.path, column.number]

    def lines(self, column: Column) -> int:
        """How many lines a column has."""
        return self._lines[self.number(column)]

    def exact(self, column: Column) -> np.ndarray:
        """The hash of each line, ``(lines,)`` uint64."""
        return self._cached("exact", self.number(column), lambda: self._read("exact", column, np.uint64))

    def normal(self, column: Column) -> np.ndarray:
        """The hash of the normal form of each line, ``(lines,)`` uint64."""
        return self._cached("normal", self.number(column), lambda: self._read("normal", column, np.uint64))

    def hold_out(self, language: str, hashes: np.ndarray) -> None:
        """Adds sentences, by the hash of their normal form, to those that are held out."""
        self._held[language] = np.union1d(self.held_out(language), hashes[hashes != EMPTY])
        for key in [key for key in self._cache if key[0] == "held"]:
            self._cached_bytes -= self._cache.pop(key).nbytes

    def held_out(self, language: str) -> np.ndarray:
        """The hashes of a language's sentences that are held out, each once, sorted."""
        return self._held.get(language, np.zeros(0, dtype=np.uint64))

    def is_held_out(self, column: Column) -> np.ndarray:
        """Whether each line is a held-out sentence of its language, ``(lines,)`` bool; found once for all pairs."""
        return self._cached(
            "held", self.number(column), lambda: np.isin(self.normal(column), self.held_out(column.language))
        )

    def encode(self, texts: Iterable[ParallelText], encoder: Encoder) -> None:
        """Encodes all lines, each once."""
        self._dtype = dtype_of(len(encoder.vocabulary))
        done: set[int] = set()
        for text in Progress(list(texts), desc="encoding", unit="text", disable=None, leave=False):
            for columns in _by_file(text):
                missing = [column for column in columns if self.number(column) not in done]
                done.update(map(self.number, missing))
                for column in missing:  # one at a time: the files of 200 columns need not be open together
                    self._encode(text, column, encoder)

    def _encode(self, text: ParallelText, column: Column, encoder: Encoder) -> None:
        number = self.number(column)
        lines = 0
        with self._file("ids", number).open("wb") as ids, self._file("sizes", number).open("wb") as sizes:
            for (block,) in _blocks(text, [column]):
                tokens, lengths = encoder.encode(block)
                ids.write(tokens.astype(self._dtype).tobytes())
                sizes.write(lengths.tobytes())
                lines += len(block)
        if lines != self._lines[number]:
            raise UserError(f"{column.path} changed while it was read; run this again")

    def sizes(self, column: Column) -> np.ndarray:
        """The number of tokens of each line with end of sentence, ``(lines,)`` int32."""
        return self._cached("sizes", self.number(column), lambda: self._read("sizes", column, np.int32))

    def sentences(self, column: Column, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields the ids and sizes of some lines, a block of lines at a time.

        Args:
            column: the column.
            rows: which lines, ``(lines,)`` bool.
        """
        sizes = self.sizes(column)
        with self._file("ids", self.number(column)).open("rb") as file:
            for start in range(0, len(sizes), _AT_ONCE):
                some, chosen = sizes[start : start + _AT_ONCE], rows[start : start + _AT_ONCE]
                ids = np.fromfile(file, dtype=self._dtype, count=int(some.sum(dtype=np.int64)))
                yield (ids if chosen.all() else ids[np.repeat(chosen, some)]), some[chosen]

    def _read(self, kind: str, column: Column, dtype: type) -> np.ndarray:
        return np.fromfile(self._file(kind, self.number(column)), dtype=dtype)

    def _cached(self, kind: str, number: int, make: Callable[[], np.ndarray]) -> np.ndarray:
        key = (kind, number)
        if key not in self._cache:
            self._cache[key] = made = make()
            self._cached_bytes += made.nbytes
            while self._cached_bytes > _CACHE and len(self._cache) > 1:
                _, dropped = self._cache.popitem(last=False)
                self._cached_bytes -= dropped.nbytes
        self._cache.move_to_end(key)
        return self._cache[key]


def lines_of(text: ParallelText, column: Column) -> Iterator[list[str]]:
    """Yields the sentences of a column, a block at a time."""
    for (block,) in _blocks(text, [column]):
        yield block


def _blocks(text: ParallelText, columns: Sequence[Column]) -> Iterator[list[list[str]]]:
    """Yields the sentences of columns of one file, a block of lines at a time."""
    numbers = [column.number for column in columns if column.number is not None]
    if numbers:
        yield from read_table_blocks(columns[0].path, numbers, text.width, text.header)
    else:
        yield from ([block] for block in read_blocks(columns[0].path))


def _by_file(text: ParallelText) -> list[list[Column]]:
    files: dict[Path, list[Column]] = {}
    for column in text.columns:
        files.setdefault(column.path, []).append(column)
    return list(files.values())


def _check_lengths(text: ParallelText, lines: Callable[[Column], int]) -> None:
    counts = {column: lines(column) for column in text.columns}
    shorter, longer = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    if not counts[longer]:
        raise UserError(f"{longer.path}, line 1: the file is empty; expected one sentence per line")
    if counts[shorter] != counts[longer]:
        raise UserError(
            f"{shorter.path}, line {counts[shorter] + 1}: missing; the file has {counts[shorter]:,} lines, "
            f"{longer.path.name} has {counts[longer]:,}; line N of both files must be the same sentence"
        )
