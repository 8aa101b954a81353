"""Languages, levels and ranks: what a file of levels may say, and what each mistake in one gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from langspec_lora.errors import UserError
from langspec_lora.languages import (
    LEVELS,
    PAPER_RESOURCES,
    LanguageTable,
    Resources,
    languages_from_json,
    languages_to_json,
)
from langspec_lora.resources import read_resources
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
        ("high: [en]\nranks: [2]\n", "'ranks' must map names to single values"),
        ("high: [en]\nranks: {en: [2]}\n", "'ranks' must map names to single values"),
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
    program = f"from langspec_lora.resources import read_resources; print(ascii(read_resources({str(path)!r}).levels))"
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


PATHS = ("../../x", "/abs/x", "..", ".", "a/b", "a\\b", "a\0b")
SEPARATED = ("", " ", " en", "en ", "e n", "en,fr", "zh-Hans", "a:b", "pt.BR", "a|b", "*", "a\nb", "a\tb")
UNSEEN = ("\x1b[2J", "\x9b2J", "\u202een", "\u2028", "\udc80")
BAD_NAMES = [*PATHS, *SEPARATED, *UNSEEN, "x" * 81, "ñ" * 41, 3, None, True, b"en"]


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_name_that_is_no_name_is_refused_by_every_table(name, tmp_path) -> None:
    """Wherever it comes from: a path, a list, a token or a terminal would take it for something else."""
    with pytest.raises(UserError, match=r"a language's name|such as en,fr|longer than 80 bytes") as refusal:
        LanguageTable(("en", name), ("high", "low"), (2, 8))
    assert str(refusal.value).isprintable()
    if not isinstance(name, bytes):
        text = json.dumps({"names": ["en", name], "levels": ["high", "low"], "ranks": [2, 8]})
        with pytest.raises(UserError, match=r"^the checkpoint's table of languages was refused"):
            languages_from_json(text)
    if isinstance(name, str):
        with pytest.raises(UserError):
            LanguageTable.build(["en", name], Resources({"en": "high", name: "low"}), RANKS)
        path = tmp_path / "levels.yaml"
        path.write_text(json.dumps({"high": ["en"], "low": [name]}), encoding="utf-8", errors="surrogatepass")
        refusal_of(path)


@pytest.mark.parametrize(
    "name", ["zh_Hans", "eng_Latn", "en_XX", "日本", "ଓଡ଼ିଆ", "~", "007", "x" * 80, "sr@latin", "a+b"]
)
def test_name_of_letters_of_any_script_is_taken(name) -> None:
    table = LanguageTable(("en", name), ("high", "low"), (2, 8))
    assert languages_from_json(languages_to_json(table)) == table


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"names": ["en", "en"]}, "names 'en' twice"),
        ({"names": []}, "names no language"),
        ({"levels": ["high"]}, "has 2 names and 1 levels"),
        ({"ranks": [2, 8, 8]}, "has 2 names and 3 ranks"),
        ({"levels": ["high", "rare"]}, "the level of wo is 'rare'; expected high, med, low"),
        ({"levels": ["high", None]}, "the level of wo is None"),
        ({"ranks": [2, 0]}, "the rank of wo: rank 0 was given"),
        ({"ranks": [2, -8]}, "the rank of wo: rank -8 was given"),
        ({"ranks": [2, True]}, "the rank of wo: True is not a rank"),
        ({"ranks": [2, "3"]}, "the rank of wo is '3', a text"),
        ({"ranks": [2, 8.0]}, "the rank of wo: 8.0 is not a rank"),
        ({"ranks": [2, "8x"]}, "the rank of wo: '8x' is not a rank"),
        ({"ranks": [2, None]}, "the rank of wo: None is not a rank"),
        ({"ranks": [2, 10**9]}, "rank 1000000000 of wo exceeds 1048576, the width of the widest"),
    ],
)
def test_stored_table_that_cannot_be_is_refused_with_the_reason(changes, words) -> None:
    table = {"names": ["en", "wo"], "levels": ["high", "low"], "ranks": [2, 8]}
    assert languages_from_json(json.dumps(table)).ranks == (2, 8)
    with pytest.raises(UserError, match=f"^the checkpoint's table of languages was refused: .*{words}"):
        languages_from_json(json.dumps({**table, **changes}))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"names": "en", "levels": "high", "ranks": "2"}', "[" * 100_000]
)
def test_stored_table_that_is_no_table_is_damaged(text) -> None:
    with pytest.raises(UserError, match=r"^the checkpoint's table of languages is damaged; download it again"):
        languages_from_json(text)


def test_flipped_bit_of_a_stored_table_is_named_without_its_checkpoint() -> None:
    table = LanguageTable(("en", "wo", "zh_Hant"), ("high", "low", "med"), (2, 16, 3))
    text, refused = languages_to_json(table).encode(), 0
    for place in range(8 * len(text)):
        changed = bytearray(text)
        changed[place // 8] ^= 1 << place % 8
        try:
            found = languages_from_json(changed.decode("utf-8", "replace"))
        except UserError:
            refused += 1
        else:
            assert found == table, changed
    assert refused > 0.95 * 8 * len(text)


@pytest.mark.parametrize(
    "changes", [{"ranks": [2, 9]}, {"names": ["en", "sd"]}, {"levels": ["med", "low"]}, {"ranks": [2, 8.0]},
                {"sha256": None}, {"sha265": 1}],
)  # fmt: skip
def test_stored_table_that_is_not_the_one_that_was_hashed_is_damaged(changes) -> None:
    text = languages_to_json(LanguageTable(("en", "wo"), ("high", "low"), (2, 8)))
    with pytest.raises(UserError, match=r"^the checkpoint's table of languages is damaged; download it again"):
        languages_from_json(json.dumps({**json.loads(text), **changes}))


def test_stored_table_of_an_earlier_version_has_no_hash() -> None:
    text = '{"names": ["en", "wo"], "levels": ["high", "low"], "ranks": [2, 8]}'
    assert languages_from_json(text) == LanguageTable(("en", "wo"), ("high", "low"), (2, 8))
