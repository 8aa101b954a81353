"""What a SentencePiece model file says about how it splits text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from langspec_lora.errors import UserError

try:
    from google.protobuf.message import DecodeError
    from sentencepiece.sentencepiece_model_pb2 import ModelProto, TrainerSpec
except Exception as error:  # each protobuf has its own way to refuse classes of another one
    raise UserError(
        f"the installed sentencepiece and protobuf do not fit ({' '.join(str(error).split())[:200]}); "
        "run pip install --upgrade sentencepiece protobuf"
    ) from error

UNIGRAM, BPE, WORD, CHAR = TrainerSpec.UNIGRAM, TrainerSpec.BPE, TrainerSpec.WORD, TrainerSpec.CHAR
"""Types of models."""

_Piece = ModelProto.SentencePiece


@dataclass(frozen=True)
class Pieces:
    """How a SentencePiece model splits text.

    Attributes:
        scores: the score of each piece of text.
        byte_pieces: the pieces for single bytes, which spell unknown characters; empty without byte fallback.
        user_defined: the pieces that are never split, whatever surrounds them.
        model_type: :data:`UNIGRAM`, :data:`BPE`, :data:`WORD` or :data:`CHAR`.
        character_map: how text is normalised, in SentencePiece's binary form; empty if it is not.
        adds_space: whether a space is put before a text.
        merges_spaces: whether runs of spaces become one space, and spaces at the ends are dropped.
        marks_spaces: whether a space is written as U+2581, before the word that follows it.
    """

    scores: Mapping[str, float]
    byte_pieces: tuple[str, ...]
    user_defined: tuple[str, ...]
    model_type: int
    character_map: bytes
    adds_space: bool
    merges_spaces: bool
    marks_spaces: bool


def read_pieces(content: bytes, label: str = "the SentencePiece model") -> Pieces:
    """Reads a SentencePiece model.

    Args:
        content: the bytes of the file.
        label: the file, for messages.

    Raises:
        UserError: the file is damaged.
    """
    model = ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise UserError(f"{label} is damaged: it is not a SentencePiece model; download it again") from error
    normalizer = model.normalizer_spec

    def names(piece_type: int) -> tuple[str, ...]:
        return tuple(piece.piece for piece in model.pieces if piece.type == piece_type)

    return Pieces(
        {piece.piece: piece.score for piece in model.pieces if piece.type == _Piece.NORMAL},
        names(_Piece.BYTE),
        names(_Piece.USER_DEFINED),
        model.trainer_spec.model_type,
        normalizer.precompiled_charsmap,
        normalizer.add_dummy_prefix,
        normalizer.remove_extra_whitespaces,
        normalizer.escape_whitespaces and not model.trainer_spec.treat_whitespace_as_suffix,
    )
