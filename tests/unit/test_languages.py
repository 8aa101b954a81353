"""Languages, levels and ranks: what a file of levels may say, and what each mistake in one gets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from langspec_lora.errors import UserError
from langspec_lora.languages import LEVELS, PAPER_RESOURCES, LanguageTable, read_resources
from tests import ROOT

CONFIGS = ROOT / "configs" / "languages"
RANKS = {"high": 2, "med": 3, "low": 8}


def file(folder: Path, text: str) -> Path:
    path = folder / "levels.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal_of(path: Path) -> str:
    with pytest.raises(UserError) as refusal:
        read_resources(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def test_levels_ranks_and_flores_codes_are_read_by_name(tmp_path) -> None:
    text = "high: [en, fr]\nmed: [nl]\nlow:\n  - wo\n  - sd\nranks: {wo: 16, en: 1}\nflores: {zh: zho_simpl}\n"
    resources = read_resources(file(tmp_path, text))
    assert resources.levels == {"en": "high", "fr": "high", "nl": "med", "wo": "low", "sd": "low"}
    assert resources.ranks == {"wo": 16, "en": 1}
    assert resources.flores == {"zh": "zho_simpl"}


def test_words_with_a_meaning_in_yaml_are_names(tmp_path) -> None:
    resources = read_resources(file(tmp_path, "high: [no, on, yes]\nmed: [nan, null, 1e3]\nlow: [~, 007]\n"))
    assert list(resources.levels) == ["no", "on", "yes", "nan", "null", "1e3", "~", "007"]


@pytest.mark.parametrize("text", ["high: [en]\nmed:\nlow: []\n", "high: [en]\n", "\ufeffhigh: [en]\n"])
def test_levels_without_languages_may_be_empty_or_missing(tmp_path, text) -> None:
    assert read_resources(file(tmp_path, text)).levels == {"en": "high"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no level; expected lines such as 'high: [en, fr]'"),
        ("en\n", "has no level"),
        ("[en, fr]\n", "has no level"),
        ("ranks: {en: 2}\n", "has no level"),
        ("high: [en\nlow: ]", "is not valid YAML"),
        ("high: [en]\n\tlow: [wo]\n", "is not valid YAML"),
        ("[" * 5000, "is not valid YAML"),
        ("high: [en]\nmedium: [nl]\n", "unknown key 'medium'; expected high, med, low"),
        ("high: [en]\n{a: b}: [nl]\n", "is not valid YAML"),
        ("high: en\n", "'high' must hold a list of languages"),
        ("high: {en: 2}\n", "'high' must hold a list of languages"),
        ("high: [[en, fr]]\n", "'high' must hold a list of languages"),
        ("high: [en]\nlow: [wo, en]\n", "'en' is listed twice, under 'high' and 'low'"),
        ("high: [en, en]\n", "'en' is listed twice, under 'high' and 'high'"),
        ("high: [en]\nranks: [2]\n", "'ranks' must map languages to single values"),
        ("high: [en]\nranks: {en: [2]}\n", "'ranks' must map languages to single values"),
        ("high: [en]\nranks: {en: 1_0}\n", "'1_0' is not a rank"),
        ("high: [en]\nranks: {en: ٣}\n", "'٣' is not a rank"),
        ("high: [en]\nhigh: [fr]\n", "the key 'high' is given twice; give each key once"),
        ("high: [en]\nranks: {en: 2, en: 8}\n", "the key 'en' is given twice"),
        ("high: [en]\nflores: {en: eng}\nflores: {en: fra}\n", "the key 'flores' is given twice"),
        ("high: [en, '']\n", "'high' must hold a list of languages"),
        ("high: [en]\nranks: {en: ''}\n", "'ranks' has an empty name or value next to 'en'"),
        ("high: [en]\nflores: {'': eng}\n", "'flores' has an empty name or value next to 'eng'"),
        ("high: [en]\nranks: {en: 0}\n", "ranks: en: rank 0 was given; expected a whole number of at least 1"),
        ("high: [en]\nranks: {en: -4}\n", "rank -4 was given"),
        ("high: [en]\nranks: {en: 2.5}\n", "'2.5' is not a rank"),
        ("high: [en]\nranks: {en: two}\n", "'two' is not a rank"),
        ("high: [en]\nranks: {nl: 4}\n", "'nl' has a rank but no level"),
        # the first of two mistakes
        ("med: [nl]\nhigh: [en]\nhigh: [fr]\nmed: [sd]\n", "the key 'med' is given twice"),
        ("high: [en]\nranked: {}\nlower: [wo]\n", "unknown key 'lower'"),
        ("high: [en]\nranks: {wo: 2, nl: 4}\n", "'wo' has a rank but no level"),
        ("high: [en]\nflores: {sd: '', nl: ''}\n", "'flores' has an empty name or value next to 'sd'"),
    ],
)
def test_mistake_in_the_file_is_named_in_one_line(tmp_path, text, words) -> None:
    assert words in refusal_of(file(tmp_path, text))


def test_file_is_read_as_utf_8_on_every_system(tmp_path) -> None:
    path = file(tmp_path, "high: [日本]\n")
    program = f"from langspec_lora.languages import read_resources; print(ascii(read_resources({str(path)!r}).levels))"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ascii({"日本": "high"})


def test_file_that_cannot_be_read_is_named(tmp_path) -> None:
    assert "No such file" in refusal_of(tmp_path / "nowhere.yaml")
    assert "Is a directory" in refusal_of(tmp_path)
    (tmp_path / "other").write_bytes("high: [é]".encode("utf-16"))
    assert "is not valid YAML" in refusal_of(tmp_path / "other")


def test_ids_follow_the_order_of_names_and_ranks_the_levels(tmp_path) -> None:
    resources = read_resources(file(tmp_path, "high: [en]\nmed: [nl]\nlow: [wo, sd]\nranks: {sd: 16}\n"))
    table = LanguageTable.build(["sd", "en", "wo", "nl"], resources, RANKS)
    assert (table.names, len(table)) == (("sd", "en", "wo", "nl"), 4)
    assert table.levels == ("low", "high", "low", "med")
    assert table.ranks == (16, 2, 8, 3)
    assert [table.id(name) for name in ("sd", "en", "wo", "nl")] == [0, 1, 2, 3]
    with pytest.raises(UserError, match="unknown language 'xx'; the model has adapters for sd, en, wo, nl"):
        table.id("xx")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["en", "xx", "wo", "yy"], "no resource level for xx, yy .*levels come from the built-in.*--lang-resources"),
        (["en", "fr", "en"], "--langs names 'en' twice"),
        (["fr", "en", "it", "it", "fr", "en"], "--langs names 'fr' twice"),
        ([], "--langs '' has an empty name"),
        (["en", "", "fr"], "--langs 'en,,fr' has an empty name"),
    ],
)
def test_wrong_languages_are_named(names, words) -> None:
    with pytest.raises(UserError, match=words):
        LanguageTable.build(names, PAPER_RESOURCES, RANKS)


@pytest.mark.parametrize("rank", [0, -1, "two"])
@pytest.mark.parametrize("level", LEVELS)
def test_wrong_rank_of_a_level_is_named_by_its_flag(level, rank) -> None:
    with pytest.raises(UserError, match=f"--{level}-rank: .*{rank}.* expected a whole number of at least 1"):
        LanguageTable.build(["en"], PAPER_RESOURCES, {**RANKS, level: rank})


def test_file_of_the_twelve_is_the_built_in_table() -> None:
    assert read_resources(CONFIGS / "twelve.yaml").levels == PAPER_RESOURCES.levels


def test_file_of_the_thirty_has_thirty_languages_with_flores_codes_and_the_twelve_levels() -> None:
    resources = read_resources(CONFIGS / "thirty.yaml")
    assert len(resources.levels) == 30
    assert resources.flores.keys() == resources.levels.keys()
    assert PAPER_RESOURCES.levels.items() <= resources.levels.items()
