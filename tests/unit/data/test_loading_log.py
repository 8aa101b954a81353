"""What is logged when a split is loaded: one line, and fairseq's lines about each direction at DEBUG."""

from __future__ import annotations

import logging

import pytest

from langspec_lora.data.loading_log import details_at_debug, shorten_lists_of_directions, summary
from tests import toy

FAIRSEQ = "fairseq.data.multilingual.multilingual_data_manager"
IDS = "en 64, fr 65, nl 66, wo 67, sd 68"  # after 4 special symbols and 60 words


def lines(caplog, *levels: str) -> list[str]:
    return [record.message for record in caplog.records if record.levelname in levels]


@pytest.fixture
def levels():
    """Sets the level of fairseq's and our loggers for one test."""
    loggers = [logging.getLogger(name) for name in ("fairseq", "langspec_lora")]
    before = [logger.level for logger in loggers]

    def set_levels(level: int) -> None:
        for logger in loggers:
            logger.setLevel(level)

    yield set_levels
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


@pytest.mark.parametrize("split", ["train", "test"])
def test_split_is_one_line_without_a_line_for_each_direction(toy_data, caplog, levels, split) -> None:
    levels(logging.INFO)
    task = toy.build(toy.plugin_flags(toy_data))[0]
    caplog.clear()
    task.load_dataset(split, epoch=1)
    folder, count = toy_data, toy.SIZES[split]
    line = f"[{split}] 20 directions from {folder}: {20 * count:,} examples, {count} each; language tokens: {IDS}"
    assert not [message for message in lines(caplog, "INFO") if "src_langtok" in message]
    assert [message for message in lines(caplog, "INFO") if "examples" in message] == [line]


def test_debug_level_shows_each_direction(toy_data, caplog, levels) -> None:
    levels(logging.DEBUG)
    task = toy.build(toy.plugin_flags(toy_data))[0]
    task.load_dataset("valid", epoch=1)
    details = lines(caplog, "DEBUG")
    assert "main:en-fr src_langtok: 64; tgt_langtok: 65" in details
    assert len([message for message in details if "src_langtok" in message]) == len(toy.PAIRS)
    assert len([message for message in details if message.startswith("loaded 12 examples from: ")]) == 40


def test_warnings_pass_and_so_does_everything_afterwards(caplog, levels) -> None:
    levels(logging.INFO)
    logger = logging.getLogger(FAIRSEQ)
    with details_at_debug():
        logger.info("a detail")
        logger.warning("a warning")
    logger.info("afterwards")
    assert lines(caplog, "INFO", "WARNING", "DEBUG") == ["a warning", "afterwards"]


def test_summary_of_directions_of_different_sizes_without_tokens() -> None:
    expected = "[train] 2 directions from a, b: 1,203 examples, 3 to 1,200 each; language tokens: none"
    assert summary("train", ["a", "b"], [1200, 3], {}) == expected
    assert (
        summary("test", ["a"], [7], {"en": 5}) == "[test] 1 direction from a: 7 examples, 7 each; language tokens: en 5"
    )


@pytest.mark.parametrize(
    ("item", "between"),
    [
        ("{}", ","),
        ("'main:{}': 1", ", "),
        ("('main:{}', 0.12)", ", "),
        ("'main:{}': np.float64(1.5e-05)", ", "),
    ],
)
@pytest.mark.parametrize("logger", ["fairseq.data.multilingual.sampled_multi_dataset", "fairseq_cli.train"])
def test_fairseq_s_lists_of_very_many_directions_are_shortened(caplog, logger, item, between) -> None:
    shorten_lists_of_directions()
    pairs = [f"l{a}-zh_{b}" for a in range(40) for b in range(40)]
    listed = between.join(item.format(pair) for pair in pairs)
    with caplog.at_level("INFO", logger):
        logging.getLogger(logger).info("%s", f"sizes: [{listed}]; seed 3, 'lang-pairs': {{'a': 1}}")
        logging.getLogger(logger).info(f"few: [{between.join(item.format(pair) for pair in pairs[:12])}]")
    long, few = (record.getMessage() for record in caplog.records)
    first, last = item.format(pairs[0]), item.format(pairs[-1])
    assert long == f"sizes: [{first}{between}… 1,598 more …, {last}]; seed 3, 'lang-pairs': {{'a': 1}}"
    assert few.count("-zh_") == 12


def test_other_long_messages_are_left_alone(caplog) -> None:
    shorten_lists_of_directions()
    message = "{" + ", ".join(f"'flag_{number}': {number}" for number in range(2_000)) + "}"
    with caplog.at_level("INFO", "fairseq_cli.train"):
        logging.getLogger("fairseq_cli.train").info(message)
    assert caplog.records[0].getMessage() == message
