"""Any text: a sentence goes in and the same sentence comes out, and nobody counts lines in another way."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
import sacrebleu.utils
import sentencepiece
import torch
from fairseq.data import Dictionary, data_utils
from hypothesis import assume, given
from hypothesis import strategies as st

from langspec_lora.data.binarise import binarise, multi_parallel
from langspec_lora.data.directions import Direction, choose_directions, find_directions, side_path
from langspec_lora.data.headers import count_sentences, highest_id, longest_sentence, sentence_lengths
from langspec_lora.data.plain_text import plain_text
from langspec_lora.data.vocabulary import dictionary_text, load_dictionary, train_sentencepiece
from langspec_lora.errors import UserError
from langspec_lora.evaluation.split_text import SplitText
from langspec_lora.files import NotUtf8, read_lines, text_lines
from tests.properties import NAMES, examples

ODD = st.sampled_from(
    (
        "\r",
        "\u2028",
        "\u2029",
        "\x85",
        "\0",
        "\f",
        "\x1c",
        "\ufeff",
        "\u00ad",
        "\u3000",
        "\u202e",
        "__en__",
        "<s>",
        "<unk>",
        "</s>",
        "<pad>",
        "\u2581",
        "<0x41>",
        "@@",
        "🙂",
        "a\u0301",
        "x" * 9000,
    )
)
PARTS = st.one_of(
    ODD, st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=6), st.sampled_from(" ab")
)
LINES = st.lists(PARTS, max_size=6).map("".join)
ENDS = st.sampled_from(("\n", "\r\n"))


def without_end(line: str) -> str:
    return re.sub("\r*$", "", line)


@examples(150)
@given(st.lists(st.tuples(LINES, ENDS)), LINES, st.booleans())
def test_lines_are_those_between_line_feeds_and_sacrebleu_counts_as_many(tmp_path_factory, lines, last, marked) -> None:
    path = tmp_path_factory.getbasetemp() / "text"
    content = "".join(f"{line}{end}" for line, end in lines) + last
    assume(not content.startswith("\ufeff"))
    path.write_bytes((("\ufeff" if marked else "") + content).encode())
    found = read_lines(path)
    expected = [without_end(line) for line in content.split("\n")]
    assert found == (expected if last else expected[:-1])
    if not marked:
        with sacrebleu.utils.smart_open(str(path)) as file:
            theirs = [line.rstrip() for line in file]
        assert [line.rstrip() for line in found] == theirs


@examples(60)
@given(
    st.binary(max_size=60)
    | st.lists(st.sampled_from((b"a", b"\n", b"\xc3", b"\xa9", b"\xed\xa0\x80", b"\xff", b"\r"))).map(b"".join)
)
def test_bytes_are_text_or_the_first_line_that_is_not_is_named(content) -> None:
    lines = content.split(b"\n")
    wrong = [number for number, line in enumerate(lines, start=1) if line.decode(errors="replace").encode() != line]
    try:
        list(text_lines(io.BytesIO(content), "text"))
    except NotUtf8 as error:
        found = [error.line]
    else:
        found = []
    assert found == wrong[:1]


@pytest.fixture(scope="module")
def with_bytes() -> tuple[sentencepiece.SentencePieceProcessor, Dictionary]:
    """A model that spells what it does not know in bytes, and the dictionary of its pieces."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the bourse is a place to trade", "a fine day at the place"] * 40),
        model_writer=model,
        vocab_size=300,
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
        normalization_rule_name="identity",
    )
    processor, dictionary = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()), Dictionary()
    for number in range(3, processor.get_piece_size()):
        dictionary.add_symbol(processor.id_to_piece(number))
    return processor, dictionary


@examples(100)
@given(LINES)
def test_pieces_and_bytes_are_the_text_again(with_bytes, line) -> None:
    processor, dictionary = with_bytes
    pieces = processor.encode(line, out_type=str)
    assume(all(piece in dictionary.indices for piece in pieces))
    tokens = dictionary.encode_line(" ".join(pieces), add_if_not_exist=False)
    expected = processor.decode(pieces).replace("\r", " ").replace("\n", " ")
    assert plain_text(dictionary, tokens, "sentencepiece") == expected.strip()


def words(line: str) -> str:
    return " ".join(re.split(r"\s+", line.strip()))


