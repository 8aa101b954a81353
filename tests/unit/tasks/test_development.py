"""Which validation sentences are translated while a model trains."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise, permutations

import pytest

from langspec_lora.tasks.development import choose


def chosen(languages: int, count: int, number: int) -> list[tuple[int, int]]:
    directions = list(permutations(range(languages), 2))
    return [(directions[d], n) for d, n in choose(directions, [count] * len(directions), number)]


@pytest.mark.parametrize("number", [1, 20, 47, 100, 240, 10_000])
def test_directions_differ_by_at_most_one_sentence_and_none_is_taken_twice(number) -> None:
    found = chosen(5, 12, number)
    assert len(found) == len(set(found)) == min(number, 240)
    per_direction = Counter(direction for direction, _ in found)
    counts = [per_direction[direction] for direction in permutations(range(5), 2)]
    assert max(counts) - min(counts) <= 1
    assert all(0 <= n < 12 for _, n in found)


@pytest.mark.parametrize("number", [200, 400, 2000])
def test_two_hundred_languages_are_balanced_though_most_directions_are_left_out(number) -> None:
    found = chosen(200, 100, number)
    for side in (0, 1):
        counts = Counter(direction[side] for direction, _ in found)
        assert set(counts.values()) == {number // 200}


def test_sentences_of_a_direction_are_spread_over_its_text() -> None:
    found = chosen(3, 1000, 60)
    for direction in permutations(range(3), 2):
        numbers = sorted(n for d, n in found if d == direction)
        assert {b - a for a, b in pairwise(numbers)} == {100}


def test_directions_do_not_all_have_the_same_sentences() -> None:
    assert len({n for _, n in chosen(5, 12, 20)}) > 5


def test_short_directions_leave_their_share_to_others() -> None:
    found = Counter(d for d, _ in choose([(0, 1), (1, 0), (1, 2)], [2, 50, 0], 30))
    assert found == {0: 2, 1: 28}


def test_nothing_to_choose_from() -> None:
    assert choose([], [], 10) == []
    assert choose([(0, 1)], [0], 10) == []
