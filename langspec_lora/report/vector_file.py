"""Scores of resamples, kept from one report to the next: thousands of numbers for each direction, in a binary file.

The file begins with :data:`_MAGIC`. Records follow, each a key of 16 bytes, the number of its values (4 bytes, little
endian), the values as single-precision numbers, and a digest of all that. New records are put at the end. What follows
a damaged record, such as one whose writer was killed, is ignored and written over.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from langspec_lora.errors import UserError

_MAGIC = b"langspec_lora resamples 1\n"
_KEY, _COUNT, _DIGEST = 16, 4, 8  # bytes
_UNSAVED_AT_MOST = 32 * 2**20  # bytes of records that wait to be written


class VectorFile:
    """Vectors of single-precision numbers by key, 32 hexadecimal digits; a missing or damaged file counts as empty.

    Only the keys are held in memory. Where the file cannot be written, all of it is.

    Attributes:
        trouble: why the file could not be written, if that failed.
    """

    def __init__(self, path: Path) -> None:
        self._path, self.trouble = path, ""
        self._places: dict[str, tuple[int, int]] = {}  # where the record of each key begins, and its length
        self._unsaved: dict[str, bytes] = {}
        self._unsaved_size = 0
        self._damaged_from: int | None = 0  # what follows is written over
        try:
            self._index()
        except OSError:
            self._places = {}

    def __contains__(self, key: str) -> bool:
        return key in self._places or key in self._unsaved

    def __iter__(self) -> Iterator[str]:
        return iter({**self._places, **self._unsaved})

    def __getitem__(self, key: str) -> NDArray:
        """The values of a key.

        Raises:
            UserError: another program has changed the file meanwhile.
        """
        record = self._unsaved.get(key)
        if record is None:
            start, length = self._places[key]
            try:
                with self._path.open("rb") as file:
                    file.seek(start)
                    record = file.read(length)
            except OSError:
                record = b""
            if _checked_key(record) != key:
                raise UserError(f"{self._path} was changed while it was read; run the command again")
        return np.frombuffer(record, "<f4", (len(record) - _KEY - _COUNT - _DIGEST) // 4, _KEY + _COUNT)

    def add(self, key: str, values: NDArray) -> None:
        """Adds a vector, and saves now and then."""
        content = bytes.fromhex(key) + len(values).to_bytes(_COUNT, "little") + values.astype("<f4").tobytes()
        self._unsaved[key] = content + _digest(content)
        self._unsaved_size += len(self._unsaved[key])
        if self._unsaved_size > _UNSAVED_AT_MOST and not self.trouble:
            self.save()

    def save(self) -> None:
        """Writes what was added. A report is worth having without it, so a full disk is remembered and not raised."""
        if not self._unsaved:
            return
        content = b"".join(self._unsaved.values())
        try:
            # Opened for appending, so that two reports at a time do not write over each other.
            with self._path.open("ab") as file:
                if self._damaged_from is not None:
                    file.truncate(self._damaged_from)
                whole = file.seek(0, os.SEEK_END)
                try:
                    file.write(content if whole else _MAGIC + content)
                    file.flush()
                except OSError:
                    file.truncate(whole)
                    raise
                place = file.tell() - len(content)
                self._damaged_from = None
        except OSError as error:
            self.trouble = f"{self._path}: {error.strerror}"
            if self._path.is_file() and not self._path.stat().st_size:
                self._path.unlink()
            return
        for key, record in self._unsaved.items():
            self._places[key] = place, len(record)
            place += len(record)
        self._unsaved, self._unsaved_size, self.trouble = {}, 0, ""

    def _index(self) -> None:
        """Finds the records of the file, as far as they are whole."""
        with self._path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if file.read(len(_MAGIC)) != _MAGIC:
                return
            place = len(_MAGIC)
            while len(head := file.read(_KEY + _COUNT)) == _KEY + _COUNT:
                rest = 4 * int.from_bytes(head[_KEY:], "little") + _DIGEST
                key = _checked_key(head + file.read(rest)) if rest <= size - place else None
                if key is None:
                    break
                self._places[key] = place, len(head) + rest
                place += len(head) + rest
            self._damaged_from = None if place == size else place


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST).digest()


def _checked_key(record: bytes) -> str | None:
    """The key of a record; None if it is not whole."""
    content = record[:-_DIGEST]
    return content[:_KEY].hex() if content and _digest(content) == record[-_DIGEST:] else None
