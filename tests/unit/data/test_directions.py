"""Which directions a binarised folder holds, where their sides lie, and which of them are asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from fairseq.data import Dictionary, indexed_dataset
from fairseq.tasks.translation import load_langpair_dataset

from langspec_lora.data.directions import Direction, choose_directions, find_directions, side_path
from langspec_lora.errors import UserError


def directions(*names: str) -> list[Direction]:
    return [Direction(*name.split("-")) for name in names]


def binarised(folder: Path, *names: str) -> Path:
    """A folder with empty files of these sides."""
    for name in names:
        for suffix in ("bin", "idx"):
            (folder / f"{name}.{suffix}").touch()
    return folder


def test_a_direction_is_two_languages_and_a_dash() -> None:
    assert Direction.parse(" en-zh_Hans\n") == Direction("en", "zh_Hans")
    assert str(Direction.parse("en-fr")) == "en-fr"


@pytest.mark.parametrize("text", ["", "en", "en-", "-fr", "-", "en-fr-nl", "en-en", "en_fr"])
def test_anything_else_is_no_direction(text) -> None:
    with pytest.raises(
        UserError, match=rf"'{text}' is not a direction; expected two different languages such as en-fr"
    ):
        Direction.parse(text)


def test_a_folder_holds_both_directions_of_a_pair_whose_sides_are_whole(tmp_path) -> None:
    binarised(tmp_path, "test.en-fr.en", "test.en-fr.fr", "test.nl-en.nl", "test.nl-en.en", "valid.fr-nl.fr")
    binarised(tmp_path, "test.fr-sd.fr", "test.x.en-fr.en", "test.en-fr-nl.en", "test.fr-wo.fr", "valid.fr-nl.nl")
    (tmp_path / "test.fr-wo.wo.bin").touch()  # without its index
    (tmp_path / "test.en-wo.en.idx").touch()  # without the data
    assert find_directions(tmp_path, "test") == directions("en-fr", "en-nl", "fr-en", "nl-en")
    assert find_directions(tmp_path, "valid") == directions("fr-nl", "nl-fr")


@pytest.mark.parametrize("subset", ["dev", "t.st"])
def test_a_folder_without_directions_of_a_subset_is_named(tmp_path, subset) -> None:
    binarised(tmp_path, "test.en-fr.en", "test.en-fr.fr")
    words = rf"{tmp_path} has no direction of the subset '{subset}'; expected files such as {subset}\.en-fr\.en\.idx"
    with pytest.raises(UserError, match=words):
        find_directions(tmp_path, subset)
    with pytest.raises(UserError, match="gone is not a folder; give the folder that fairseq-preprocess wrote"):
        find_directions(tmp_path / "gone", subset)


@pytest.mark.parametrize(
    "names",
    [
        ("en-fr.en", "en-fr.fr"),
        ("fr-en.en", "fr-en.fr"),
        ("en-fr.en", "en-fr.fr", "fr-en.en", "fr-en.fr"),
        ("en-fr.fr", "fr-en.en", "fr-en.fr"),
        ("en-fr.en", "fr-en.en", "fr-en.fr"),
    ],
    ids=" ".join,
)
def test_sides_are_those_that_fairseq_opens(tmp_path, names) -> None:
    dictionary = Dictionary()
    for number, name in enumerate(names):
        builder = indexed_dataset.make_builder(f"{tmp_path}/test.{name}.bin", impl="mmap", vocab_size=len(dictionary))
        for _ in range(7):
            builder.add_item(dictionary.encode_line(f"word{number}", line_tokenizer=str.split, append_eos=False))
        builder.finalize(f"{tmp_path}/test.{name}.idx")
    for pair in directions("en-fr", "fr-en"):
        options = {"combine": False, "dataset_impl": "mmap", "upsample_primary": 1, "left_pad_source": False}
        limits = {"left_pad_target": False, "max_source_positions": 9, "max_target_positions": 9}
        given = (str(tmp_path), "test", pair.source, dictionary, pair.target, dictionary)
        opened = load_langpair_dataset(*given, **options, **limits)
        for language, data in ((pair.source, opened.src), (pair.target, opened.tgt)):
            path = side_path(tmp_path, "test", pair, language)
            if data is None:
                assert path is None
            else:
                assert path.name == f"test.{names[int(dictionary[data[0][0]].removeprefix('word'))]}"


def test_a_language_is_served_from_either_name_of_its_pair_and_from_no_other(tmp_path) -> None:
    binarised(tmp_path, "test.en-fr.en", "test.en-fr.fr")
    assert side_path(tmp_path, "test", Direction("fr", "en"), "fr") == tmp_path / "test.en-fr.fr"
    assert side_path(tmp_path, "test", Direction("fr", "en"), "en") == tmp_path / "test.en-fr.en"
    assert side_path(tmp_path, "test", Direction("en", "nl"), "en") is None
    assert side_path(tmp_path, "valid", Direction("en", "fr"), "en") is None


AVAILABLE = directions("en-fr", "fr-en", "en-nl", "nl-en", "fr-nl", "nl-nl")  # no nl-fr; and a text beside itself


@pytest.mark.parametrize(
    ("langs", "lang_pairs", "chosen"),
    [
        (None, None, ["en-fr", "en-nl", "fr-en", "fr-nl", "nl-en"]),
        (None, "all", ["en-fr", "en-nl", "fr-en", "fr-nl", "nl-en"]),
        (("nl", "fr", "en"), "all", ["nl-en", "fr-nl", "fr-en", "en-nl", "en-fr"]),
        (("nl", "fr"), None, ["fr-nl"]),
        (None, "nl-en, en-fr", ["nl-en", "en-fr"]),
        (("en", "nl"), "nl-en", ["nl-en"]),
        (("en", "nl", "fr"), "nl-en", ["nl-en"]),
    ],
)
def test_directions_are_chosen_by_languages_or_by_name_in_the_order_given(langs, lang_pairs, chosen) -> None:
    assert choose_directions(iter(AVAILABLE), langs, lang_pairs) == directions(*chosen)


@pytest.mark.parametrize(
    ("langs", "lang_pairs", "words"),
    [
        (("en", "xx", "yy"), None, "--langs names xx, yy, but the data have only en, fr, nl"),
        (("en", "en"), None, "--langs names 'en' twice"),
        ((), None, "--langs '' has an empty name"),
        (("fr",), "all", "the data have no direction between fr; give at least two languages of the data"),
        (
            None,
            "en-fr,nl-fr,en-xx",
            "names nl-fr, en-xx, but the data have only directions of en, fr, nl",
        ),
        (None, "en-fr,en-fr", "--lang-pairs names 'en-fr' twice"),
        (None, "en", "'en' is not a direction"),
        (None, "", "--lang-pairs '' has an empty name; give names joined by commas, such as en-fr,fr-en"),
        (("en", "fr"), "en-fr,nl-en,fr-nl", "--lang-pairs names nl-en, but not both languages are in --langs"),
    ],
)
def test_directions_that_are_not_there_are_named(langs, lang_pairs, words) -> None:
    with pytest.raises(UserError, match=words):
        choose_directions(AVAILABLE, langs, lang_pairs)
