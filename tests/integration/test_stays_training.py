"""Pruning while ``fairseq-train`` reads data in shards and virtual epochs, changes its batches, or stops early."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fairseq.data import Dictionary, indexed_dataset
from fairseq.tasks import FairseqTask
from fairseq_cli import train as fairseq_train

from tests import toy
from tests.bad_input import STOCK, refusal_of
from tests.evaluations import run_stock
from tests.trainings import EPOCHS, LENGTH, START, TARGET, state, train_here

RANKS = {"en": 2, "fr": 2, "nl": 3, "wo": 4, "sd": 4}
SHARDS = (
    {"en-fr": range(30), "wo-nl": range(20), "fr-en": range(10), "nl-sd": range(7), "sd-wo": range(10)},
    {"en-fr": range(30, 42), "wo-nl": range(20, 60), "fr-en": range(10, 11), "sd-wo": range(10, 25)},
)
"""The lines of each direction in each shard; nl-sd is in the first only, which fairseq then reads in every epoch."""

FLAGS = (
    *("--lang-pairs", ",".join(SHARDS[0]), "--max-tokens", "120", "--update-freq", "1", "--lr", "1e-2"),
    *("--sampling-method", "concat", "--disable-validation", "--seed", "2"),
)


def write_shard(text: Path, folder: Path, split: str, lines: dict[str, range]) -> Path:
    """Writes some lines of the toy text as the data of a split."""
    folder.mkdir(exist_ok=True)
    for name in toy.LANGUAGES:
        shutil.copy(text / "dict.txt", folder / f"dict.{name}.txt")
    dictionary = Dictionary.load(str(text / "dict.txt"))
    for direction, numbers in lines.items():
        for side in direction.split("-"):
            prefix = folder / f"{split}.{direction}.{side}"
            builder = indexed_dataset.make_builder(f"{prefix}.bin", impl="mmap", vocab_size=len(dictionary))
            sentences = (text / f"{split}.{side}").read_text().splitlines()
            for number in numbers:
                builder.add_item(dictionary.encode_line(sentences[number], add_if_not_exist=False))
            builder.finalize(f"{prefix}.idx")
    return folder


class Sharded(str):
    """Paths joined by ``:``; what lies beside the data lies beside the first of them."""

    @property
    def parent(self) -> Path:
        return Path(self.split(":")[0]).parent


@pytest.fixture(scope="module")
def sharded(toy_data, tmp_path_factory) -> Sharded:
    """Two shards, as ``fairseq-train`` takes them; fairseq validates on the first alone."""
    text = toy_data.parent
    folder = tmp_path_factory.mktemp("sharded")
    for name in ("dict.txt", "levels.yaml"):
        shutil.copy(text / name, folder)
    paths = [write_shard(text, folder / f"{number}", "train", lines) for number, lines in enumerate(SHARDS)]
    write_shard(text, paths[0], "valid", dict.fromkeys(SHARDS[0], range(12)))
    return Sharded(":".join(map(str, paths)))


Updates = dict[int, list[list[tuple[str, str]]]]
"""By epoch, for each update the sentences of its batch as source and target text, sorted."""


def reading(start: Callable[[], None]) -> Updates:
    """Runs a training, and looks at what fairseq hands to the task."""
    updates: Updates = {}
    train_step, begin_epoch = FairseqTask.train_step, FairseqTask.begin_epoch
    now = 0

    def begin(self, epoch, model):
        nonlocal now
        now = epoch
        return begin_epoch(self, epoch, model)

    def step(self, sample, *args, **kwargs):
        sides = (sample["net_input"]["src_tokens"], sample["target"])
        texts = [[self.source_dictionary.string(row).split() for row in side] for side in sides]
        # Without padding and language tokens.
        plain = [[" ".join(word for word in words if word[0] not in "<_") for words in side] for side in texts]
        updates.setdefault(now, []).append(sorted(zip(*plain, strict=True)))
        return train_step(self, sample, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FairseqTask, "begin_epoch", begin)
        patch.setattr(FairseqTask, "train_step", step)
        start()
    return updates


def sentences(updates: Updates, epoch: int) -> Counter:
    return Counter(sentence for batch in updates[epoch] for sentence in batch)


def written(text: Path, epoch: int) -> Counter:
    """The sentences of the shard of an epoch."""
    shard = {**SHARDS[0], **SHARDS[(epoch - 1) % len(SHARDS)]}
    sides = ([(text / f"train.{side}").read_text().splitlines() for side in pair.split("-")] for pair in shard)
    return Counter(
        (source[number], target[number])
        for (source, target), numbers in zip(sides, shard.values(), strict=True)
        for number in numbers
    )


def train_stock(data: Sharded, save: Path, *flags: str) -> None:
    own = ("--optimizer", "adam", "--cpu", "--no-progress-bar", "--no-save", "--max-epoch", str(EPOCHS))
    with pytest.MonkeyPatch.context() as patch:
        run_stock(patch, fairseq_train, *toy.base_flags(data, *STOCK, *own, *flags, "--save-dir", str(save)))


def lora_b(model: dict) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in model.items() if name.endswith(".lora_B")}


def masks(model: dict) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in model.items() if name.endswith(".lora_mask")}


def by_language(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All entries of each language, of all sites together."""
    entries, start = {}, 0
    for name, rank in RANKS.items():
        entries[name] = np.concatenate([value[start : start + rank].ravel() for value in arrays.values()])
        start += rank
    return entries


