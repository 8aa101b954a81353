"""Long lists of names in messages."""

from __future__ import annotations

import pytest

from langspec_lora.naming import did_you_mean, some_of


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, ""),
        (1, "l0"),
        (3, "l0, l1, l2"),
        (25, "l0, l1, l2, l3, l4, l5, l6, l7, … l24 (25)"),
        (39_800, "l0, l1, l2, l3, l4, l5, l6, l7, … l39799 (39,800)"),
    ],
)
def test_long_lists_show_the_first_the_last_and_the_number(count, expected) -> None:
    assert some_of(f"l{number}" for number in range(count)) == expected


def test_lists_of_up_to_24_names_are_whole() -> None:
    assert some_of(range(24)) == ", ".join(map(str, range(24)))


@pytest.mark.parametrize(
    ("word", "hint"), [("sedes", "did you mean seeds? "), ("xyz", ""), ("seed", "did you mean seeds? ")]
)
def test_the_nearest_known_name_is_offered(word: str, hint: str) -> None:
    assert did_you_mean(word, ["variants", "seeds", "data"]) == hint
