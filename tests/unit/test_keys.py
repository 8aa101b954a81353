"""What an adapter belongs to: languages, groups, directions, or all."""

from __future__ import annotations

import pytest

from langspec_lora.errors import UserError
from langspec_lora.keys import (
    ADAPTER_KEYS,
    SHARED_NAME,
    KeyLayout,
    check_directions,
    key_layout,
    key_names,
    keys_of,
    kind_of_key,
    with_directions,
    with_groups,
    with_shared,
)
from langspec_lora.languages import LanguageTable, languages_from_json, languages_to_json
from langspec_lora.resources import Groups, read_groups

TABLE = LanguageTable(("en", "fr", "wo", "sd"), ("high", "high", "low", "low"), (2, 3, 8, 4))
GROUPS = Groups({"fr": "romance", "en": "germanic", "wo": "rest", "sd": "rest", "it": "romance"}, {"romance": 5})
GROUPED = with_groups(TABLE, GROUPS, "groups.yaml")
DIRECTED = with_directions(TABLE, [("en", "wo"), ("wo", "en"), ("en", "fr")])


def test_languages_are_their_own_keys() -> None:
    assert keys_of(TABLE, "src") == keys_of(TABLE, "tgt") == (TABLE.names, TABLE.levels, TABLE.ranks)
    assert [key_names(TABLE, side, "en", "wo") for side in ("src", "tgt")] == [("en",), ("wo",)]
    assert key_layout(TABLE, {"src"}) == KeyLayout.by_language(TABLE.ranks)


def test_a_group_has_its_languages_level_and_the_sum_of_their_ranks_unless_the_file_gives_one() -> None:
    assert keys_of(GROUPED, "src") == (("germanic", "romance", "rest"), ("high", "high", "low"), (2, 5, 12))
    assert key_layout(GROUPED, {"src"}).key_of_language == (0, 1, 2, 2)
    assert key_names(GROUPED, "tgt", "en", "sd") == ("rest",)
    mixed = with_groups(TABLE, Groups(dict.fromkeys(TABLE.names, "one")), "groups.yaml")
    assert keys_of(mixed, "src") == (("one",), ("mixed",), (17,))


def test_a_direction_has_the_larger_rank_and_the_lower_level_of_its_languages() -> None:
    assert keys_of(DIRECTED, "direction") == (("en-wo", "wo-en", "en-fr"), ("low", "low", "high"), (8, 8, 3))
    layout = key_layout(DIRECTED, {"direction"})
    assert [layout.keys("direction", *pair) for pair in ((0, 2), (2, 0), (0, 1))] == [(0,), (1,), (2,)]
    assert layout.packed["direction"].slice(2) == slice(16, 19)
    with pytest.raises(UserError, match=r"^each direction has its own adapter, and fr-en was not trained; the"):
        key_names(DIRECTED, "direction", "fr", "en")
    check_directions(DIRECTED, [("en", "wo")])
    check_directions(TABLE, [("fr", "en")])


def test_the_shared_adapter_has_as_many_parameters_as_those_of_the_languages_unless_its_rank_is_given() -> None:
    assert keys_of(with_shared(TABLE, None), "shared") == ((SHARED_NAME,), ("mixed",), (17,))
    assert keys_of(with_shared(TABLE, 6), "shared").ranks == (6,)
    assert key_names(with_shared(TABLE, 6), "shared", "en", "fr") == (SHARED_NAME,)
    assert key_layout(with_shared(TABLE, 6), {"shared"}).keys("shared", 3, 1) == (0,)


def test_keys_that_only_some_languages_use() -> None:
    whole = with_shared(with_directions(GROUPED, [("en", "wo"), ("en", "fr"), ("wo", "sd")]), 1)
    layout = key_layout(whole, {"shared"})
    assert layout.only_for("src", [0, 2]) == (0,)  # wo shares its group with sd
    assert layout.only_for("tgt", [2, 3]) == (2,)
    assert layout.only_for("direction", [2]) == (0, 2)
    assert layout.only_for("shared", [0, 1, 2]) == ()
    assert layout.only_for("shared", range(4)) == (0,)


