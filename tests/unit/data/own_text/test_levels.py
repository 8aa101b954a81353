"""Suggested resource levels, and the file of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from langspec_lora.data.own_text.levels import doubt, levels_text, suggest_levels
from langspec_lora.resources import read_resources


def test_levels_begin_at_a_million_and_a_hundred_thousand_sentences() -> None:
    sentences = {"a": 1_000_000, "b": 999_999, "c": 100_000, "d": 99_999, "e": 0}
    assert suggest_levels(sentences) == {"a": "high", "b": "med", "c": "med", "d": "low", "e": "low"}
    assert suggest_levels({"a": 5, "b": 4, "c": 2}, high=5, med=3) == {"a": "high", "b": "med", "c": "low"}


@pytest.mark.parametrize(
    ("sentences", "words"),
    [
        ({"a": 900, "b": 997}, "have about as many training sentences, so all are low"),
        ({"a": 900, "b": 9000}, "have low resources by these bounds"),
        ({"a": 900, "b": 900_000}, None),
        ({"a": 900}, None),
    ],
)
def test_levels_that_say_nothing_are_mentioned(sentences, words) -> None:
    text = doubt(sentences, suggest_levels(sentences))
    assert (text is None) == (words is None)
    assert words is None or words in str(text)


def test_the_file_reads_back_whatever_the_names_are(tmp_path: Path) -> None:
    names = ["no", "y", "on", "1e3", "#x", "&a", "!b", "@c", "%d", "~", "null", "ኣማ", "0x1f"]
    levels = {name: ("high", "low")[number % 2] for number, name in enumerate(names)}
    (tmp_path / "levels.yaml").write_text(levels_text(levels, {"no": 3}, "a comment"), encoding="utf-8")
    resources = read_resources(tmp_path / "levels.yaml")
    assert (resources.levels, resources.ranks) == (levels, {"no": 3})
