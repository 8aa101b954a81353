"""The stock ``fairseq-train``: gradual pruning, interrupted and resumed runs, and what its checkpoints hold."""

from __future__ import annotations

import os
import re
import shutil

import numpy as np
import pytest
import torch

from tests import toy
from tests.trainings import (
    EPOCHS,
    LENGTH,
    PLUGIN,
    START,
    TARGET,
    TRAINING,
    WITHIN_EPOCHS,
    command,
    generate_here,
    run,
    state,
    train,
)


def adapter_b(model: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in model.items() if name.endswith(".lora_B")}


def test_pruned_set_of_each_epoch_is_the_one_computed_from_the_checkpoint_before(runs) -> None:
    save, log = runs.whole, runs.log
    ranks = {"en": 2, "fr": 2, "nl": 3, "wo": 4, "sd": 4}
    for epoch in range(2, EPOCHS + 1):
        before = adapter_b(state(save / f"checkpoint{epoch - 1}.pt"))
        after = adapter_b(state(save / f"checkpoint{epoch}.pt"))
        ratio = TARGET - TARGET * (1 - min((epoch - START) / LENGTH, 1)) ** 3
        start = 0
        for rank in ranks.values():
            flat = np.concatenate([value[start : start + rank].ravel() for value in before.values()])
            now = np.concatenate([value[start : start + rank].ravel() for value in after.values()])
            count = round(ratio * len(flat))
            expected = np.zeros(len(flat), dtype=bool)
            expected[np.argsort(np.abs(flat), kind="stable")[:count]] = True
            assert np.array_equal(now == 0, expected)
            start += rank
        assert f"pruning | epoch {epoch} | target {ratio:.4f} | pruned all" in log


def test_what_is_pruned_is_zero_in_every_checkpoint_within_the_epoch_too(runs) -> None:
    save = runs.whole
    checked = 0
    for path in save.glob("checkpoint_*_*.pt"):
        epoch = int(re.fullmatch(r"checkpoint_(\d+)_\d+\.pt", path.name)[1])
        inside, end = state(path), state(save / f"checkpoint{epoch}.pt")
        for name, value in adapter_b(inside).items():
            mask = inside[name.replace("lora_B", "lora_mask")].numpy()
            assert np.array_equal(mask, end[name.replace("lora_B", "lora_mask")].numpy())
            assert np.all(value[mask == 0] == 0)
            checked += int((mask == 0).sum())
    assert checked > 1000


