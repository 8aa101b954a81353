"""SentencePiece model files, written here byte by byte as sentencepiece_model.proto and protobuf's wire format say."""

from __future__ import annotations

import io
import runpy
import struct
import sys

import pytest

from langspec_lora.convert.hf import sentencepiece_model
from langspec_lora.convert.hf.sentencepiece_model import BPE, CHAR, UNIGRAM, WORD, read_pieces
from langspec_lora.errors import UserError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


class Fixed64(bytes):
    """Eight bytes that stand for themselves."""


def varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; all but the last byte have the highest bit."""
    parts = []
    while number > 127:
        parts.append(number % 128 + 128)
        number //= 128
    return bytes([*parts, number])


def field(number: int, value: object) -> bytes:
    if isinstance(value, int):
        return varint(number * 8 + 0) + varint(value)
    if isinstance(value, Fixed64):
        return varint(number * 8 + 1) + value
    if isinstance(value, float):
        return varint(number * 8 + 5) + struct.pack("<f", value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number * 8 + 2) + varint(len(content)) + content


def message(*fields: tuple[int, object]) -> bytes:
    return b"".join(field(*own) for own in fields)


UNKNOWN_FIELDS = ((1000, 300), (200, Fixed64(b"\xff\x01\x02\x03\x04\x05\x06\x88")), (17, 2.5), (99, b"later"))
"""Of a later version, one of each type."""


def test_pieces_of_text_have_their_kinds_and_scores() -> None:
    longest = {"x" * size: -float(size) for size in (63, 100, 119, 120, 127, 128, 129, 300)}
    pieces = [
        *(message((1, text), (2, -1.0), (3, kind)) for text, kind in (("<unk>", UNKNOWN), ("<s>", CONTROL))),
        message((1, "▁a"), (2, -2.5)),  # normal is the default
        message((2, -3.25), (3, NORMAL), (1, "é")),
        message((1, "b")),  # as is a score of zero
        message(*UNKNOWN_FIELDS, (1, "c"), (2, -4.0), *UNKNOWN_FIELDS, (3, NORMAL)),
        *(message((1, text), (2, score), (3, NORMAL)) for text, score in longest.items()),
        *(message((1, f"<0x{number:02X}>"), (2, 0.0), (3, BYTE)) for number in (0, 255)),
        message((1, "<sep>"), (2, 0.0), (3, USER_DEFINED)),
        message((1, "fox"), (3, USER_DEFINED)),
        message((1, "unused"), (2, -1.0), (3, UNUSED)),
    ]
    found = read_pieces(message(*UNKNOWN_FIELDS, *((1, piece) for piece in pieces), *UNKNOWN_FIELDS))
    assert found.scores == {"▁a": -2.5, "é": -3.25, "b": 0.0, "c": -4.0, **longest}
    assert found.byte_pieces == ("<0x00>", "<0xFF>")
    assert found.user_defined == ("<sep>", "fox")


def test_a_model_without_settings_has_those_of_the_format() -> None:
    for model in (b"", message((2, b""), (3, b"")), message((4, b""), (5, message((2, b"back"), (3, 0))))):
        found = read_pieces(model)
        assert (found.model_type, found.character_map) == (UNIGRAM, b"")
        assert (found.adds_space, found.merges_spaces, found.marks_spaces) == (True, True, True)


@pytest.mark.parametrize(
    ("trainer", "normaliser", "expected"),
    [
        *((((3, number),), (), {"model_type": number}) for number in (1, 2, 3, 4)),
        (((1, "input"), (2, "prefix"), (4, 8000), (10, 0.5), *UNKNOWN_FIELDS, (3, 2)), (), {"model_type": 2}),
        (((24, 1),), (), {"marks_spaces": False}),
        (((24, 0), (23, 1), (25, 1), (26, 1)), (), {"marks_spaces": True}),
        ((), ((5, 0),), {"marks_spaces": False}),
        ((), ((3, 0),), {"adds_space": False}),
        ((), ((4, 0),), {"merges_spaces": False}),
        ((), ((3, 1), (4, 1), (5, 1), (6, "rules.tsv")), {}),
        ((), ((1, "nmt_nfkc"), (2, b"\x00map\xff")), {"character_map": b"\x00map\xff"}),
    ],
)
def test_each_setting_is_read_from_its_own_field(trainer, normaliser, expected) -> None:
    found = read_pieces(message((1, message((1, "a"))), (2, message(*trainer)), (3, message(*normaliser))))
    default = {"model_type": 1, "character_map": b"", "adds_space": True, "merges_spaces": True, "marks_spaces": True}
    assert {name: getattr(found, name) for name in default} == {**default, **expected}
    assert found.scores == {"a": 0.0}


@pytest.mark.parametrize("content", [b"no model", b"\x0a", message((1, "piece"))[:-1], field(1, field(1, "a")[:-1])])
def test_a_damaged_model_is_named_in_one_sentence(content) -> None:
    with pytest.raises(UserError, match=r"^spm\.model is damaged: it is not a SentencePiece model; download it again$"):
        read_pieces(content, "spm.model")


@pytest.mark.parametrize(("kind", "number"), [("unigram", UNIGRAM), ("bpe", BPE), ("char", CHAR), ("word", WORD)])
def test_real_models_are_read_as_sentencepiece_reads_them(kind, number) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    writer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["abc bcd cde", "dea eab"]),
        model_writer=writer,
        model_type=kind,
        vocab_size=270 if kind in ("unigram", "bpe") else 14,
        byte_fallback=kind in ("unigram", "bpe"),
        hard_vocab_limit=False,
        user_defined_symbols="<sep>",
        control_symbols="<ctl>",
        minloglevel=2,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=writer.getvalue())
    ids = range(processor.get_piece_size())
    others = [n for n in ids if processor.is_control(n) or processor.is_unknown(n) or processor.is_byte(n)]
    found = read_pieces(writer.getvalue())
    assert found.model_type == number
    assert found.user_defined == tuple(filter(lambda piece: "<sep>" in piece, map(processor.id_to_piece, ids)))
    assert found.byte_pieces == tuple(processor.id_to_piece(n) for n in ids if processor.is_byte(n))
    assert found.scores == {
        processor.id_to_piece(n): processor.get_score(n)
        for n in ids
        if n not in others and "<sep>" not in processor.id_to_piece(n)
    }


@pytest.mark.parametrize("name", ["google.protobuf.message", "sentencepiece.sentencepiece_model_pb2"])
def test_what_to_install_is_said_if_the_classes_of_sentencepiece_cannot_be_loaded(monkeypatch, name) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"do not fit .*; run pip install --upgrade sentencepiece protobuf"):
        runpy.run_path(sentencepiece_model.__file__)


def test_what_to_install_is_said_if_protobuf_refuses_the_classes_of_sentencepiece(monkeypatch) -> None:
    """As protobuf before 7.36 refuses those of sentencepiece 0.2.3, by an error of its own."""
    from google.protobuf import message

    class Refusal(message.Error):
        pass

    class Finder:
        def find_spec(self, name: str, path: object, target: object = None) -> None:
            if name == "sentencepiece.sentencepiece_model_pb2":
                raise Refusal("gencode 7.36.1\nruntime 5.29.5")

    monkeypatch.delitem(sys.modules, "sentencepiece.sentencepiece_model_pb2")
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(UserError, match=r"do not fit \(gencode 7.36.1 runtime 5.29.5\); run pip install --upgrade"):
        runpy.run_path(sentencepiece_model.__file__)
