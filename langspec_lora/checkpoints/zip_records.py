"""The records of a torch file, which is a zip archive: their sizes, and whether their checksums are right.

``torch.load`` does not compare the checksums that ``torch.save`` writes, so it takes a damaged number for a number.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

import torch

from langspec_lora.errors import UserError

_BLOCK = 1 << 20
_Version = tuple[int, ...]
_checked: dict[_Version, set[str]] = {}
"""Records whose checksums were right, by what tells versions of a file apart."""


class ZipRecords:
    """The records of an open torch file.

    Args:
        file: the file.

    Attributes:
        have_sums: whether the file has checksums: torch can be told to leave them out, and then writes zeros.

    Raises:
        zipfile.BadZipFile: it is no archive, or one that torch reads differently.
        RuntimeError: torch cannot read it.
    """

    def __init__(self, file: BinaryIO) -> None:
        file.seek(0)
        self._torch = torch._C.PyTorchFileReader(file)
        self._archive = zipfile.ZipFile(file)
        self._records = {entry.filename.partition("/")[2]: entry for entry in self._archive.infolist()}
        # Two readers can find different contents in a crafted file.
        if len(self._records) != len(self._archive.infolist()) or set(self._records) != set(
            self._torch.get_all_records()
        ):
            raise zipfile.BadZipFile("its records are not clear")
        self.have_sums = any(entry.CRC for entry in self._records.values())

    def __contains__(self, name: str) -> bool:
        return name in self._records

    def size(self, name: str) -> int:
        """The size of a record in bytes.

        Raises:
            KeyError: there is no such record.
        """
        return self._records[name].file_size

    def read(self, name: str) -> bytes:
        """The content of a record, as torch's reader finds it.

        Raises:
            zipfile.BadZipFile: it is damaged.
            RuntimeError: torch cannot read it.
        """
        content = self._torch.get_record(name)
        if self.have_sums and zlib.crc32(content) != self._records[name].CRC:
            raise zipfile.BadZipFile(f"the checksum of {name} is wrong")
        return content

    def check(self, name: str) -> None:
        """Reads a record, some of it at a time.

        Raises:
            zipfile.BadZipFile: it is damaged.
            KeyError: there is no such record.
        """
        with self._archive.open(self._records[name]) as record:
            while record.read(_BLOCK):
                pass

    def names(self) -> list[str]:
        """The names of all records."""
        return list(self._records)


def check_sums(path: str | Path, storages: Collection[str] | None = None) -> None:
    """Compares the checksums of a checkpoint; each record once in a process, until the file changes.

    Files in torch's old format (before torch 1.6) have no checksums, nor have those for which
    ``torch.serialization.set_crc32_options(False)`` was called.

    Args:
        path: a file that :func:`~langspec_lora.checkpoints.safe_pickle.read_pickle` has read.
        storages: keys of the storages to read; None for the whole file.

    Raises:
        UserError: a record is damaged, or the file cannot be read.
    """
    if storages is not None and not storages:
        return
    try:
        with Path(path).open("rb") as file:
            if file.read(4) != b"PK\x03\x04":
                return
            found = os.fstat(file.fileno())
            done = _checked.setdefault((found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns), set())
            records = ZipRecords(file)
            if not records.have_sums:
                return
            names = records.names() if storages is None else [f"data/{key}" for key in storages]
            for name in names:
                if name not in done:
                    records.check(name)
                    done.add(name)
    except OSError as error:
        raise UserError(f"checkpoint {path} cannot be read: {error.strerror}") from error
    except Exception as error:  # zipfile and zlib raise many kinds for damaged archives
        raise UserError(
            f"checkpoint {path} is damaged: a checksum is wrong ({' '.join(str(error).split())[:80]}); download it "
            "again, or use an earlier checkpoint"
        ) from error
