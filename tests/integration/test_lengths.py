"""Sentences that are too long, held against what fairseq's own batching refuses, skips and takes."""

from __future__ import annotations

import os
import shutil
from itertools import product

import numpy as np
import pytest
from fairseq import utils
from fairseq.data import Dictionary

from langspec_lora.data import headers
from langspec_lora.data.lengths import LengthCheck, Limits, Side
from langspec_lora.errors import UserError
from tests import toy
from tests.bad_input import own_copy, refusal_of, refusals_of


def fairseq_validates(task, args, split: str) -> bool | str:
    """Whether fairseq's trainer would make batches of a split, by its own code; what it says where it would not."""
    tokens = None if args.max_tokens_valid is None else int(args.max_tokens_valid)
    try:
        batches = task.get_batch_iterator(
            task.dataset(split),
            max_tokens=tokens,
            max_positions=utils.resolve_max_positions(task.max_positions()),
            ignore_invalid_inputs=args.skip_invalid_size_inputs_valid_test,
        ).next_epoch_itr(shuffle=False)
        return len(batches) > 0
    except (Exception, AssertionError) as error:
        return str(error)


LIMITS = [
    [],
    *(["--max-tokens-valid", str(tokens)] for tokens in (8, 9)),  # 7 words, the end, a language token
    *(["--max-source-positions", str(most)] for most in (8, 9)),
    *(["--max-target-positions", str(most)] for most in (8, 9)),
    ["--max-source-positions", "3"],
    ["--max-source-positions", "8", "--truncate-source"],
    ["--max-source-positions", "8", "--max-target-positions", "8", "--max-tokens-valid", "8"],
]


@pytest.mark.parametrize(("limits", "skips"), product(LIMITS, (False, True)))
def test_validation_is_refused_exactly_if_fairseq_would_fail_on_it(toy_data, limits, skips) -> None:
    more = [*limits, *(["--skip-invalid-size-inputs-valid-test"] if skips else []), "--lang-pairs", "en-fr,wo-nl"]
    task, _ = toy.build(toy.plugin_flags(toy_data, "--lang-pairs", "en-fr,wo-nl"))
    args = toy.parse(toy.plugin_flags(toy_data, *more))
    for name in ("max_source_positions", "max_target_positions", "truncate_source"):
        setattr(task.args, name, getattr(args, name, None) or getattr(task.args, name))
        setattr(args, name, getattr(task.args, name))
    task.load_dataset("valid")
    works = fairseq_validates(task, args, "valid")
    try:
        task.data_manager.check_files("valid", limits=Limits.of_validation(args))
        refused = None
    except UserError as error:
        refused = str(error)
    assert (refused is None) == (works is True), (refused, works)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--max-tokens-valid", "8"], "9 tokens, but --max-tokens-valid is 8; give at least 9"),
        (["--max-tokens", "8"], "9 tokens, but --max-tokens is 8; give at least 9"),
        (["--max-target-positions", "8"], "9 tokens, but the model takes 8 (--max-target-positions); shorten"),
    ],
)
@pytest.mark.usefixtures("unbuilt")
def test_training_ends_before_a_model_is_built(toy_data, flags, words) -> None:
    assert words in refusal_of(toy.build, toy.plugin_flags(toy_data, *flags))


@pytest.mark.usefixtures("unbuilt")
def test_a_limit_that_no_sentence_keeps_is_told_of_each_split(toy_data) -> None:
    train, valid = refusals_of(toy.build, toy.plugin_flags(toy_data, "--max-source-positions", "3"))
    assert "all train sentences are longer than the model takes (3 tokens of source" in train
    assert "but the model takes 3 (--max-source-positions)" in valid


def test_the_line_that_is_too_long_is_named(toy_data) -> None:
    lengths = [len(words) for words in toy.sentences("valid")]
    first = lengths.index(7) + 1
    flags = toy.plugin_flags(toy_data, "--max-source-positions", "8", "--lang-pairs", "en-fr")
    assert f"en, line {first}: 9 tokens" in refusal_of(toy.build, flags)


def test_training_without_validation_ignores_validation_sentences(toy_data) -> None:
    toy.build(toy.plugin_flags(toy_data, "--max-tokens-valid", "8", "--disable-validation"))


def test_a_file_that_many_directions_link_to_is_read_once(toy_data, tmp_path, monkeypatch) -> None:
    reads = []
    monkeypatch.setattr(headers.np, "fromfile", lambda *args, **kwargs: reads.append(args) or np.array([5], np.int32))
    shutil.copy(toy_data / "valid.en-fr.en.idx", tmp_path / "0.idx")
    for number in range(1, 20):
        os.link(tmp_path / "0.idx", tmp_path / f"{number}.idx")
    assert {headers.longest_sentence(str(tmp_path / str(number))) for number in range(20)} == {5}
    assert len(reads) == 1


def test_a_file_that_has_changed_is_read_again(tmp_path) -> None:
    toy.write_dictionary(tmp_path / "dict.txt")
    dictionary = Dictionary.load(str(tmp_path / "dict.txt"))
    for words in (2, 6):
        (tmp_path / "text").write_text("en1 " * words + "\n")
        toy._write_side(tmp_path / "side", tmp_path / "text", dictionary)
        assert headers.longest_sentence(str(tmp_path / "side")) == words + 1
        assert headers.sentence_lengths(str(tmp_path / "side")).tolist() == [words + 1]


def test_a_truncated_side_is_no_longer_than_the_limit_plus_its_token(toy_data) -> None:
    side = Side("en", str(toy_data / "valid.en-fr.en"), added=1, cut_at=4)
    assert side.longest == 5
    assert side.lengths.tolist() == [min(len(words) + 1, 4) + 1 for words in toy.sentences("valid")]
    LengthCheck(Limits((5, 5), None, "--max-tokens", skips=False)).check_direction("data", [side])


@pytest.mark.usefixtures("unbuilt")
def test_tokens_missing_from_the_dictionary_are_refused_before_a_model_is_built(toy_data, tmp_path) -> None:
    data = own_copy(toy_data, tmp_path)
    dictionary = tmp_path / "dict.txt"
    dictionary.write_text("".join(f"{line}\n" for line in dictionary.read_text().splitlines()[20:]))
    highest = int(np.fromfile(data / "train.en-wo.wo.bin", np.uint16).max())
    train, valid = refusals_of(toy.build, toy.plugin_flags(data))
    assert f"the highest token id is {highest}, but the dictionary has 49 entries; give the" in train
    assert "valid data of" in valid
