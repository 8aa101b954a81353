"""Turns lines into the ids of a dictionary, many at a time, and writes sides in fairseq's ``mmap`` format.

The ids are those of ``fairseq-preprocess`` after SentencePiece's own command. They are found without making a text of
each piece: SentencePiece's ids are mapped to the dictionary's.
"""

# Imports in functions: fairseq takes seconds.

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING

import numpy as np
from sentencepiece import SentencePieceProcessor

from langspec_lora.data.headers import write_index
from langspec_lora.data.vocabulary import load_splitter

if TYPE_CHECKING:
    from fairseq.data import Dictionary

_BY_TEXT = -1  # in the table of ids: look the piece's text up, as fairseq does


class Encoder:
    """Encodes lines.

    Args:
        vocabulary: the dictionary.
        spm_model: SentencePiece model that splits the lines; without it, tokens are separated by white space.

    Raises:
        UserError: the model is missing or damaged.
    """

    def __init__(self, vocabulary: Dictionary, spm_model: Path | None = None) -> None:
        self.vocabulary = vocabulary
        self._processor: SentencePieceProcessor | None = None
        if spm_model is not None:
            self._split = load_splitter(spm_model)
            self._processor = SentencePieceProcessor(model_file=str(spm_model))
            self._table = self._ids_of_pieces(self._processor)

    def _ids_of_pieces(self, processor: SentencePieceProcessor) -> np.ndarray:
        table = np.full(processor.get_piece_size(), _BY_TEXT, dtype=np.int64)
        for number in range(len(table)):
            # The text of an unknown piece is the line's own, and a control symbol never comes from text.
            if not (processor.is_unknown(number) or processor.is_control(number)):
                ids = self._by_text(processor.id_to_piece(number))
                table[number] = ids[0] if len(ids) == 1 else _BY_TEXT
        return table

    def _by_text(self, text: str) -> np.ndarray:
        return self.vocabulary.encode_line(text, add_if_not_exist=False, append_eos=False).numpy()

    def encode(self, lines: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Encodes lines.

        Returns:
            The ids of all lines one after the other, each with end of sentence, ``(tokens,)``, and the length of each,
            ``(lines,)`` int32.
        """
        if not lines:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int32)
        if self._processor is None:
            parts = [self._by_text(line) for line in lines]
            ids, sizes = np.concatenate(parts), np.array([len(part) for part in parts])
        else:
            ids, sizes = self._by_pieces(self._processor, lines)
        ends = np.cumsum(sizes + 1) - 1
        with_ends = np.empty(len(ids) + len(lines), dtype=np.int64)
        with_ends[ends] = self.vocabulary.eos()
        is_token = np.ones(len(with_ends), dtype=bool)
        is_token[ends] = False
        with_ends[is_token] = ids
        return with_ends, (sizes + 1).astype(np.int32)

    def _by_pieces(self, processor: SentencePieceProcessor, lines: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        pieces = processor.encode(list(lines), out_type=int)
        sizes = np.array([len(line) for line in pieces])
        ids = self._table[np.fromiter(chain.from_iterable(pieces), dtype=np.int64, count=sizes.sum())]
        if (ids >= 0).all():
            return ids, sizes
        ends = np.cumsum(sizes)
        parts = np.split(ids, ends[:-1])
        for number in np.unique(np.searchsorted(ends, np.flatnonzero(ids < 0), side="right")):
            parts[number] = self._by_text(self._split(lines[number]))
        return np.concatenate(parts), np.array([len(part) for part in parts])


class SideWriter:
    """Writes one side, ``PREFIX.bin`` and ``PREFIX.idx``, a few sentences at a time.

    Args:
        prefix: the path without the endings.
        entries: the size of the dictionary, which decides how many bytes an id takes.
    """

    def __init__(self, prefix: Path, entries: int) -> None:
        self._prefix = prefix
        self.dtype = dtype_of(entries)
        self._sizes: list[np.ndarray] = []
        self._file: IO[bytes]

    def __enter__(self) -> SideWriter:
        self._file = Path(f"{self._prefix}.bin").open("wb")
        return self

    def add(self, ids: np.ndarray, sizes: np.ndarray) -> None:
        """Adds sentences, as :meth:`Encoder.encode` returns them."""
        self._file.write(ids.astype(self.dtype, copy=False).tobytes())
        self._sizes.append(sizes)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
        if kind is None:
            sizes = np.concatenate(self._sizes) if self._sizes else np.zeros(0, dtype=np.int32)
            write_index(Path(f"{self._prefix}.idx"), self.dtype, sizes)


def dtype_of(entries: int) -> type[np.integer]:
    """The type of the ids in the files of a dictionary of so many entries."""
    from fairseq.data.indexed_dataset import best_fitting_int_dtype

    return best_fitting_int_dtype(entries)
