"""Sums of losses by language and direction, against a plain loop over sentences."""

from __future__ import annotations

import json
import math
from collections import defaultdict

import pytest
import torch

from langspec_lora.tasks.losses import LossSums, sums_by_language

NAMES = ("en", "fr", "wo")
LEVELS = {"en": "high", "fr": "high", "wo": "low"}
BATCHES = [
    ([2.0, 3.0, 5.0], [1.5, 2.5, 4.5], [1, 2, 4], [0, 1, 0], [2, 0, 1]),
    ([7.0, 1.0], [6.0, 0.5], [3, 1], [2, 0], [0, 2]),
]


def filled(directions: bool = True) -> LossSums:
    sums = LossSums(NAMES)
    for loss, nll, tokens, sources, targets in BATCHES:
        by_sentence = torch.tensor([loss, nll, tokens])
        # fairseq's collater makes ids (batch, 1)
        ids = (torch.tensor(sources).unsqueeze(1), torch.tensor(targets).unsqueeze(1))
        sums.add("name", sums_by_language(by_sentence, *ids, len(NAMES), directions))
    return sums


def expected(key, row: int) -> dict[str, float]:
    """The mean over tokens in base 2 of the sentences that have a key."""
    found: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for loss, nll, tokens, sources, targets in BATCHES:
        for values in zip(loss, nll, tokens, sources, targets, strict=True):
            found[key(NAMES[values[3]], NAMES[values[4]])].append((values[row], values[2]))
    return {
        name: pytest.approx(sum(v for v, _ in parts) / sum(n for _, n in parts) / math.log(2), abs=1e-4)
        for name, parts in found.items()
    }


@pytest.mark.parametrize("row", [0, 1])
def test_losses_by_language_are_those_of_a_plain_loop(row) -> None:
    losses = filled().get("name")
    assert losses.by_language("into", row) == expected(lambda source, target: target, row)
    assert losses.by_language("from", row) == expected(lambda source, target: source, row)


def test_losses_by_direction_group_and_level_are_those_of_a_plain_loop() -> None:
    losses = filled().get("name")
    assert losses.by_direction() == expected(lambda source, target: f"{source}-{target}", 1)
    assert losses.by_group(LEVELS) == expected(lambda source, target: f"{LEVELS[source]}-{LEVELS[target]}", 1)
    assert losses.by_level(LEVELS) == expected(lambda source, target: LEVELS[target], 1)
    assert list(losses.by_level(LEVELS)) == ["high", "low"]


def test_languages_without_a_level_are_in_no_group() -> None:
    losses = filled().get("name")
    assert list(losses.by_level({"wo": "low"})) == ["low"]
    assert losses.by_group({"wo": "low"}) == {}
    assert losses.by_level({}) == {}


def test_training_has_no_directions() -> None:
    assert filled(directions=False).get("name").by_direction() == {}
    assert filled(directions=False).get("name").by_group(LEVELS) == {}


def test_state_continues_bit_by_bit_and_only_for_the_same_languages() -> None:
    sums = filled()
    sums.add("other", torch.ones(3, 15, dtype=torch.float64))
    state = json.loads(json.dumps(sums.state()))
    again = LossSums(NAMES)
    again.restore(state, without="other")
    assert again.get("other") is None
    assert again.get("name").by_direction() == sums.get("name").by_direction()
    reordered = LossSums(NAMES[::-1])
    reordered.restore(state)
    assert reordered.get("name") is None


def test_reset_forgets_one_purpose() -> None:
    sums = filled()
    sums.reset("name")
    assert sums.get("name") is None