@examples(60)
@given(st.lists(st.tuples(LINES, LINES), min_size=1, max_size=4))
def test_a_binarised_sentence_is_the_sentence(tmp_path_factory, pairs) -> None:
    assume(not any(line.startswith("\ufeff") for line in pairs[0]))  # a byte order mark, which is not text
    folder = tmp_path_factory.mktemp("text")
    files = {name: folder / name for name in ("en", "wo")}
    for name, lines in zip(files, zip(*pairs, strict=True), strict=True):
        files[name].write_bytes("".join(f"{line}\n" for line in lines).encode())
    symbols = {"<s>", "<pad>", "</s>", "<unk>"}
    tokens = sorted({token for pair in pairs for line in pair for token in line.split()} - symbols)
    (folder / "dict.txt").write_bytes("".join(f"{token} 1\n" for token in tokens).encode())
    sides = [read_lines(path) for path in files.values()]
    whole = all(line.strip() for lines in sides for line in lines)
    try:
        summary = binarise(multi_parallel("test", files), folder / "dict.txt", folder / "bin")
    except UserError:
        # A sentence is missing, or a token is one that no dictionary can hold: fairseq ends a line of one at CR.
        assert not whole or any("\r" in token or "\ufeff" in token[:1] for token in tokens) or not tokens
        return
    assert whole
    assert summary.sentences == sum(map(len, sides))
    for number, name in enumerate(files):
        text = SplitText(folder / "bin", "test", ("en", "wo"), None, folder / "dict.txt", None)
        found = text.lines(Direction("en", "wo"), name)
        dictionary = load_dictionary(folder / "dict.txt")
        for line, own in zip(found, sides[number], strict=True):
            # Special symbols inside a text are not text to fairseq's dictionaries.
            expected = [
                w for w in words(own).split(" ") if w not in ("<s>", "</s>", "<pad>") and w in dictionary.indices
            ]
            if "<unk>" not in own:
                assert line == " ".join(expected)
                if not any(w in own.split() for w in ("<s>", "</s>", "<pad>")):
                    assert line == words(own)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spm")
    text = ["the bourse is a place to trade __en__", "a fine day at the place — naïve", "三匹の猫"] * 20
    (folder / "spm.model").write_bytes(train_sentencepiece(text, 90))
    (folder / "dict.txt").write_text(dictionary_text((folder / "spm.model").read_bytes(), ("en", "wo")))
    return folder, sentencepiece.SentencePieceProcessor(model_file=str(folder / "spm.model"))


@examples(50)
@given(
    st.lists(
        st.text("thebourse isaplctrdfny_—ï三匹の猫\u3000\u2028\u00a0\t", min_size=1).filter(str.strip),
        min_size=1,
        max_size=4,
    )
)
def test_a_sentence_in_pieces_is_the_sentence_as_sentencepiece_normalises_it(trained, tmp_path_factory, lines) -> None:
    folder, processor = trained
    out = tmp_path_factory.mktemp("pieces")
    files = {name: out / name for name in ("en", "wo")}
    for path in files.values():
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    assume(all(processor.encode(line) for line in lines))
    binarise(multi_parallel("test", files), folder / "dict.txt", out / "bin", spm_model=folder / "spm.model")
    text = SplitText(out / "bin", "test", ("en", "wo"), None, None, "sentencepiece")
    expected = [processor.decode(processor.encode(line.strip())).strip() for line in lines]
    assume("⁇" not in "".join(expected))
    assert text.lines(Direction("en", "wo"), "en") == expected
    dictionary = Dictionary.load(str(folder / "dict.txt"))
    for sentence in data_utils.load_indexed_dataset(str(out / "bin" / "test.en-wo.en"), dictionary, "mmap"):
        assert not {dictionary.index(f"__{name}__") for name in ("en", "wo")} & set(sentence.tolist())


@examples(50)
@given(st.lists(st.lists(st.integers(0, 300), max_size=4), max_size=5), st.sampled_from((120, 300, 70_000)))
def test_sizes_are_those_that_fairseq_wrote(tmp_path_factory, sentences, vocabulary) -> None:
    from fairseq.data.indexed_dataset import make_builder

    prefix = str(tmp_path_factory.mktemp("side") / "train.en-wo.en")
    sentences = [[token % vocabulary for token in sentence] for sentence in sentences]
    builder = make_builder(f"{prefix}.bin", impl="mmap", vocab_size=vocabulary)
    for sentence in sentences:
        builder.add_item(torch.tensor(sentence, dtype=torch.int32))
    builder.finalize(f"{prefix}.idx")
    assert count_sentences(prefix) == len(sentences)
    assert sentence_lengths(prefix).tolist() == [len(sentence) for sentence in sentences]
    assert longest_sentence(prefix) == max(map(len, sentences), default=0)
    assert highest_id(prefix) == max((token for sentence in sentences for token in sentence), default=-1)


