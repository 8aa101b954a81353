"""Which data folders an epoch reads, held against fairseq's own choice."""

from __future__ import annotations

import logging
import random
from argparse import Namespace
from pathlib import Path

import pytest
from fairseq.data.multilingual.multilingual_data_manager import MultilingualDatasetManager

from langspec_lora.data.shards import folders_read, held_directions
from langspec_lora.errors import UserError

NAMES = ("en-fr", "fr-en", "wo-nl", "nl-wo")
PAIRS = ["en-fr", "fr-en", "wo-nl"]
EPOCHS = 8


def draw_folders(root: Path, draw: random.Random) -> list[str]:
    """One to four folders; each holds some of the directions, the earlier ones more of them."""
    folders = []
    for number in range(draw.randint(1, 4)):
        folder = root / str(number)
        folder.mkdir(parents=True)
        for name in NAMES:
            if draw.random() < 0.9 - 0.2 * number:
                for side in name.split("-"):
                    (folder / f"train.{name}.{side}.idx").touch()
        folders.append(str(folder))
    return folders


def fairseq_reads(folders: list[str]) -> dict[str, list[str]] | None:
    """The folder of each direction in each epoch, by fairseq's own code; None where it finds no data of one at all."""
    manager = MultilingualDatasetManager.__new__(MultilingualDatasetManager)
    args = {"data": ":".join(folders), "train_subset": "train", "extra_data": None, "extra_lang_pairs": None}
    manager.args, manager.lang_pairs, manager._num_shards_dict = Namespace(**args), PAIRS, {}
    shards = manager.get_split_num_data_shards("train")
    if len(shards) < len(PAIRS):
        return None
    epochs = range(1, EPOCHS + 1)
    return {
        pair: [manager.get_split_data_path(folders, epoch, None, shards[f"main:{pair}"]) for epoch in epochs]
        for pair in PAIRS
    }


def holds(folder: str, *names: str) -> bool:
    return any(next(Path(folder).glob(f"train.{name}.*"), None) for name in names)


def test_folders_are_those_that_fairseq_reads_and_refused_where_it_would_find_nothing(tmp_path, caplog) -> None:
    draw, outcomes = random.Random(3), {"read": 0, "refused": 0, "warned": 0}
    for number in range(300):
        caplog.clear()
        folders = draw_folders(tmp_path / str(number), draw)
        expected = fairseq_reads(folders)
        if expected is None:
            continue
        reversed_names = {pair: "-".join(reversed(pair.split("-"))) for pair in PAIRS}
        held = held_directions("train", folders)
        if not all(holds(folder, pair, reversed_names[pair]) for pair in PAIRS for folder in expected[pair]):
            with pytest.raises(UserError, match="where fairseq would read them"):
                folders_read("train", folders, held, PAIRS)
            outcomes["refused"] += 1
            continue
        with caplog.at_level(logging.WARNING):
            actual = folders_read("train", folders, held, PAIRS)
        assert expected == {pair: [paths[e % len(paths)] for e in range(EPOCHS)] for pair, paths in actual.items()}
        unread = set()
        for pair in PAIRS:
            # nl-wo is no direction of its own, so its files are wo-nl's.
            names = (pair, "nl-wo") if pair == "wo-nl" else (pair,)
            unread |= {pair for folder in folders if holds(folder, *names) and folder not in expected[pair]}
        warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
        assert {message.split(" data of ")[1].split()[0] for message in warnings} == unread
        outcomes["read"] += 1
        outcomes["warned"] += bool(unread)
    assert min(outcomes.values()) > 10, outcomes


def test_a_missing_folder_and_a_name_that_fairseq_cannot_read_are_named(tmp_path) -> None:
    with pytest.raises(UserError, match=r"nowhere cannot be read: No such file"):
        held_directions("train", [str(tmp_path), str(tmp_path / "nowhere")])
    (tmp_path / "valid.idx").touch()
    assert held_directions("train", [str(tmp_path)]) == [set()]
    (tmp_path / "train.idx").touch()
    with pytest.raises(UserError, match=r"has a file train\.idx, a name that fairseq cannot parse"):
        held_directions("train", [str(tmp_path)])
    with pytest.raises(IndexError):
        MultilingualDatasetManager._get_shard_num_dict("train", [str(tmp_path)])
