"""The limits of a training pair at their edges; the plain loop over whole text is in ``test_prepare.py``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from langspec_lora.data.own_text.filters import Limits, Part, training_lines
from langspec_lora.data.own_text.text_files import Column

SOURCE, TARGET = Column("en", Path("en")), Column("fr", Path("fr"))


class Numbers:
    """Lines that all differ, of given lengths without end of sentence."""

    def __init__(self, *lengths: tuple[int, int], same: int = 0) -> None:
        self._lengths = {SOURCE: [one for one, _ in lengths], TARGET: [two for _, two in lengths]}
        self._same = same

    def lines(self, column: Column) -> int:
        return len(self._lengths[column])

    def exact(self, column: Column) -> np.ndarray:
        numbers = np.arange(1, self.lines(column) + 1, dtype=np.uint64)
        numbers[: self._same] = 7
        return numbers

    def is_held_out(self, column: Column) -> np.ndarray:
        return np.zeros(self.lines(column), dtype=bool)

    def sizes(self, column: Column) -> np.ndarray:
        return np.array(self._lengths[column], dtype=np.int32) + 1


@pytest.mark.parametrize(
    ("lengths", "removed"),
    [
        ((250, 250), None),
        ((251, 250), "length"),
        ((250, 251), "length"),
        ((1, 3), None),
        ((3, 1), None),
        ((1, 4), "ratio"),
        ((31, 10), "ratio"),
        ((10, 30), None),
    ],
)
def test_limits_count_tokens_without_end_of_sentence(lengths, removed) -> None:
    found = training_lines(Numbers(lengths), [Part(SOURCE, TARGET)], Limits())
    assert {name for name, count in found.removed.items() if count} == ({removed} if removed else set())
    assert found.kept == found.rows[0].sum() == (0 if removed else 1)


@pytest.mark.parametrize("keep", [False, True])
def test_the_first_of_duplicates_is_kept_and_lines_that_were_cut_are_not_counted(keep) -> None:
    numbers = Numbers(*[(5, 5)] * 6, same=4)
    cut = np.array([False, True, True, True, True, True])
    found = training_lines(numbers, [Part(SOURCE, TARGET, cut)], Limits(duplicates=keep))
    assert found.rows[0].tolist() == [False, True, keep, keep, True, True]
    assert (found.read, found.kept, found.removed["duplicate"]) == (5, 5 if keep else 3, 0 if keep else 2)
