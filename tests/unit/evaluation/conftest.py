"""A model of random weights, and a stand-in for the decoder."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from langspec_lora.data.directions import Direction
from langspec_lora.evaluation import evaluate as evaluation
from langspec_lora.evaluation import scoreboard
from langspec_lora.evaluation.scoring import TargetScorer
from tests import toy
from tests.bad_input import write_checkpoint
from tests.evaluations import stand_in_hypotheses


@pytest.fixture(scope="module")
def checkpoint(toy_data, tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model") / "model.pt", toy.plugin_flags(toy_data))


class Clock:
    """A clock that goes only when it is told to."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def decoders(monkeypatch, toy_data) -> SimpleNamespace:
    """Puts a stand-in in the place of the decoder: 3 seconds to load, and 5 for a direction, whose scores take 2.

    ``given`` are its arguments, ``asked`` what each has translated, and ``scored`` how many scores lay in ``file``.
    """
    seen = SimpleNamespace(given=[], asked=[], clock=Clock(), has_adapters=True, file=Path("nowhere"), scored=[])

    class Decoder:
        has_adapters = property(lambda self: seen.has_adapters)

        def __init__(self, *args: object) -> None:
            seen.given.append(args)
            seen.clock.now += 3

        def groups(self, directions) -> list[dict[Direction, int]]:
            return [dict.fromkeys(directions, toy.SIZES["test"])]

        def translate(self, directions, progress):
            seen.asked.append(list(map(str, directions)))
            for direction in directions:
                seen.clock.now += 5
                seen.scored.append(seen.file.is_file() and len(json.loads(seen.file.read_text())["directions"]))
                progress(toy.SIZES["test"])
                yield direction, stand_in_hypotheses(toy_data, direction)

    score = TargetScorer.score

    def slow(*args):
        seen.clock.now += 2
        return score(*args)

    monkeypatch.setattr(evaluation, "Decoder", Decoder)
    monkeypatch.setattr(TargetScorer, "score", slow)
    for module in (evaluation, scoreboard):
        monkeypatch.setattr(module, "time", seen.clock)
    return seen
