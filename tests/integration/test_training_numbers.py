"""Numbers that no training can work with end it in one sentence, before a model is built."""

from __future__ import annotations

import pytest

from tests import toy
from tests.bad_input import refusal_of

ADAM = ("--optimizer", "adam", "--lr", "1e-3")


@pytest.mark.usefixtures("unbuilt")
@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--lr", "-0.1"),
        ("--update-freq", "0"),
        ("--clip-norm", "nan"),
        ("--clip-norm", "-1.0"),
        ("--label-smoothing", "1.5"),
        ("--dropout", "1.5"),
        ("--dropout", "nan"),
        ("--attention-dropout", "-0.1"),
        ("--decoder-layerdrop", "2.0"),
        ("--weight-decay", "nan"),
        ("--max-tokens", "0"),
        ("--batch-size", "-1"),
        ("--max-epoch", "-1"),
        ("--max-update", "-1"),
        ("--optimizer-overrides", "{"),
        ("--optimizer-overrides", "[1]"),
    ],
)
def test_number_is_refused(toy_data, flag, value) -> None:
    assert f"{flag} {value}: expected" in refusal_of(toy.build, toy.plugin_flags(toy_data, *ADAM, flag, value))


def test_numbers_at_the_ends_of_their_ranges_are_taken(toy_data) -> None:
    ends = ("--lr", "0", "--update-freq", "1,2", "--clip-norm", "0", "--label-smoothing", "0", "--dropout", "1")
    toy.build(toy.plugin_flags(toy_data, *ADAM, *ends, "--max-epoch", "0", "--optimizer-overrides", "{'lr': 0.1}"))