def check_schedule(save: Path, first: int = 1) -> None:
    """Each epoch has pruned the share that the formula says: the smallest at its start, which stay zero through it."""
    for epoch in range(first, EPOCHS + 1):
        share = TARGET - TARGET * (1 - min((epoch - START) / LENGTH, 1)) ** 3
        end = state(save / f"checkpoint{epoch}.pt")
        after, alive = by_language(lora_b(end)), by_language(masks(end))
        for language, entries in after.items():
            pruned = alive[language] == 0  # an entry can also be zero because its gradient always was
            assert not entries[pruned].any()
            assert pruned.sum() == round(share * len(entries)), (epoch, language)
            if epoch > 1:
                before = np.abs(by_language(lora_b(state(save / f"checkpoint{epoch - 1}.pt")))[language])
                assert before[pruned].max() <= before[~pruned].min()
        inside = sorted(save.glob(f"checkpoint_{epoch}_*.pt"))
        assert inside
        for path in inside:
            model = state(path)
            assert int(model["adapters.mask_epoch"]) == epoch
            for name, value in model.items():
                if name.endswith("lora_mask"):
                    assert np.array_equal(value.numpy(), end[name].numpy())
                    assert not model[name.replace("lora_mask", "lora_B")].numpy()[value.numpy() == 0].any()


WAYS = {
    "shards": (),
    "round robin": ("--sampling-method", "RoundRobin"),
    "temperature": ("--sampling-method", "temperature", "--sampling-temperature", "5"),
    "virtual data": ("--virtual-data-size", "60", "--sampling-method", "uniform"),
    "virtual epochs": ("--virtual-epoch-size", "50", "--virtual-data-size", "90", "--sampling-method", "uniform"),
}
SAVES = ("--save-interval-updates", "1", "--pruning-t1", str(START), "--pruning-t2", str(LENGTH))


@pytest.mark.parametrize("way", WAYS)
def test_shards_are_read_as_stock_fairseq_reads_them_and_pruned_on_schedule(way, sharded, toy_data, tmp_path) -> None:
    flags = (*FLAGS, *WAYS[way])
    ours = reading(lambda: train_here(sharded, tmp_path / "ours", *flags, *SAVES))
    assert ours == reading(lambda: train_stock(sharded, tmp_path / "stock", *flags))
    assert list(ours) == list(range(1, EPOCHS + 1))
    for epoch in ours:
        read, there = sentences(ours, epoch), written(toy_data.parent, epoch)
        if way in ("shards", "round robin"):
            assert read == there
        elif way != "virtual epochs":  # there fairseq changes the shard later
            assert read.keys() <= there.keys()
        directions = {tuple(text[:2] for text in sentence) for sentence in read}
        assert directions == {tuple(pair.split("-")) for pair in SHARDS[0]}
    check_schedule(tmp_path / "ours")


@pytest.fixture(scope="module")
def pruned(sharded, tmp_path_factory) -> Path:
    """A training over the shards, with a checkpoint at each update."""
    folder = tmp_path_factory.mktemp("pruned")
    train_here(sharded, folder, *FLAGS, *SAVES)
    return folder


def copied(checkpoint: Path, folder: Path) -> Path:
    shutil.copy(checkpoint, folder / "checkpoint_last.pt")
    return folder


