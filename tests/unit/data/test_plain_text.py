"""Tokens as text, against SentencePiece's own decoder and fairseq's."""

from __future__ import annotations

import io
import random

import pytest
import sentencepiece
import torch
from fairseq.data import Dictionary

from langspec_lora.data.plain_text import plain_text

TEXT = ["the bourse is a place to trade", "a fine day at the place", "trade a day"] * 40 + ["日本 börse"]


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def processor(request) -> sentencepiece.SentencePieceProcessor:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT),
        model_writer=model,
        vocab_size=310,
        model_type=request.param,
        byte_fallback=True,
        hard_vocab_limit=request.param == "bpe",
        character_coverage=0.998,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


@pytest.fixture(scope="module")
def dictionary(processor) -> Dictionary:
    dictionary = Dictionary()
    for number in range(3, processor.get_piece_size()):
        dictionary.add_symbol(processor.id_to_piece(number))
    return dictionary


def tokens(dictionary: Dictionary, pieces: list[str]) -> torch.Tensor:
    return dictionary.encode_line(" ".join(pieces), add_if_not_exist=False)


@pytest.mark.parametrize("line", ["Börse ✓ 日本", "x\u2581y 🙂 z", "ABC", "a\u0430b", "B"])
def test_bytes_of_sentencepiece_are_decoded(processor, dictionary, line) -> None:
    pieces = processor.encode(line, out_type=str)
    assert any(piece.startswith("<0x") for piece in pieces)
    assert plain_text(dictionary, tokens(dictionary, pieces), "sentencepiece") == processor.decode(pieces)


def test_pieces_are_decoded_as_by_sentencepiece(processor, dictionary) -> None:
    draw = random.Random(4)
    words = [piece for piece in dictionary.symbols[4:] if not piece.startswith("<0x") and piece != "\u2581"]
    letters = [f"<0x{byte:02X}>" for byte in "aß日🙂".encode()]
    for _ in range(3000):
        some = [f"<0x{draw.randrange(256):02X}>", draw.choice(letters), draw.choice(letters), draw.choice(words)]
        pieces = draw.choices(some, k=draw.randint(1, 12))
        expected = processor.decode(pieces).replace("\n", " ").replace("\r", " ").strip()
        assert plain_text(dictionary, tokens(dictionary, pieces), "sentencepiece") == expected


def test_a_line_feed_written_as_a_byte_does_not_end_the_line(dictionary) -> None:
    pieces = ["\u2581a", "<0x0A>", "<0x0D>", "a", "<0x0A>"]
    assert plain_text(dictionary, tokens(dictionary, pieces), "sentencepiece") == "a  a"


def test_without_bytes_the_text_is_fairseqs(dictionary) -> None:
    draw = random.Random(5)
    words = [piece for piece in dictionary.symbols if not piece.startswith("<0x")]
    for _ in range(300):
        ids = torch.tensor([dictionary.index(piece) for piece in draw.choices(words, k=9)])
        for remove_bpe in ("sentencepiece", "@@ ", None):
            for escape in (True, False):
                expected = dictionary.string(ids, remove_bpe, escape_unk=escape)
                assert plain_text(dictionary, ids, remove_bpe, escape_unk=escape) == expected


def test_bytes_are_kept_if_sentencepiece_is_not_undone(dictionary) -> None:
    ids = tokens(dictionary, ["\u2581a", "<0x41>"])
    assert plain_text(dictionary, ids, None) == "\u2581a <0x41>"


def test_a_word_in_pieces_that_looks_like_a_byte_is_not_decoded(dictionary) -> None:
    for symbol in ("<0x", "41>", "<0x41>b"):
        dictionary.add_symbol(symbol)
    ids = tokens(dictionary, ["<0x", "41>", "<0x41>b", "<0x41>"])
    assert plain_text(dictionary, ids, "sentencepiece") == "<0x41><0x41>bA"
