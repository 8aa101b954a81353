"""What ``{NAME}`` stands for in the command lines of a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from langspec_lora.errors import UserError
from langspec_lora.study.places import Places

PLACES = Places(
    Path("recipes/r.yaml"),
    {"text": Path("out/data/text"), "more": Path("out/data/more")},
    {
        "levels": "--levels {recipe}/l.yaml {size}",
        "size": "--size '1 2'",
        "pairs": "{more}/pairs",
        "none": "",
        "me": "x {you}",
        "you": "{me}",
        "open": "a 'b",
    },
)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["{text}", "a{text}/b"], ["out/data/text", "aout/data/text/b"]),
        (["{levels}"], ["--levels", "recipes/l.yaml", "--size", "1 2"]),  # as an unquoted variable of a shell
        (["{none}", "a"], ["a"]),
        (["x={none}"], ["x="]),
        (["--pairs={pairs}"], ["--pairs=out/data/more/pairs"]),
        (["{'a': 1}", "{}", "{ text }"], ["{'a': 1}", "{}", "{ text }"]),
    ],
)
def test_words_stand_for(words: list[str], found: list[str]) -> None:
    assert PLACES.words(words) == found


def test_data_within_variables_are_found_too() -> None:
    assert PLACES.data_in(["{levels}", "--pairs={pairs}", "{text}/x", "{text}"]) == ["text", "more"]
    assert PLACES.data_in(["{me}", "{tetx}"]) == []


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("{tetx}", r"recipe recipes/r\.yaml: \{tetx\} is no data made before it and no variable; did you mean text\?"),
        ("{me}", "stands for itself"),
        ("a{you}", "stands for itself"),
        ("{open}", "variable open: no closing quotation in"),
    ],
)
def test_a_name_without_a_meaning_is_refused(word: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        PLACES.words([word])