@pytest.mark.parametrize("which", ["first", "middle", "end-of-epoch"])
def test_run_stopped_anywhere_and_resumed_ends_with_the_same_weights(runs, toy_data, tmp_path, which) -> None:
    save = runs.whole
    inside = sorted(save.glob("checkpoint_*_*.pt"), key=lambda path: int(path.stem.split("_")[2]))
    chosen = {"first": inside[0], "middle": inside[len(inside) // 2], "end-of-epoch": save / "checkpoint2.pt"}[which]
    shutil.copy(chosen, tmp_path / "checkpoint_last.pt")
    train(toy_data, tmp_path, *WITHIN_EPOCHS)
    expected, actual = (state(folder / f"checkpoint{EPOCHS}.pt") for folder in (save, tmp_path))
    assert expected.keys() == actual.keys()
    for name in expected:
        assert torch.equal(expected[name], actual[name]), name


def test_a_run_whose_updates_lack_languages_is_resumed_bit_for_bit(toy_data, tmp_path) -> None:
    few = (*FEW_LANGUAGES, "--update-freq", "1", "--save-interval-updates", "10")
    train(toy_data, tmp_path / "whole", *few)
    (tmp_path / "part").mkdir()
    shutil.copy(tmp_path / "whole" / "checkpoint_1_10.pt", tmp_path / "part" / "checkpoint_last.pt")
    train(toy_data, tmp_path / "part", *few)
    whole, part = (tmp_path / name / "checkpoint_last.pt" for name in ("whole", "part"))
    expected, actual = state(whole), state(part)
    for name in expected:
        assert torch.equal(expected[name], actual[name]), name
    optimizers = [torch.load(path, weights_only=False)["last_optimizer_state"]["state"] for path in (whole, part)]
    rested = [next(own["rested"] for own in optimizer.values() if "rested" in own) for optimizer in optimizers]
    assert torch.equal(*rested)
    assert rested[0].min() > 0


def test_only_the_adapters_train(runs) -> None:
    save = runs.whole
    first, last = state(save / "checkpoint1.pt"), state(save / f"checkpoint{EPOCHS}.pt")
    for name in first:
        same = torch.equal(first[name], last[name])
        if name.endswith(("lora_A", "lora_B")):
            assert not same, name
        elif not name.endswith("lora_mask") and name != "adapters.mask_epoch":
            assert same, name


def test_summary_names_base_trainable_and_every_language(runs) -> None:
    log = runs.log
    per_rank = 2 * (5 + 8) * 2 * 16 + 2 * 2 * 2 * (
        24 - 16
    )  # 13 linears of 16 x 16 in two layers; fc1 and fc2: 16 and 24
    ranks = {"en": 2, "fr": 2, "nl": 3, "wo": 4, "sd": 4}
    trainable = per_rank * sum(ranks.values())
    assert f"trainable {trainable:,} | per language: " in log
    assert ", ".join(f"{name} {rank * per_rank:,}" for name, rank in ranks.items()) in log


def test_stock_generate_finds_the_adapters_by_name_in_any_order_or_subset_of_languages(
    runs, toy_data, tmp_path
) -> None:
    checkpoint = runs.whole / f"checkpoint{EPOCHS}.pt"
    expected = generate_here(toy_data, checkpoint, tmp_path / "0", "--langs", ",".join(toy.LANGUAGES))
    assert len(expected) == toy.SIZES["test"]
    assert len(set(expected)) > 1
    for number, langs in enumerate((",".join(reversed(toy.LANGUAGES)), "nl,wo,sd,fr,en", "wo,nl"), start=1):
        pairs = () if number < 3 else ("--lang-pairs", "wo-nl")
        assert generate_here(toy_data, checkpoint, tmp_path / str(number), "--langs", langs, *pairs) == expected


def test_stock_interactive_translates_as_generate_does(runs, toy_data, tmp_path) -> None:
    checkpoint = runs.whole / f"checkpoint{EPOCHS}.pt"
    langs = ("--langs", ",".join(toy.LANGUAGES))
    output = run(
        *(command("fairseq-interactive"), str(toy_data), "--user-dir", str(PLUGIN), "--path", str(checkpoint), "--cpu"),
        *("--task", "translation_multi_simple_epoch_lora", "--encoder-langtok", "src", "--decoder-langtok", *langs),
        *("--fixed-dictionary", str(toy_data.parent / "dict.txt"), "--lang-pairs", "wo-nl", "-s", "wo", "-t", "nl"),
        *("--beam", "3", "--max-len-b", "8", "--buffer-size", "12", "--batch-size", "12"),
        input=(toy_data.parent / "test.wo").read_text(encoding="utf-8"),
    )
    words = {line.split("\t")[0]: line.split("\t")[2] for line in output.splitlines() if line.startswith("H-")}
    flags = ("--beam", "3", "--max-len-b", "8")
    for number, hypothesis in enumerate(generate_here(toy_data, checkpoint, tmp_path, *flags)):
        assert words[f"H-{number}"] == hypothesis


FEW_LANGUAGES = ("--max-tokens", "40", "--max-update", "25", "--disable-validation")
"""Batches of a few sentences, so that each update lacks languages."""


@toy.needs_processes_on_cpu
@pytest.mark.parametrize("size", [("--max-epoch", "3"), FEW_LANGUAGES], ids=["all languages", "few languages"])
def test_two_processes_train_as_one_with_twice_the_update_frequency(toy_data, tmp_path, size) -> None:
    short = (*size, "--dropout", "0", "--no-epoch-checkpoints")
    train(toy_data, tmp_path / "one", *short, "--update-freq", "2")
    flags = toy.plugin_flags(toy_data, *TRAINING, *short, "--update-freq", "1", "--save-dir", str(tmp_path / "two"))
    run(
        *(command("torchrun"), "--nproc_per_node", "2", "--master_port", str(20000 + os.getpid() % 20000)),
        *(command("fairseq-train"), *flags, "--ddp-backend", "no_c10d", "--distributed-backend", "gloo"),
    )
    one, two = (state(tmp_path / name / "checkpoint_last.pt") for name in ("one", "two"))
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-4)


@toy.needs_processes_on_cpu
def test_a_run_within_an_epoch_goes_on_with_more_and_with_fewer_processes(toy_data, tmp_path) -> None:
    small = ("--max-tokens", "40", "--disable-validation", "--dropout", "0", "--no-epoch-checkpoints")
    train(toy_data, tmp_path / "one", *small, "--update-freq", "2", "--max-update", "12")
    train(toy_data, tmp_path / "moved", *small, "--update-freq", "2", "--max-update", "4")
    moved = (*small, "--save-dir", str(tmp_path / "moved"))
    flags = toy.plugin_flags(toy_data, *TRAINING, *moved, "--update-freq", "1", "--max-update", "8")
    run(
        *(command("torchrun"), "--nproc_per_node", "2", "--master_port", str(20000 + os.getpid() % 20000)),
        *(command("fairseq-train"), *flags, "--ddp-backend", "no_c10d", "--distributed-backend", "gloo"),
    )
    train(toy_data, tmp_path / "moved", *small, "--update-freq", "2", "--max-update", "12")
    one, moved_state = (state(tmp_path / name / "checkpoint_last.pt") for name in ("one", "moved"))
    for name in one:
        torch.testing.assert_close(moved_state[name], one[name], rtol=1e-4, atol=1e-4)
