"""Which directions are decoded together, and which sentences are refused, with a stand-in for the model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fairseq import tasks

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.evaluation import decoding
from langspec_lora.evaluation.decoding import Decoder
from langspec_lora.evaluation.options import EvaluationOptions
from langspec_lora.generation import BatchLimits, GenerationSettings
from tests import toy
from tests.bad_input import remove

SIDES = [Direction(*pair.split("-")) for pair in toy.PAIRS]
LENGTHS = [len(meaning) + 2 for meaning in toy.sentences("test")]  # with the token of the language and the end
TOKENS = sum(LENGTHS)
FREE = 1000


@pytest.fixture(scope="module")
def task(toy_data) -> tasks.FairseqTask:
    return tasks.setup_task(toy.task_settings(toy.parse(toy.plugin_flags(toy_data))))


class Loaded:
    """Stands in for a loaded model; its hypotheses name the direction and the number of the sentence.

    Attributes:
        groups: the directions of each call, and whether their adapters were to be merged.
    """

    has_adapters = True

    def __init__(self, task: tasks.FairseqTask, positions: tuple[int, int], limits: BatchLimits) -> None:
        self.task, self.max_positions, self.limits = task, positions, limits
        self.groups = []

    def decode(self, datasets, merge: bool, progress) -> list[list[str]]:
        self.groups.append(([direction for direction, _ in datasets], merge))
        for _, dataset in datasets:
            progress(len(dataset))
        return [[f"{direction} {number}" for number in range(len(dataset))] for direction, dataset in datasets]


@pytest.fixture
def decoder(task, toy_data, monkeypatch):
    """Makes a decoder over a stand-in."""

    def make(
        max_tokens: int = FREE,
        batch_size: int | None = None,
        positions: tuple[int, int] = (FREE, FREE),
        data: Path = toy_data,
        generation: GenerationSettings = GenerationSettings(),  # noqa: B008  (it is frozen)
        **more: str,
    ) -> tuple[Decoder, Loaded]:
        limits = BatchLimits(max_tokens, batch_size)
        loaded = Loaded(task, positions, limits)
        given = []
        monkeypatch.setattr(decoding, "LoadedModel", lambda *args: given.extend(args) or loaded)
        options = EvaluationOptions(data, "spec", Path("out"), generation=generation, limits=limits, **more)
        made = Decoder(options, "files", SIDES)
        assert given == ["files", generation, limits, SIDES]
        return made, loaded

    return make


def sizes(loaded: Loaded) -> list[int]:
    return [len(group) for group, _ in loaded.groups]


def translated(decoder: Decoder) -> dict[Direction, list[str]]:
    """All directions, and a check that they come in their order, each with the sentences in theirs."""
    done = []
    found = []
    for group in decoder.groups(SIDES):
        assert set(group.values()) == {len(LENGTHS)}
        found += decoder.translate(list(group), done.append)
    assert [direction for direction, _ in found] == SIDES
    for direction, lines in found:
        assert lines == [f"{direction} {number}" for number in range(len(LENGTHS))]
    assert sum(done) == len(SIDES) * len(LENGTHS)
    return dict(found)


ALONE, TOGETHER = [1] * 20, [20]


@pytest.mark.parametrize(
    ("batching", "limits", "groups"),
    [
        ("auto", {"max_tokens": TOKENS}, ALONE),  # each fills a batch by its tokens
        ("auto", {"max_tokens": TOKENS + 1}, [9, 9, 2]),  # or a little less than one
        ("auto", {"max_tokens": 2 * TOKENS}, [16, 4]),
        ("auto", {"max_tokens": 8 * TOKENS}, TOGETHER),
        ("auto", {"max_tokens": 100 * TOKENS}, TOGETHER),
        ("auto", {"batch_size": 12}, ALONE),  # or by its sentences
        ("auto", {"max_tokens": 100 * TOKENS, "batch_size": 24}, [16, 4]),
        ("mixed", {"max_tokens": TOKENS}, [8, 8, 4]),
        ("mixed", {"max_tokens": TOKENS // 4}, [2] * 10),
        ("direction", {"max_tokens": 100 * TOKENS}, ALONE),
    ],
)
def test_directions_share_batches_until_they_fill_eight(decoder, batching, limits, groups) -> None:
    made, loaded = decoder(batching=batching, **limits)
    translated(made)
    assert sizes(loaded) == groups
    assert [merge for _, merge in loaded.groups] == [size == 1 for size in groups]  # worth it for one direction only


def test_directions_share_no_batch_where_hypotheses_depend_on_theirs(decoder) -> None:
    made, loaded = decoder(max_tokens=100 * TOKENS, generation=GenerationSettings(max_len_a=1.2), batching="mixed")
    translated(made)
    assert sizes(loaded) == ALONE


def test_small_directions_share_batches_if_nothing_is_said(decoder) -> None:
    made, loaded = decoder(max_tokens=100 * TOKENS)
    translated(made)
    assert sizes(loaded) == TOGETHER


def test_the_model_says_whether_it_has_adapters(decoder) -> None:
    made, loaded = decoder()
    for answer in (True, False):
        loaded.has_adapters = answer
        assert made.has_adapters is answer


def longer_than(limit: int) -> tuple[int, int]:
    """Number of the first sentence that is longer, and its length."""
    return next((number, length) for number, length in enumerate(LENGTHS, start=1) if length > limit)


@pytest.mark.parametrize(
    ("limits", "side", "limit", "remedy"),
    [
        ({"positions": (5, FREE)}, "en", 5, "the model takes 5; shorten the sentence in the data"),
        ({"positions": (FREE, 5)}, "fr", 5, "the model takes 5; shorten the sentence in the data"),
        ({"max_tokens": 6}, "en", 6, "--max-tokens is 6; give at least the length of the longest sentence"),
        ({"max_tokens": 5, "positions": (6, 6)}, "en", 6, "the model takes 6; shorten"),
    ],
)
def test_the_first_sentence_that_is_too_long_is_named(decoder, limits, side, limit, remedy) -> None:
    number, length = longer_than(limit)
    assert sum(length > limit for length in LENGTHS) > 1
    made, _ = decoder(**limits)
    with pytest.raises(UserError) as refusal:
        made.load(SIDES[0])
    message = str(refusal.value)
    assert message.startswith(f"test data of en-fr, {side}, line {number}: {length} tokens, but {remedy}")


def test_sentences_as_long_as_may_be_are_taken(decoder) -> None:
    longest = max(LENGTHS)
    made, _ = decoder(max_tokens=longest, positions=(longest, longest))
    assert len(made.load(SIDES[0])) == len(LENGTHS)


def test_only_the_subset_itself_is_read(decoder, toy_data, tmp_path) -> None:
    data = Path(shutil.copytree(toy_data, tmp_path / "bin"))
    for path in data.glob("test.en-fr.*"):
        shutil.copy(path, data / path.name.replace("test.", "test1."))  # which fairseq joins to training data
    made, _ = decoder(data=data)
    dataset = made.load(SIDES[0])
    assert len(dataset) == len(LENGTHS)
    first = dataset[0]
    tokens = made._loaded.task.source_dictionary
    assert [tokens[int(first[side][0])] for side in ("source", "target")] == ["__en__", "__fr__"]


def test_data_without_a_side_or_of_another_dictionary_are_named(decoder, toy_data, tmp_path) -> None:
    data = Path(shutil.copytree(toy_data, tmp_path / "bin"))
    remove(data, "test.en-fr.fr", "test.fr-en")
    made, _ = decoder(data=data)
    with pytest.raises(UserError, match=f"no test data of en-fr in {data}"):
        made.load(SIDES[0])
    (data / "test.en-nl.nl.idx").write_bytes(b"")
    with pytest.raises(UserError, match=r"test\.en-nl\.nl\.idx"):
        made.load(Direction("en", "nl"))
