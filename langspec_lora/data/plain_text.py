"""Converts tokens to plain text: undoes SentencePiece as fairseq does, and also decodes its byte tokens.

A SentencePiece model with byte fallback writes characters without a piece as bytes: ``ö`` becomes ``<0xC3> <0xB6>``.
fairseq leaves these as they are.
"""

# Imports in functions: fairseq takes seconds.

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fairseq.data import Dictionary
    from torch import Tensor

_BYTES = re.compile(r"(?<!\S)(<0x[0-9A-F]{2}>(?: <0x[0-9A-F]{2}>)*)(?!\S)")
_EACH_BYTE = "langspec_lora.each_byte"


def _replace_each_byte(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "\ufffd" * (error.end - error.start), error.end


codecs.register_error(_EACH_BYTE, _replace_each_byte)


def plain_text(dictionary: Dictionary, tokens: Tensor, remove_bpe: str | None, **options: Any) -> str:
    """Converts a sentence to text on one line.

    Args:
        dictionary: the dictionary of the tokens.
        tokens: ids, ``(length,)`` int.
        remove_bpe: the value of fairseq's ``--remove-bpe``.
        **options: for ``fairseq.data.Dictionary.string``.

    Returns:
        The result of ``Dictionary.string``; with ``sentencepiece``, bytes are decoded to characters. Each byte that is
        not valid UTF-8 becomes U+FFFD, as in SentencePiece.
    """
    from fairseq.data.data_utils import post_process

    if remove_bpe != "sentencepiece":
        return dictionary.string(tokens, remove_bpe, **options)
    pieces = dictionary.string(tokens, **options)
    parts = _BYTES.split(pieces)  # every second part is bytes
    if len(parts) == 1:
        return post_process(pieces, remove_bpe)
    parts[::2] = (part.replace(" ", "").replace("\u2581", " ") for part in parts[::2])
    parts[1::2] = (_characters(part) for part in parts[1::2])
    return "".join(parts).strip()


def _characters(pieces: str) -> str:
    data = bytes(int(piece[3:5], 16) for piece in pieces.split())
    text = data.decode(errors=_EACH_BYTE)
    return text.replace("\n", " ").replace("\r", " ")  # one sentence, one line
