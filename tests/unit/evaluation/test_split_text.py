"""Where the text of a split comes from: raw files, or the binarised sides turned back."""

from __future__ import annotations

from pathlib import Path

import pytest
from fairseq.data import Dictionary, indexed_dataset

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.evaluation.split_text import SplitText, languages_of
from tests import toy
from tests.reports import write_lines

EN_FR, FR_EN = Direction("en", "fr"), Direction("fr", "en")


def text_of(data: Path, folder: Path | None = None, dictionary: Path | None = None, bpe: str | None = None):
    return SplitText(data, "test", ("en", "fr"), folder, dictionary, bpe)


@pytest.fixture
def data(toy_data, tmp_path) -> Path:
    """Binarised English and French in a folder of their own, as hard links."""
    folder = tmp_path / "home" / "bin"
    folder.mkdir(parents=True)
    for path in (*toy_data.glob("dict.*"), *toy_data.glob("test.en-fr.*")):
        (folder / path.name).hardlink_to(path)
    return folder


def test_raw_text_is_looked_for_in_the_data_and_then_beside_them_and_must_be_of_all_languages(data) -> None:
    inner, outer = data / "mono", data.parent / "mono"
    write_lines(inner / "test.en", ["inner"])
    assert text_of(data).origin == f"{data} (binarised sides as text)"
    assert text_of(data).count("en") is None
    for language in ("en", "fr"):
        write_lines(outer / f"test.{language}", ["outer", language])
    text = text_of(data)
    assert (text.origin, text.lines(EN_FR, "en"), text.count("en")) == (str(outer), ["outer", "en"], 2)
    write_lines(inner / "test.fr", ["inner", "French", "text"])
    text = text_of(data)
    assert (text.origin, text.lines(EN_FR, "fr"), text.count("fr")) == (str(inner), ["inner", "French", "text"], 3)
    write_lines(inner / "test.fr", ["one"])
    assert text_of(data).count("fr") == 1  # what has been changed since is counted again


def test_a_folder_that_is_given_goes_before_all_others_and_must_be_whole(data, tmp_path) -> None:
    for language in ("en", "fr"):
        write_lines(data / "mono" / f"test.{language}", ["other"])
    given = tmp_path / "given"
    write_lines(given / "test.en", ["given"])
    with pytest.raises(
        UserError, match=rf"{given}/test\.fr is missing; put the sentences of fr there as plain text, or"
    ):
        text_of(data, given)
    write_lines(given / "test.fr", ["donné"])
    text = text_of(data, given)
    assert (text.origin, text.lines(FR_EN, "fr"), text.lines(FR_EN, "en")) == (str(given), ["donné"], ["given"])


def test_binarised_sides_are_turned_back_by_the_dictionary_of_the_data_or_by_another(data, tmp_path) -> None:
    lines = [" ".join(f"en{word}" for word in meaning) for meaning in toy.sentences("test")]
    assert text_of(data).lines(EN_FR, "en") == text_of(data).lines(FR_EN, "en") == lines
    assert text_of(data, bpe="sentencepiece").lines(EN_FR, "en") == [line.replace(" ", "") for line in lines]
    words = (data / "dict.en.txt").read_text().upper()
    (tmp_path / "dict.txt").write_text(words)
    assert text_of(data, dictionary=tmp_path / "dict.txt").lines(EN_FR, "en") == [line.upper() for line in lines]


def test_unknown_words_of_binarised_sides_are_what_fairseq_prints_for_references(data) -> None:
    dictionary = Dictionary.load(str(data / "dict.en.txt"))
    builder = indexed_dataset.make_builder(f"{data}/test.fr-wo.fr.bin", impl="mmap", vocab_size=len(dictionary))
    tokens = dictionary.encode_line("fr1 salut fr2", add_if_not_exist=False)
    builder.add_item(tokens)
    builder.finalize(f"{data}/test.fr-wo.fr.idx")
    printed = dictionary.string(tokens, escape_unk=True)  # as fairseq-generate does with a target
    assert text_of(data).lines(Direction("fr", "wo"), "fr") == [printed] != [dictionary.string(tokens)]


def test_sides_with_one_key_have_one_text(data) -> None:
    binarised = text_of(data)
    assert binarised.key(EN_FR, "en") == binarised.key(FR_EN, "en") != binarised.key(EN_FR, "fr")
    for end in ("bin", "idx"):
        (data / f"test.nl-en.en.{end}").hardlink_to(data / f"test.en-fr.en.{end}")
        (data / f"test.nl-en.nl.{end}").write_bytes((data / f"test.en-fr.en.{end}").read_bytes())
    nl_en = Direction("nl", "en")
    assert binarised.key(nl_en, "en") == binarised.key(EN_FR, "en") != binarised.key(nl_en, "nl")
    for language in ("en", "fr"):
        write_lines(data / "mono" / f"test.{language}", ["other"])
    raw = text_of(data)
    assert raw.key(EN_FR, "en") == raw.key(FR_EN, "en") != raw.key(EN_FR, "fr")


def test_languages_are_named_once_in_the_order_of_the_directions() -> None:
    assert languages_of([FR_EN, EN_FR, Direction("wo", "fr")]) == ("fr", "en", "wo")
