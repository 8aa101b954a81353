"""The indices of binarised data: sizes read from the files directly, before a model is built, and written."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from langspec_lora.errors import UserError
from langspec_lora.files import once_per_file

_MAGIC = b"MMIDIDX\x00\x00"  # fairseq/data/indexed_dataset.py, MMapIndexedDataset
_VERSION = 1
_OTHER_FORMATS = (b"TNTIDX\x00\x00", b"HUFFIDX\x00")  # likewise, IndexedDataset and HuffmanMMapIndex
_TOKEN_BYTES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    8: 2,
    9: 4,
    10: 8,
}  # by the code in the header; others are not integers
_CODES = {np.dtype(np.uint16): 8, np.dtype(np.uint32): 9, np.dtype(np.int64): 5}
_HEADER = struct.Struct("<9sQBQ")
_LENGTH, _OFFSET = np.dtype(np.int32), np.dtype(np.int64)  # in tokens, in bytes
_TOKENS_AT_ONCE = _SENTENCES_AT_ONCE = 1 << 24


def write_index(path: Path, dtype: type[np.integer], sizes: np.ndarray) -> None:
    """Writes the index of a side, as fairseq does, which makes a list of Python's numbers of it first.

    Args:
        path: the ``.idx`` file.
        dtype: the type of the ids in the ``.bin`` file.
        sizes: the number of tokens of each sentence, ``(sentences,)``.
    """
    token = np.dtype(dtype)
    ends = np.cumsum(sizes, dtype=_OFFSET) * token.itemsize
    with path.open("wb") as file:
        file.write(_HEADER.pack(_MAGIC, _VERSION, _CODES[token], len(sizes)))
        file.write(sizes.astype(_LENGTH).tobytes())
        file.write((ends - sizes.astype(_OFFSET) * token.itemsize).tobytes())


@once_per_file(".idx", ".bin")
def count_sentences(prefix: str) -> int | None:
    """Counts the sentences of one side.

    Args:
        prefix: path of the side, such as ``data-bin/train.en-fr.en``, without ``.bin`` and ``.idx``.

    Returns:
        Their number; None if the data are not in fairseq's ``mmap`` format.

    Raises:
        UserError: the index is in no format of fairseq's; a file is shorter or longer than the header says; or the
            index does not divide the data into sentences that follow each other.
    """
    index, data = Path(f"{prefix}.idx"), Path(f"{prefix}.bin")
    with index.open("rb") as file:
        header = file.read(_HEADER.size)
    if header.startswith(_OTHER_FORMATS):
        return None
    if len(header) < _HEADER.size:
        raise _damaged(index)
    magic, version, code, count = _HEADER.unpack(header)
    if magic != _MAGIC or version != _VERSION or code not in _TOKEN_BYTES:
        raise UserError(f"{index} is in an unknown format; binarise that side again")
    if index.stat().st_size != _HEADER.size + count * (_LENGTH.itemsize + _OFFSET.itemsize):
        raise _damaged(index)
    end = 0  # of the sentences so far, in bytes
    for start in range(0, count, _SENTENCES_AT_ONCE):
        some = min(_SENTENCES_AT_ONCE, count - start)
        place = _HEADER.size + count * _LENGTH.itemsize + start * _OFFSET.itemsize
        lengths = np.fromfile(index, _LENGTH, some, offset=_HEADER.size + start * _LENGTH.itemsize)
        bounds = end + np.append(0, np.cumsum(lengths.astype(_OFFSET) * _TOKEN_BYTES[code]))
        if lengths.min() < 0 or not np.array_equal(np.fromfile(index, _OFFSET, some, offset=place), bounds[:-1]):
            raise _damaged(index, "its sentences do not follow each other")
        end = int(bounds[-1])
    if data.stat().st_size != end:
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


def _damaged(path: Path, why: str = "its size does not match its header") -> UserError:
    return UserError(f"{path} is damaged: {why}; binarise that side again")
