"""A SentencePiece model as a tokenizer of the library ``tokenizers``, with fairseq's ids.

The fields are those of sentencepiece_model.proto; read here, since the package that reads them in general (protobuf) is
needed for nothing else.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langspec_lora.checkpoints.huggingface.files import optional_module
from langspec_lora.checkpoints.huggingface.vocabulary import SPECIALS

_UNIGRAM, _BPE = 1, 2
_NORMAL, _USER_DEFINED = 1, 4  # kinds of pieces that stand for text


@dataclass(frozen=True)
class Pieces:
    """What of a SentencePiece model decides how text is split.

    Attributes:
        scores: of the pieces that stand for text.
        kind: 1 for a unigram model, 2 for BPE.
        character_map: how text is normalised, in SentencePiece's own form; empty where it is not.
        is_plain: whether it has only settings that can be written for ``tokenizers``.
    """

    scores: Mapping[str, float]
    kind: int
    character_map: bytes
    is_plain: bool

    @property
    def is_bpe(self) -> bool:
        """Whether it is a BPE model."""
        return self.kind == _BPE


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


def read_pieces(model: Path) -> Pieces:
    """Reads a SentencePiece model, which has been loaded before and so is whole."""
    scores: dict[str, float] = {}
    trainer: dict[int, Any] = {}
    normaliser: dict[int, Any] = {}
    for number, value in _fields(model.read_bytes()):
        if number == 1:
            piece = dict(_fields(value))
            if piece.get(3, _NORMAL) in (_NORMAL, _USER_DEFINED):
                scores[piece[1].decode()] = struct.unpack("<f", piece.get(2, bytes(4)))[0]
        elif number == 2:
            trainer = dict(_fields(value))
        elif number == 3:
            normaliser = dict(_fields(value))
    kind = trainer.get(3, _UNIGRAM)
    defaults = (
        normaliser.get(3, 1) and normaliser.get(4, 1) and normaliser.get(5, 1)
    )  # prefix, extra and escaped spaces
    is_plain = kind in (_UNIGRAM, _BPE) and bool(defaults) and not trainer.get(24, 0) and not trainer.get(35, 0)
    return Pieces(scores, kind, normaliser.get(2, b""), is_plain)


def build_tokenizer(pieces: Pieces, tokens: Sequence[str], source: str | None) -> Any:
    """Builds a tokenizer that splits text as the SentencePiece model does.

    Args:
        pieces: the model.
        tokens: the tokens by id.
        source: the language token to put before each text, or None.

    Returns:
        A ``tokenizers.Tokenizer``; each text ends with ``</s>``.
    """
    library = optional_module("tokenizers")
    own = [token for token in tokens if token not in pieces.scores]
    if pieces.kind == _UNIGRAM:
        lowest = min(pieces.scores.values())
        scored = [(token, pieces.scores.get(token, lowest)) for token in tokens]
        model = library.models.Unigram(scored, unk_id=tokens.index("<unk>"))
    else:
        ids = {token: number for number, token in enumerate(tokens)}
        model = library.models.BPE(ids, _merges(pieces.scores, ids), unk_token="<unk>", fuse_unk=True)
    tokenizer = library.Tokenizer(model)
    spaces = library.Regex(" {2,}")
    steps = [library.normalizers.Precompiled(pieces.character_map)] if pieces.character_map else []
    steps += [library.normalizers.Replace(spaces, " "), library.normalizers.Strip()]
    tokenizer.normalizer = library.normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = library.pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    tokenizer.decoder = library.decoders.Metaspace(prepend_scheme="always", split=False)
    special = [token for token in own if token in SPECIALS or token.startswith("__")]
    tokenizer.add_special_tokens([library.AddedToken(token, normalized=False, special=True) for token in special])
    single = ["$A", "</s>"] if source is None else [source, "$A", "</s>"]
    named = [(token, tokens.index(token)) for token in single if token != "$A"]
    tokenizer.post_processor = library.processors.TemplateProcessing(single=single, special_tokens=named)
    return tokenizer


def _merges(scores: Mapping[str, float], ids: Mapping[str, int]) -> list[tuple[str, str]]:
    """The merges of a BPE model, the best first: SentencePiece joins the two pieces whose union has the best score."""
    merges = []
    for piece, score in scores.items():
        halves = ((piece[:cut], piece[cut:]) for cut in range(1, len(piece)))
        merges += [(-score, left, right) for left, right in halves if left in scores and right in scores]
    merges.sort(key=lambda merge: merge[0])
    return [(left, right) for _, left, right in merges if left + right in ids and left in ids and right in ids]
