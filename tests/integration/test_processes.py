"""Trainings in two and four processes: against one with as many batches per update, stopped, and refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from langspec_lora.locks import Locks
from tests import ROOT, toy
from tests.processes import Seen, Stop, run_together, train_together
from tests.trainings import TRAINING

sys.path.insert(0, str(ROOT / "scripts"))
from kills_compare import differences

pytestmark = toy.needs_processes_on_cpu

SMALL = (
    *("--optimizer", "adam", "--adam-betas", "(0.9, 0.98)", "--lr", "0.02", "--lr-scheduler", "fixed", "--cpu"),
    *("--clip-norm", "1.0", "--seed", "2", "--max-tokens", "60", "--max-epoch", "3", "--no-save", "--no-progress-bar"),
    *("--sampling-method", "temperature", "--sampling-temperature", "5.0", "--virtual-data-size", "100"),
    *("--pruning", "True", "--pruning-t1", "1", "--pruning-t2", "2", "--target-pruning-ratio", "0.8"),
)
"""37 batches in three epochs: neither two nor four processes can divide them, nor the languages of each."""
SOME = ("--train-languages", "wo,sd", "--lang-pairs", "wo-sd,sd-wo,en-wo", "--weight-decay", "0.1")
PART = (*SOME, "--checkpoint-activations", "--max-tokens", "30")
LAYERS_DROP = ("--encoder-layerdrop", "0.6", "--decoder-layerdrop", "0.6")
WRAPPER = "pytorch_ddp" if toy.GLOO_SENDS_BOOLS else "no_c10d"
TRAININGS = {
    "one": (1, ("--update-freq", "4")),
    "two": (2, ("--update-freq", "2", "--ddp-backend", WRAPPER)),
    "four": (4, ("--update-freq", "1", "--ddp-backend", "no_c10d")),
    "one, some languages": (1, ("--update-freq", "4", *PART)),
    "two, some languages": (2, ("--update-freq", "2", "--ddp-backend", "legacy_ddp", *PART)),
    "two, layers dropped": (2, ("--ddp-backend", "legacy_ddp", *LAYERS_DROP)),
}
STOPPED = (
    *("--max-tokens", "2400", "--max-tokens-valid", "900", "--max-epoch", "3", "--no-epoch-checkpoints"),
    *("--save-interval-updates", "3", "--validate-interval-updates", "2", "--ddp-backend", "no_c10d"),
)
ERROR = "langspec-lora: error: "
SEVERAL = [name for name, (count, _) in TRAININGS.items() if count > 1]


@pytest.fixture(scope="module")
def seen(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Seen]]:
    """All trainings, as each of their processes saw them."""
    flags = {name: (count, toy.plugin_flags(toy_data, *SMALL, *more)) for name, (count, more) in TRAININGS.items()}
    return train_together(tmp_path_factory.mktemp("processes"), flags)


@pytest.mark.parametrize("name", SEVERAL)
def test_all_processes_have_the_same_adapters_and_masks_in_every_epoch(seen, name) -> None:
    first, *others = seen[name]
    assert len(first.epochs) == 7
    assert {int((mask == 0).sum()) > 0 for mask in masks(first)[-1].values()} == {True}
    for other in others:
        assert other.norms == first.norms
        for ours, theirs in zip(first.epochs, other.epochs, strict=True):
            for entry in ours:
                assert torch.equal(ours[entry], theirs[entry]), entry


@pytest.mark.parametrize("name", [name for name in SEVERAL if "dropped" not in name])
def test_several_processes_train_as_one_with_as_many_batches_for_an_update(seen, name) -> None:
    (one,) = seen["one, some languages" if "some" in name else "one"]
    several = seen[name][0]
    assert several.losses == pytest.approx(one.losses, abs=1e-3)  # fairseq rounds them to this
    assert several.norms == pytest.approx(one.norms, rel=1e-4)
    for ours, expected in zip(several.epochs, one.epochs, strict=True):
        for entry, value in expected.items():
            if "mask" in entry:
                assert torch.equal(ours[entry], value), entry
            else:
                torch.testing.assert_close(ours[entry], value, rtol=1e-4, atol=2e-4)


def test_processes_had_batches_of_different_languages_and_batches_that_count_for_nothing(seen) -> None:
    assert sum(process.dummies for process in seen["four"]) == 3
    updates = zip(*(process.directions for process in seen["four"][:2]), strict=False)
    assert sum(one != other for one, other in updates) > 3
    for process in seen["four"]:
        assert any(len({source for source, _ in own}) < len(toy.LANGUAGES) for own in process.directions)


@pytest.mark.parametrize("name", [name for name in SEVERAL if "some" in name])
def test_languages_that_do_not_train_are_unchanged_in_every_process(seen, name) -> None:
    rows = slice(0, 2 + 2 + 3)  # en, fr, nl
    for process in seen[name]:
        start, end = process.epochs[0], process.epochs[-1]
        for entry in start:
            assert torch.equal(start[entry][rows], end[entry][rows]), entry
        assert any(not torch.equal(start[entry], end[entry]) for entry in start)


def test_two_processes_that_one_signal_stops_go_on_as_if_they_had_not_been(toy_data, tmp_path) -> None:
    flags = toy.plugin_flags(toy_data, *TRAINING, *STOPPED)
    seen = {}
    for name, stop in (("whole", None), ("stopped", Stop(rank=1, batch=7)), ("continued", None)):
        folder = tmp_path / ("whole" if name == "whole" else "disturbed")
        seen[name] = run_together(tmp_path, [[*flags, "--save-dir", str(folder)]] * 2, stop)
    assert [process.code for process in seen["stopped"]] == [143, 143]
    assert differences(tmp_path / "whole", tmp_path / "disturbed") == []
    for whole, stopped, continued in zip(*seen.values(), strict=True):
        assert len(stopped.losses) == 4
        assert stopped.losses + continued.losses == whole.losses
        last, expected = continued.epochs[-1], whole.epochs[-1]
        assert any((value == 0).any() for name, value in expected.items() if "mask" in name)
        assert {name for name, value in last.items() if not torch.equal(value, expected[name])} == set()


def in_use(folder: Path) -> tuple[list[str], str]:
    return ["--save-dir", str(folder)], f"another training is writing to --save-dir {folder}; "


def not_writable(folder: Path) -> tuple[list[str], str]:
    (folder / "file").touch()
    return ["--save-dir", f"{folder}/file/save"], f"--save-dir {folder}/file/save cannot be written to: Not a directory"


def missing_on_its_machine(folder: Path) -> tuple[list[str], str]:
    return ["--fixed-dictionary", f"{folder}/none.txt"], f"dictionary {folder}/none.txt cannot be read"


@pytest.mark.parametrize(("found_by", "mistake"), [(0, in_use), (0, not_writable), (1, missing_on_its_machine)])
def test_mistake_that_one_process_finds_ends_both_with_its_sentence(
    toy_data, tmp_path, found_by: int, mistake: Callable[[Path], tuple[list[str], str]]
) -> None:
    more, sentence = mistake(tmp_path)
    free = tmp_path / "free"
    common = toy.plugin_flags(toy_data, "--cpu", "--optimizer", "adam", "--max-epoch", "1", "--save-dir", str(free))
    flags = [
        [*common, *more] if rank == found_by or mistake is not missing_on_its_machine else common for rank in (0, 1)
    ]
    with Locks(tmp_path / ".lock") as locks:
        locks.take("training")
        ends = [str(seen.code) for seen in run_together(tmp_path, flags)]
    assert ends[found_by].startswith(f"{ERROR}{sentence}")
    assert ends[1 - found_by] == f"{ERROR}process {found_by} of this training has ended: {ends[found_by][len(ERROR) :]}"


def masks(process: Seen) -> list[dict[str, torch.Tensor]]:
    return [{name: value for name, value in epoch.items() if "mask" in name} for epoch in process.epochs]
