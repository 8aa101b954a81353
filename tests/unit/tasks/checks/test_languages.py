"""One list of a run's languages, whatever names them; and each way to name none, too much or something unknown."""

from __future__ import annotations

import logging
from argparse import Namespace
from pathlib import Path

import pytest
from fairseq.data.multilingual.multilingual_data_manager import MultilingualDatasetManager

from langspec_lora.errors import UserError
from langspec_lora.tasks.checks.languages import resolve_languages, used_languages


def arguments(**changes) -> Namespace:
    """As fairseq's parser leaves them."""
    given = {
        **{"langs": ["en", "fr", "wo"], "lang_dict": None, "lang_pairs": "en-fr,wo-en", "langtoks": None},
        **{"extra_lang_pairs": None, "extra_data": None, "source_lang": None, "target_lang": None},
    }
    return Namespace(**{**given, **changes})


def listed(folder: Path, text: str) -> str:
    path = folder / "langs.txt"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("how", ["langs", "lang_dict", "pairs"])
def test_the_list_is_stock_fairseq_s_however_it_is_named(tmp_path, how) -> None:
    changes = {
        "langs": {},
        "lang_dict": {"langs": None, "lang_dict": listed(tmp_path, "wo\n\nfr\n en \n")},
        "pairs": {"langs": None, "lang_pairs": "wo-en,en-fr"},
    }[how]
    args = arguments(**changes)
    pairs = args.lang_pairs.split(",")
    expected = MultilingualDatasetManager.load_langs(Namespace(**{**vars(args), "lang_pairs": pairs}))
    resolve_languages(args)
    assert args.langs == expected
    assert args.lang_dict is None
    assert used_languages(args) == list(dict.fromkeys(name for pair in pairs for name in pair.split("-")))
    resolve_languages(args)  # as of a checkpoint, which stores the resolved list
    assert args.langs == expected


def test_languages_of_further_data_belong_to_the_list(caplog) -> None:
    extra = {"extra_data": {"mined": "folder"}, "extra_lang_pairs": {"mined": "nl-en,en-nl"}}
    args = arguments(langs=None, lang_pairs="en-fr", **extra)
    resolve_languages(args)
    assert args.langs == ["en", "fr", "nl"]
    assert used_languages(args) == ["en", "fr", "nl"]
    assert "--langtoks does not name mined, so fairseq adds no language tokens to its sentences" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        resolve_languages(
            arguments(langs=["en", "fr", "nl"], langtoks={"mined": ("src", "tgt")}, **extra, lang_pairs="en-fr")
        )
    assert not caplog.text


MINED = {"extra_data": {"mined": "folder"}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lang_pairs": None}, "--lang-pairs is missing"),
        ({"lang_pairs": "en-fr,en"}, "--lang-pairs has 'en'; expected directions such as en-fr"),
        ({"lang_pairs": "en-fr-wo"}, "--lang-pairs has 'en-fr-wo'"),
        ({"lang_pairs": "en-fr,"}, "--lang-pairs has ''"),
        ({"lang_pairs": "pairs.txt"}, "--lang-pairs has 'pairs.txt'"),
        ({"lang_pairs": "en-fr,wo-en,en-fr"}, "--lang-pairs names 'en-fr' twice; name each direction once"),
        ({"lang_pairs": "en-nl"}, "--lang-pairs has en-nl, but 'nl' is not in --langs en,fr,wo"),
        ({"langs": ["en", "fr", "en"]}, "--langs names 'en' twice"),
        ({"langs": ["en", "", "fr"]}, "--langs 'en,,fr' has an empty name"),
        ({"langs": ["en", "fr", "zh-Hans"]}, "--langs names 'zh-Hans', but fairseq joins the languages of a direction"),
        ({"langs": ["en", "fr", "w o"]}, "--langs names 'w o'"),
        ({"lang_dict": "langs.txt"}, "--langs and --lang-dict langs.txt both name the languages; give one of them"),
        ({"langs": None, "lang_dict": "nowhere.txt"}, "--lang-dict cannot be read (nowhere.txt: No such file"),
        ({"langs": None, "lang_dict": "/"}, "--lang-dict cannot be read"),
        ({"source_lang": "nl", "target_lang": "en"}, "--source-lang nl is not in --langs en,fr,wo"),
        ({"source_lang": "en", "target_lang": "nl"}, "--target-lang nl is not in --langs en,fr,wo"),
        (
            {"extra_lang_pairs": {"mined": "en-fr"}},
            "--extra-lang-pairs names 'mined', but --extra-data has no folder",
        ),
        (MINED, "--extra-data names 'mined', but --extra-lang-pairs has no directions"),
        ({**MINED, "extra_lang_pairs": ["en-fr"]}, "--extra-lang-pairs ['en-fr']: expected a dictionary"),
        ({**MINED, "extra_lang_pairs": {"mined": ["en-fr"]}}, "expected a dictionary of names and texts"),
        ({**MINED, "extra_lang_pairs": {"mined": "en-nl"}}, "--extra-lang-pairs mined has en-nl, but 'nl' is not in"),
        ({**MINED, "extra_lang_pairs": {"mined": "fr"}}, "--extra-lang-pairs mined has 'fr'; expected directions"),
        ({**MINED, "extra_lang_pairs": {"mined": "en-fr,en-fr"}}, "--extra-lang-pairs mined names 'en-fr' twice"),
    ],
)
def test_what_names_no_list_is_one_sentence(changes, words) -> None:
    with pytest.raises(UserError) as refusal:
        resolve_languages(arguments(**changes))
    assert words in str(refusal.value)
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize(("text", "words"), [("\n \n", "is empty"), ("en\nfr\nen\n", "names 'en' twice")])
def test_a_file_of_languages_that_is_none_is_named(tmp_path, text, words) -> None:
    path = listed(tmp_path, text)
    with pytest.raises(UserError, match=words) as refusal:
        resolve_languages(arguments(langs=None, lang_dict=path))
    assert f"--lang-dict {path}" in str(refusal.value)


def test_of_one_direction_two_languages_are_used() -> None:
    assert used_languages(arguments(source_lang="wo", target_lang="fr")) == ["wo", "fr"]