def within(folder: Path, epoch: int) -> list[Path]:
    """The checkpoints within an epoch, in their order."""
    paths = folder.glob(f"checkpoint_{epoch}_*.pt")
    return sorted(paths, key=lambda path: int(path.stem.split("_")[2]))


def test_a_run_stopped_within_a_shard_goes_on_as_if_it_had_not(pruned, sharded, tmp_path) -> None:
    train_here(sharded, copied(within(pruned, 2)[1], tmp_path), *FLAGS, *SAVES)
    expected, actual = (state(folder / f"checkpoint{EPOCHS}.pt") for folder in (pruned, tmp_path))
    assert expected.keys() == actual.keys()
    for name, value in expected.items():
        assert np.array_equal(value.numpy(), actual[name].numpy()), name


@pytest.mark.parametrize("tokens", ["60", "150", "1000"])
def test_a_position_among_other_batches_is_refused_in_a_sentence(pruned, sharded, tmp_path, tokens) -> None:
    copied(within(pruned, 2)[0], tmp_path)
    message = refusal_of(train_here, sharded, tmp_path, *FLAGS, *SAVES, "--max-tokens", tokens)
    assert "the checkpoint was saved after 1 batch of epoch 2, which had" in message
    assert "resume with the data, --max-tokens and --batch-size of the interrupted training" in message
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "checkpoint_last.pt"]


def first_stop(losses: list[float], patience: int) -> int | None:
    """The validation after which a run ends: the loss has not fallen below its best for so many in a row."""
    best, since = losses[0], 0
    for number, loss in enumerate(losses[1:], start=2):
        best, since = (loss, 0) if loss < best else (best, since + 1)
        if since == patience:
            return number
    return None


@pytest.mark.parametrize(("patience", "every"), [(1, ()), (2, ()), (2, ("--validate-interval-updates", "2"))])
def test_patience_ends_a_pruned_run_where_the_loss_says(sharded, tmp_path, patience, every, monkeypatch) -> None:
    for name in ("best", "num_runs"):
        monkeypatch.delattr(fairseq_train.should_stop_early, name, raising=False)  # of another run in this process
    losses, validate = [], fairseq_train.validate

    def noted(*args):
        found = validate(*args)
        losses.append(found[0])
        return found

    monkeypatch.setattr(fairseq_train, "validate", noted)
    flags = [flag for flag in FLAGS if flag != "--disable-validation"]
    # A rate at which the loss falls for a while, and then rises.
    flags += [*every, "--lr", "0.3", "--max-epoch", "30", "--patience", str(patience), "--pruning-t2", "20"]
    train_here(sharded, tmp_path, *flags, "--warmup-updates", "20", "--no-epoch-checkpoints")
    assert len(losses) == first_stop(losses, patience)
    assert min(losses) < losses[0]
    last = state(tmp_path / "checkpoint_last.pt")
    epoch = int(last["adapters.mask_epoch"])
    share = TARGET - TARGET * (1 - min((epoch - START) / 20, 1)) ** 3
    for entries in by_language(lora_b(last)).values():
        assert (entries == 0).sum() == round(share * len(entries))


NOTHING_NEW = {
    "in the first and the third only": (
        [SHARDS[0], SHARDS[1], SHARDS[0]],
        "no train data of nl-sd in {1}, where fairseq would read them: 2 of 3 data folders have that direction",
    ),
    "not in the first": (
        [SHARDS[1], SHARDS[0]],
        "no train data of nl-sd in {0}, where fairseq would read them: 1 of 2",
    ),
    "empty": ([SHARDS[0], {**SHARDS[0], "nl-sd": range(0)}], "train data of nl-sd in {1} are empty"),
}


@pytest.mark.usefixtures("unbuilt")
@pytest.mark.parametrize("case", NOTHING_NEW)
def test_a_shard_that_a_later_epoch_would_die_of_is_named_before_the_first(toy_data, tmp_path, case) -> None:
    shards, words = NOTHING_NEW[case]
    for name in ("dict.txt", "levels.yaml"):
        shutil.copy(toy_data.parent / name, tmp_path)
    folders = [write_shard(toy_data.parent, tmp_path / f"{n}", "train", lines) for n, lines in enumerate(shards)]
    write_shard(toy_data.parent, folders[0], "valid", dict.fromkeys(SHARDS[0], range(12)))
    flags = toy.plugin_flags(Sharded(":".join(map(str, folders))), *FLAGS, "--save-dir", str(tmp_path / "save"))
    assert words.format(*folders) in refusal_of(toy.build, flags)
