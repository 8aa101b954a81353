"""Compares a tokenizer, on invented text, with the SentencePiece model and the dictionary that it replaces."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor

from langspec_lora.convert.hf.fast_tokenizer import NoTokenizer

_LINES = 1000
_MARKS = "\u0300\u0301\u0308\u0323\u064b\u0651\u093c\u0e33\u3099\u11a8\u1161\u200d\ufe0f"
_OTHERS = "\ufb01\uff21\u00bd\u3000\t\u0085\u2028 "


def check_against(tokenizer: Any, spm: Path, tokens: Sequence[str], language_token: str | None) -> None:
    """Checks that a tokenizer gives the same ids as SentencePiece and fairseq's dictionary.

    Args:
        tokenizer: a ``tokenizers.Tokenizer``.
        spm: the SentencePiece model.
        tokens: the tokens by id.
        language_token: the token that it puts before each text, or None.

    Raises:
        NoTokenizer: the ids of a text differ.
    """
    processor = SentencePieceProcessor(model_file=str(spm))
    ids = {token: number for number, token in enumerate(tokens)}
    before = [] if language_token is None else [ids[language_token]]
    tokenizer.encode_special_tokens = True
    for text in _texts(tokens):
        # fairseq splits the line of pieces at whitespace.
        pieces = " ".join(processor.encode(text, out_type=str)).split()
        expected = [*before, *(ids.get(piece, ids["<unk>"]) for piece in pieces), ids["</s>"]]
        if tokenizer.encode(text).ids != expected:
            raise NoTokenizer(f"the library splits {text!r} differently")
    tokenizer.encode_special_tokens = False


def _texts(tokens: Sequence[str]) -> Iterator[str]:
    yield from ("", " ", "  a  b  ")
    draw = random.Random(1)
    characters = sorted({character for token in tokens for character in token})
    for token in tokens if len(tokens) < _LINES else draw.sample(list(tokens), _LINES):
        yield f"{draw.choice(characters)}{token}{draw.choice(characters)}{token}"
    for _ in range(_LINES):
        choices = [tokens, characters, _MARKS, _OTHERS]
        yield "".join(draw.choice(draw.choice(choices)).replace("\u2581", " ") for _ in range(draw.randint(1, 12)))