@pytest.mark.parametrize(
    ("table", "sides", "kind"),
    [
        (TABLE, {"src", "tgt"}, "language"),
        (GROUPED, {"tgt"}, "group"),
        (DIRECTED, {"direction"}, "direction"),
        (TABLE, {"shared"}, "shared"),
        (TABLE, {"src", "shared"}, "key"),
    ],
)
def test_the_kind_of_a_model_s_keys(table, sides, kind) -> None:
    assert kind_of_key(table, sides) == kind
    assert kind in (*ADAPTER_KEYS, "key")


@pytest.mark.parametrize("table", [TABLE, GROUPED, DIRECTED, with_shared(with_directions(GROUPED, [("en", "fr")]), 3)])
def test_a_table_is_read_as_it_was_written(table) -> None:
    text = languages_to_json(table)
    assert languages_from_json(text) == table
    assert ("groups" in text) == bool(table.groups)
    for rank in ("5", "3"):
        if f" {rank}" in text.partition('"sha256"')[0]:
            with pytest.raises(UserError, match="damaged"):
                languages_from_json(text.replace(f" {rank}", " 1", 1))


def test_fewer_languages_keep_their_groups_and_directions() -> None:
    whole = with_shared(with_directions(GROUPED, [("en", "wo"), ("en", "fr"), ("wo", "sd")]), 9)
    fewer = whole.select(("wo", "en"))
    assert (fewer.names, fewer.groups, fewer.shared_rank) == (("wo", "en"), ("rest", "germanic"), 9)
    assert dict(fewer.group_ranks) == {"germanic": 2, "rest": 12}
    assert dict(fewer.direction_ranks) == {"en-wo": 8}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"groups": ("a",), "group_ranks": {"a": 1}}, "4 names and 1 groups"),
        ({"groups": ("a", "a", "a", "b"), "group_ranks": {"a": 1}}, "other groups than ranks"),
        ({"groups": ("a", "a", "a", "../x"), "group_ranks": {"a": 1, "../x": 1}}, "cannot have '.'"),
        ({"direction_ranks": {"en-xx": 1}}, "list of directions has 'en-xx'"),
        ({"direction_ranks": {"en": 1}}, "list of directions has 'en'"),
        ({"direction_ranks": {"en-fr": 0}}, "rank of en-fr: rank 0"),
        ({"shared_rank": -1}, "rank -1"),
        ({"shared_rank": True}, "not a rank"),
    ],
)
def test_a_table_that_cannot_be_is_refused(change, words) -> None:
    with pytest.raises(UserError, match=words):
        LanguageTable(TABLE.names, TABLE.levels, TABLE.ranks, **change)


def test_groups_are_read_from_yaml(tmp_path) -> None:
    path = tmp_path / "groups.yaml"
    path.write_text("romance: [fr, it]\nrest: [en, no]\nranks: {romance: 5}\n")
    assert read_groups(path) == Groups({"fr": "romance", "it": "romance", "en": "rest", "no": "rest"}, {"romance": 5})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no group; expected lines such as 'romance: \\[fr, it, oc\\]'"),
        ("ranks: {a: 2}\n", "has no group"),
        ("a: [en]\na: [fr]\n", "the key 'a' is given twice"),
        ("a: [en]\nb: [fr, en]\n", "'en' is listed twice, under 'a' and 'b'"),
        ("a: en\n", "'a' must hold a list of languages"),
        ("a: [../x]\n", "cannot have '.'"),
        ("../x: [en]\n", "cannot have '.'"),
        ("a: [en]\nranks: {b: 2}\n", "ranks names 'b', which is not a group"),
        ("a: [en]\nranks: {a: 0}\n", "ranks: a: rank 0 was given"),
        ("a: [en\n", "is not valid YAML"),
    ],
)
def test_a_mistake_in_the_groups_is_named_in_one_line(tmp_path, text, words) -> None:
    path = tmp_path / "groups.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as refusal:
        read_groups(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    with pytest.raises(UserError, match=r"No such file or directory; give a YAML file of groups"):
        read_groups(tmp_path / "missing.yaml")


def test_a_language_without_a_group_is_named() -> None:
    with pytest.raises(UserError, match=r"^groups\.yaml leaves out wo, sd; put every language of --langs into a group"):
        with_groups(TABLE, Groups({"en": "a", "fr": "a"}), "groups.yaml")
