"""Which bytes end a line of text, in every command that reads one."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from fairseq.data import Dictionary, data_utils

from langspec_lora.data import flores
from langspec_lora.data.binarise import binarise, multi_parallel
from langspec_lora.data.vocabulary import dictionary_tokens
from langspec_lora.errors import UserError
from langspec_lora.evaluation.split_text import SplitText
from langspec_lora.files import read_lines, text_lines, write_whole
from langspec_lora.report.texts import describe
from tests.unit.data.test_flores import LANGUAGES, write_flores

INNER = ["a\rb", "a\r\rb", "a\x0cb", "a\x0bb", "a\u2028b", "a\u2029b", "a\x85b", "a\x1cb", "a\x1eb", "\ra"]
"""Sentences that hold what str.splitlines, or a universal newline, takes for the end of a line."""


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r\r\n"], ids=["LF", "CRLF", "CRCRLF"])
@pytest.mark.parametrize("last", [True, False], ids=["ended", "open"])
def test_lines_end_at_lf_or_crlf_and_at_nothing_else(tmp_path, end, last) -> None:
    data = end.join(line.encode() for line in INNER) + (end if last else b"")
    (tmp_path / "text").write_bytes(data)
    assert read_lines(tmp_path / "text") == INNER


def test_empty_lines_are_lines_and_an_empty_file_has_none(tmp_path) -> None:
    for data, lines in ((b"", []), (b"\n", [""]), (b"a\n\nb\n\n", ["a", "", "b", ""]), (b"\xef\xbb\xbf", [])):
        (tmp_path / "text").write_bytes(data)
        assert read_lines(tmp_path / "text") == lines


def test_what_was_read_and_written_is_read_again_the_same(tmp_path) -> None:
    (tmp_path / "text").write_bytes(b"\xef\xbb\xbf\xef\xbb\xbfone\r\r\n\xef\xbb\xbftwo\rthree\r")
    lines = read_lines(tmp_path / "text")
    assert lines == ["one", "\ufefftwo\rthree"]
    write_whole(tmp_path / "again", "".join(f"{line}\n" for line in lines))
    assert read_lines(tmp_path / "again") == lines


def test_a_byte_order_mark_is_left_out_with_a_remark(tmp_path, caplog) -> None:
    (tmp_path / "text").write_bytes(b"\xef\xbb\xbfone\ntwo\n")
    assert read_lines(tmp_path / "text") == read_lines(tmp_path / "text") == ["one", "two"]
    remark = f"{tmp_path / 'text'} begins with a byte order mark, which was removed"
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [("WARNING", remark)]


def test_text_in_another_encoding_is_named_by_its_line(tmp_path) -> None:
    for data, line in ((b"one\ntwo\ncaf\xe9\n", 3), ("one\n".encode("utf-16"), 1)):
        (tmp_path / "text").write_bytes(data)
        with pytest.raises(UserError, match=rf"text, line {line}: not UTF-8; convert"):
            read_lines(tmp_path / "text")
    with pytest.raises(UserError, match="No such file"):
        read_lines(tmp_path / "none")


def test_bytes_that_are_not_utf_8_can_be_passed_on() -> None:
    assert list(text_lines(io.BytesIO(b"\xef\xbb\xbfa\xe9\rb\r\nc"), "input", "surrogateescape")) == ["a\udce9\rb", "c"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Text in which each line of English is one with a character that some take for the end of a line."""
    source = write_flores(tmp_path / "source")
    for split in ("dev", "devtest"):
        path = source / split / f"eng.{split}"
        lines = path.read_bytes().split(b"\n")[:-1]
        ends = ["\r", "\u2028"]
        marked = [line.replace(b" ", ends[n % 2].encode(), 1) for n, line in enumerate(lines)]
        path.write_bytes(b"\xef\xbb\xbf" + b"".join(line + b"\r\n" for line in marked))
    return source


def test_no_sentence_of_flores_moves_to_another_line(source, tmp_path, caplog) -> None:
    prepared = flores.prepare(tmp_path / "out", LANGUAGES, source, vocab_size=60, valid_lines=3)
    assert sum("byte order mark" in record.getMessage() for record in caplog.records) == 2  # dev and devtest
    unmarked = write_flores(tmp_path / "unmarked")
    dictionary = Dictionary.load(str(prepared.data_bin / "dict.en.txt"))
    for split, name, count in (("train", "dev", 40), ("valid", "devtest", 3), ("test", "devtest", 12)):
        side = data_utils.load_indexed_dataset(str(prepared.data_bin / f"{split}.en-nl.en"), dictionary, "mmap")
        text = [dictionary.string(tokens, "sentencepiece") for tokens in side]
        # SentencePiece reads each of these characters as a space.
        assert text == (unmarked / name / f"eng.{name}").read_text().split("\n")[:count]


def test_references_keep_their_lines(tmp_path) -> None:
    (tmp_path / "test.en").write_bytes("".join(f"{line}\r\n" for line in INNER).encode())
    text = SplitText(tmp_path, "test", ("en",), tmp_path, None, "sentencepiece")
    assert text.lines(("en", "nl"), "en") == INNER
    assert text.count("en") == len(INNER)
    assert describe(tmp_path / "test.en").lines == len(INNER)


def test_sides_keep_their_lines_when_they_are_binarised(tmp_path) -> None:
    (tmp_path / "ka").write_bytes(b"one\rtwo\nthree\r\n")
    (tmp_path / "mi").write_bytes(b"1\n2\n")
    (tmp_path / "dict.txt").write_text("one 1\ntwo 1\nthree 1\n1 1\n2 1\n")
    files = {name: tmp_path / name for name in ("ka", "mi")}
    summary = binarise(multi_parallel("train", files), tmp_path / "dict.txt", tmp_path / "out")
    assert (summary.sentences, summary.tokens, summary.unknown) == (4, 9, 0)


def test_the_tokens_of_a_dictionary_are_those_that_fairseq_reads(tmp_path) -> None:
    path = tmp_path / "dict.txt"
    path.write_bytes("▁a\u2028b 3\r\n▁c\x85d 2\n▁e f 1\n▁g 1 \n".encode())
    assert dictionary_tokens(path) == set(Dictionary.load(str(path)).symbols[4:])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    with pytest.raises(UserError, match="begins with a byte order mark"):
        dictionary_tokens(path)


def test_an_outer_folder_of_flores_200_is_looked_into(tmp_path) -> None:
    inner = write_flores(tmp_path / "outer" / "flores200_dataset")
    (tmp_path / "outer" / "other").mkdir()
    assert flores.find_splits(tmp_path / "outer") == inner == flores.find_splits(inner)
    write_flores(tmp_path / "outer" / "flores101_dataset")
    with pytest.raises(UserError, match=r"several folders \(flores101_dataset, flores200_dataset\); give one of them"):
        flores.find_splits(tmp_path / "outer")
    with pytest.raises(UserError, match="no folders dev and devtest"):
        flores.find_splits(tmp_path / "nowhere")
