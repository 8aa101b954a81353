"""Sizes of binarised data, read from the files directly, before a model is built."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from langspec_lora.errors import UserError
from langspec_lora.files import once_per_file

_MAGIC = b"MMIDIDX\x00\x00"  # fairseq/data/indexed_dataset.py, MMapIndexedDataset
_TOKEN_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 8, 7: 8, 8: 2, 9: 4, 10: 8}  # by the code in the header
_HEADER = struct.Struct("<9sQBQ")
_TOKENS_AT_ONCE = 1 << 24


@once_per_file(".idx", ".bin")
def count_sentences(prefix: str) -> int | None:
    """Counts the sentences of one side.

    Args:
        prefix: path of the side, such as ``data-bin/train.en-fr.en``, without ``.bin`` and ``.idx``.

    Returns:
        Their number; None if the data are not in fairseq's ``mmap`` format.

    Raises:
        UserError: a file is shorter or longer than its header says.
    """
    index, data = Path(f"{prefix}.idx"), Path(f"{prefix}.bin")
    with index.open("rb") as file:
        header = file.read(_HEADER.size)
        if header and not header.startswith(_MAGIC):
            return None
        if len(header) < _HEADER.size:
            raise _damaged(index)
        _, _, code, count = _HEADER.unpack(header)
        if index.stat().st_size != _HEADER.size + count * (4 + 8):  # the length and offset of each sentence
            raise _damaged(index)
        if not count:
            return 0
        file.seek(_HEADER.size + 4 * (count - 1))
        (length,) = struct.unpack("<i", file.read(4))
        file.seek(-8, 2)
        (offset,) = struct.unpack("<q", file.read(8))
    if data.stat().st_size != offset + length * _TOKEN_BYTES.get(code, 0):
        raise _damaged(data)
    return count


def sentence_lengths(prefix: str) -> np.ndarray:
    """The number of tokens in each sentence of a side, ``(sentences,)`` int32.

    Args:
        prefix: a side for which :func:`count_sentences` returned a number.
    """
    with Path(f"{prefix}.idx").open("rb") as file:
        *_, count = _HEADER.unpack(file.read(_HEADER.size))
        return np.fromfile(file, dtype=np.int32, count=count)


@once_per_file(".idx")
def longest_sentence(prefix: str) -> int:
    """The number of tokens in the longest sentence of a side, 0 for an empty one."""
    return int(sentence_lengths(prefix).max(initial=0))


@once_per_file(".bin")
def highest_id(prefix: str) -> int:
    """The highest token id of a side, -1 for an empty one; negative ids count as very high. All tokens are read."""
    with Path(f"{prefix}.idx").open("rb") as file:
        _, _, code, _ = _HEADER.unpack(file.read(_HEADER.size))
    if not Path(f"{prefix}.bin").stat().st_size:
        return -1
    tokens = np.memmap(f"{prefix}.bin", dtype=f"<u{_TOKEN_BYTES[code]}", mode="r")
    return max(int(tokens[start : start + _TOKENS_AT_ONCE].max()) for start in range(0, len(tokens), _TOKENS_AT_ONCE))


def _damaged(path: Path) -> UserError:
    return UserError(f"{path} is damaged: its size does not match its header; binarise that side again")
