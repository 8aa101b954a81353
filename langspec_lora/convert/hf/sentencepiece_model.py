"""What of a SentencePiece model file decides how text is split.

The fields are those of sentencepiece_model.proto; read here, since the package that reads them in general (protobuf) is
needed for nothing else.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

UNIGRAM, BPE, WORD, CHAR = 1, 2, 3, 4
"""Kinds of models."""

_NORMAL, _USER_DEFINED, _BYTE = 1, 4, 6  # kinds of pieces that stand for text


@dataclass(frozen=True)
class Pieces:
    """What of a SentencePiece model decides how text is split.

    Attributes:
        scores: of the pieces that stand for text.
        bytes: the pieces that stand for a byte of what the others do not hold; none without byte fallback.
        user_defined: the pieces that are kept whole, whatever stands around them.
        kind: 1 for a unigram model, 2 for BPE, 3 for words, 4 for characters.
        character_map: how text is normalised, in SentencePiece's own form; empty where it is not.
        adds_space: whether a space is put before a text.
        merges_spaces: whether several spaces are one, and none are at the ends.
        marks_spaces: whether a space is written as U+2581, and that before the word.
    """

    scores: Mapping[str, float]
    bytes: tuple[str, ...]
    user_defined: tuple[str, ...]
    kind: int
    character_map: bytes
    adds_space: bool
    merges_spaces: bool
    marks_spaces: bool


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Numbers and values of a message of protobuf's wire format."""
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = data[place]
            place, value, shift = place + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while place < len(data):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
            continue
        size = varint() if key & 7 == 2 else {1: 8, 5: 4}[key & 7]
        yield key >> 3, data[place : place + size]
        place += size


def read_pieces(model: bytes) -> Pieces:
    """Reads a SentencePiece model, which has been loaded before and so is whole."""
    texts: dict[int, dict[str, float]] = {_NORMAL: {}, _USER_DEFINED: {}, _BYTE: {}}
    trainer: dict[int, Any] = {}
    normaliser: dict[int, Any] = {}
    for number, value in _fields(model):
        if number == 1:
            piece = dict(_fields(value))
            if piece.get(3, _NORMAL) in texts:
                texts[piece.get(3, _NORMAL)][piece[1].decode()] = struct.unpack("<f", piece.get(2, bytes(4)))[0]
        elif number == 2:
            trainer = dict(_fields(value))
        elif number == 3:
            normaliser = dict(_fields(value))
    return Pieces(
        texts[_NORMAL],
        tuple(texts[_BYTE]),
        tuple(texts[_USER_DEFINED]),
        trainer.get(3, UNIGRAM),
        normaliser.get(2, b""),
        bool(normaliser.get(3, True)),
        bool(normaliser.get(4, True)),
        bool(normaliser.get(5, True)) and not trainer.get(24, False),
    )
