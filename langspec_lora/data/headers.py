"""What binarised data hold, read from the headers of their files, before a model is built for them."""

from __future__ import annotations

import struct
from pathlib import Path

from langspec_lora.errors import UserError

_MAGIC = b"MMIDIDX\x00\x00"  # fairseq/data/indexed_dataset.py, MMapIndexedDataset
_TOKEN_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 8, 7: 8, 8: 2, 9: 4, 10: 8}  # by the code in the header
_HEADER = struct.Struct("<9sQBQ")


def count_sentences(prefix: str) -> int | None:
    """Counts the sentences of one side.

    Args:
        prefix: path of the side, such as ``data-bin/train.en-fr.en``, without ``.bin`` and ``.idx``.

    Returns:
        Their number; None where the data are in another format than fairseq's ``mmap``.

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
        if index.stat().st_size != _HEADER.size + count * (4 + 8):  # each sentence's length and its place
            raise _damaged(index)
        if not count:
            return 0
        file.seek(_HEADER.size + 4 * (count - 1))
        (length,) = struct.unpack("<i", file.read(4))
        file.seek(-8, 2)
        (place,) = struct.unpack("<q", file.read(8))
    if data.stat().st_size != place + length * _TOKEN_BYTES.get(code, 0):
        raise _damaged(data)
    return count


def _damaged(path: Path) -> UserError:
    return UserError(f"{path} is damaged: it is shorter or longer than it should be; binarise that side again")
