"""Languages and ids of the released implementation, where its table holds and where somebody has changed it."""

from __future__ import annotations

from argparse import Namespace

import pytest

from langspec_lora.convert.lslo_languages import check_ranks, language_ids
from langspec_lora.errors import UserError
from langspec_lora.languages import LanguageTable, Resources

IDS = {
    "en": 0, "fr": 1, "it": 2, "de": 3, "nl": 4, "zh": 5, "ja": 6, "ko": 7, "oc": 8, "or": 9, "sd": 10, "wo": 11,
}  # fmt: skip
"""The table of the released code, as its authors published it."""


@pytest.mark.parametrize(
    ("present", "trained", "given", "expected"),
    [
        (range(12), list(IDS), None, list(IDS)),
        (range(12), [], None, list(IDS)),
        ([0, 4, 11], [], None, ["en", "nl", "wo"]),
        ([0, 4, 11], ["en", "nl", "wo"], None, ["en", "nl", "wo"]),
        ([0, 4, 11], ["xx", "yy"], ["en", "nl", "wo"], ["en", "nl", "wo"]),
    ],
)
def test_ids_are_those_of_the_table(present, trained, given, expected, capsys) -> None:
    ids = language_ids(present, trained, given, "checkpoint a.pt")
    assert list(ids.items()) == [(name, IDS[name]) for name in expected]
    assert capsys.readouterr().err == ""


def test_another_order_and_languages_that_are_left_out_are_told(capsys) -> None:
    ids = language_ids([0, 3, 4, 11], ["en", "nl", "wo"], ["wo", "en"], "checkpoint a.pt")
    assert list(ids.items()) == [("wo", 11), ("en", 0)]
    assert capsys.readouterr().err.splitlines() == [
        "langspec-lora: the ids are those of the released code, not the order of --langs: wo 11, en 0",
        "langspec-lora: left out, since --langs does not name them: de (3), nl (4)",
    ]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["en", ""], "--langs 'en,' has an empty name"),
        (["wo", "fr", "en", "en", "fr"], "--langs names 'fr' twice"),
    ],
)
def test_languages_that_are_no_list_are_refused(given, words) -> None:
    with pytest.raises(UserError) as refusal:
        language_ids(range(12), [], given, "checkpoint a.pt")
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("present", "trained", "given"),
    [
        (range(13), [*IDS, "xx"], None),
        (range(13), list(IDS), None),  # one more adapter than the table has languages
        (range(12), ["xx", *IDS][:12], None),  # as many, but one that it does not know
        (range(13), list(IDS), [*[*IDS][:11], "xx"]),
        ([*range(12), 13], [], [*IDS, "xx"]),
    ],
)
def test_a_changed_table_asks_for_all_languages_by_their_ids(present, trained, given) -> None:
    with pytest.raises(UserError) as refusal:
        language_ids(present, trained, given, "checkpoint a.pt")
    message = str(refusal.value)
    assert f"checkpoint a.pt has adapters for {len(present)} languages, ids 0 to {max(present)}" in message
    assert f"the languages {','.join(given or trained)}, but the released code knows only {','.join(IDS)}" in message
    assert "give all languages of the code that trained it, in the order of their ids, as --langs" in message


def test_languages_of_a_changed_table_have_the_ids_of_their_order(capsys) -> None:
    added = [*IDS, "xx"]
    assert language_ids(range(13), [], added, "a.pt") == {name: number for number, name in enumerate(added)}
    assert capsys.readouterr().err == ""
    moved = ["xx", "fr", "en"]
    assert language_ids(range(3), added, moved, "a.pt") == {"xx": 0, "fr": 1, "en": 2}
    said = capsys.readouterr().err
    assert said == "langspec-lora: --langs gives ids that differ from the released code: en 2 (not 0)\n"


TRAINED = Namespace(high_rank=2, med_rank=3, low_rank=4)


def check(names: dict[str, int], levels: str, ranks: tuple[int, ...], args=TRAINED, own=()) -> None:
    table = LanguageTable(tuple(names), tuple(levels.split()), ranks)
    resources = Resources(dict(zip(names, levels.split(), strict=True)), dict(own))
    check_ranks(table, names, args, resources, "checkpoint a.pt")


def test_ranks_of_the_training_are_taken() -> None:
    check({"en": 0, "wo": 11}, "high low", (2, 4))
    check({"en": 0, "wo": 11}, "low high", (2, 4))  # levels may be others today; the ranks are those of the table's
    check({"en": 0, "xx": 1}, "low high", (4, 2))
    check({"en": 0, "xx": 1}, "low high", (4, 7), own={"xx": 7})
    check({"en": 0, "wo": 11}, "high low", (7, 7), args=Namespace())  # which does not say


@pytest.mark.parametrize(
    ("names", "levels", "ranks", "words"),
    [
        (
            {"en": 0, "wo": 11},
            "low low",
            (4, 4),
            ("en has id 0, whose adapter has rank 4", "--high-rank 2; the code that trained it has other ids"),
        ),
        (
            {"xx": 0, "en": 1},
            "low med",
            (4, 4),
            ("en has id 1, whose adapter has rank 4", "--med-rank 3; give --langs in the order of its ids"),
        ),
        (
            {"en": 0, "xx": 1},
            "high low",
            (2, 4),
            ("xx has id 1, whose adapter has rank 4", "--low-rank 8; give --langs in the order of its ids"),
        ),
    ],
)
def test_other_ranks_than_those_of_the_training_are_another_languages(names, levels, ranks, words) -> None:
    with pytest.raises(UserError) as refusal:
        check(names, levels, ranks, own={"xx": 8} if words[0].startswith("xx") else {})
    message = str(refusal.value)
    assert message.startswith("checkpoint a.pt: ")
    assert all(part in message for part in words)
    assert "and its levels as --lang-resources" in message or "so its languages are not known" in message