def write_three_sentences(folder: Path) -> str:
    """Writes a side of 2, 2 and 3 tokens; returns its path without ending."""
    from fairseq.data.indexed_dataset import make_builder

    prefix = str(folder / "train.en-wo.en")
    builder = make_builder(f"{prefix}.bin", impl="mmap", vocab_size=300)
    for length in (2, 2, 3):
        builder.add_item(torch.ones(length, dtype=torch.int32))
    builder.finalize(f"{prefix}.idx")
    assert count_sentences(prefix) == 3
    return prefix


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (0, b"XMIDIDX", "in an unknown format"),
        (8, b"\1", "in an unknown format"),
        (9, np.uint64(2).tobytes(), "in an unknown format"),  # version
        (17, b"\6", "in an unknown format"),  # floats
        (18, np.uint64(2).tobytes(), "size does not match"),
        (18, np.uint64(2**62).tobytes(), "size does not match"),
        (26, np.int32([3, 1]).tobytes(), "sentences do not follow each other"),
        (26, np.int32([-2, 6]).tobytes(), "sentences do not follow each other"),
        (38, np.int64([4]).tobytes(), "sentences do not follow each other"),
        (34, np.int32([4]).tobytes(), r"bin is damaged: its size does not match"),
    ],
)
def test_an_index_that_does_not_divide_its_data_is_refused(tmp_path, place, value, words) -> None:
    prefix = write_three_sentences(tmp_path)
    index = tmp_path / "train.en-wo.en.idx"
    content = bytearray(index.read_bytes())
    content[place : place + len(value)] = value
    index.write_bytes(content)
    with pytest.raises(UserError, match=words):
        count_sentences(prefix)


@pytest.mark.parametrize("change", ["data that no sentence has", "a negative length with offsets that fit it"])
def test_an_index_of_less_or_more_than_its_data_is_refused(tmp_path, change) -> None:
    prefix = write_three_sentences(tmp_path)
    if change == "data that no sentence has":
        with (tmp_path / "train.en-wo.en.bin").open("ab") as file:
            file.write(b"\1\0")
    else:
        index = tmp_path / "train.en-wo.en.idx"
        content = index.read_bytes()[:26] + np.int32([4, -2, 5]).tobytes() + np.int64([0, 8, 4]).tobytes()
        index.write_bytes(content)
    with pytest.raises(UserError, match=r"is damaged: .*; binarise that side again"):
        count_sentences(prefix)


FILE_NAMES = st.tuples(
    st.sampled_from(("test", "valid")), st.sampled_from("abc"), st.sampled_from("abc"), st.sampled_from("abc")
)
WHOLE_PAIRS = st.sets(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), max_size=5).map(
    lambda pairs: {("test", one, two, side) for one, two in pairs for side in (one, two)}
)


@examples(80)
@given(
    st.tuples(WHOLE_PAIRS, st.sets(FILE_NAMES, max_size=3), st.sets(FILE_NAMES, max_size=2)).map(
        lambda names: (names[0] | names[1]) - names[2]
    ),
    st.sampled_from((None, "all", "a-b", "b-a,a-b", "a-c", "c-b", "c-a,b-c", "a-b,a-b", "x-y", "a-", "", "a-b-c")),
    st.none() | st.lists(st.sampled_from("abcx"), max_size=3),
)
def test_directions_are_those_of_complete_sides_in_a_plain_loop(tmp_path_factory, names, pairs, langs) -> None:
    folder = tmp_path_factory.mktemp("bin")
    for subset, one, two, side in names:
        for end in ("bin", "idx"):
            (folder / f"{subset}.{one}-{two}.{side}.{end}").touch()

    def has(direction: Direction, language: str) -> bool:
        """As fairseq looks: the files of this direction if they have its source, else those of the reverse."""
        for one, two in (direction, direction[::-1]):
            if ("test", one, two, direction.source) in names:
                return ("test", one, two, language) in names
        return False

    every = [Direction(a, b) for a in "abc" for b in "abc" if a != b]
    expected = [direction for direction in every if has(direction, direction.target)]
    try:
        found = find_directions(folder, "test")
    except UserError:
        assert not expected
        return
    assert found == sorted(expected)
    for direction in found:
        assert side_path(folder, "test", direction, direction.target) is not None
    known = {language for direction in expected for language in direction}
    wanted = sorted(known) if langs is None else langs
    try:
        chosen = choose_directions(found, langs, pairs)
    except UserError:
        chosen = []
    right = set(wanted) <= known and len(set(wanted)) == len(wanted)
    among = [Direction(a, b) for a in wanted for b in wanted if Direction(a, b) in expected] if right else []
    if pairs in (None, "all"):
        assert chosen == among
    else:
        asked = pairs.split(",")
        right = len(set(asked)) == len(asked) and set(asked) <= {str(direction) for direction in among}
        assert [str(direction) for direction in chosen] == (asked if right else [])


@examples(60)
@given(NAMES | st.text(max_size=4), NAMES | st.text(max_size=4))
def test_a_direction_is_written_as_it_is_read(one, two) -> None:
    text = f"{one}-{two}"
    names = (one.lstrip(), two.rstrip())
    if names[0] == names[1] or not all(names) or any(c in name for name in names for c in "/\\:,-.|*?<>\"'[]{}= \0"):
        with pytest.raises(UserError):
            Direction.parse(text)
        return
    try:
        found = Direction.parse(text)
    except UserError:
        assert not all(name.replace("_", "a").isalnum() for name in names)
    else:
        assert str(found) == text.strip()
        assert Direction.parse(str(found)) == found
