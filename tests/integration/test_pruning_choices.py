"""Stock fairseq-train with other criteria, targets and units of pruning: what is pruned, and resuming."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from tests.trainings import TARGET, train_here

SHORT = (
    *("--max-epoch", "2", "--pruning-t1", "1", "--pruning-t2", "1"),  # the second epoch prunes
    *("--save-interval-updates", "2", "--disable-validation", "--weight-decay", "0.1"),
)
RUNS = {
    "first-order": ("--pruning-criterion", "first-order", "--pruning-target", "ab", "--weight-learning", "True"),
    "rank": ("--pruning-unit", "rank", "--pruning-scope", "layer", "--train-languages", "en,nl,sd"),
}


@pytest.fixture(scope="module", params=RUNS)
def run(request, toy_data: Path, tmp_path_factory) -> tuple[str, Path]:
    """A training that nothing interrupts, with checkpoints within its epochs."""
    folder = tmp_path_factory.mktemp(request.param)
    train_here(toy_data, folder, *SHORT, *RUNS[request.param])
    return request.param, folder


def load(path: Path) -> dict:
    return torch.load(path, weights_only=False)  # our own file


def test_the_asked_share_is_pruned(run) -> None:
    name, folder = run
    model = load(folder / "checkpoint_last.pt")["model"]
    masks = {key: value for key, value in model.items() if key.endswith("lora_mask")}
    assert masks
    ranks = torch.tensor([2, 2, 3, 4, 4])
    if name == "rank":
        of_language = torch.arange(5).repeat_interleave(ranks)
        trains = torch.isin(of_language, torch.tensor([0, 2, 4]))
        for stack in ("encoder", "decoder"):
            for layer in (0, 1):
                rows = [(mask != 0) for key, mask in masks.items() if key.startswith(f"{stack}.layers.{layer}.")]
                assert all(torch.equal(mask.any(1), mask.all(1)) for mask in rows)
                lives = torch.stack([mask.any(1) for mask in rows])
                assert int((~lives[:, trains]).sum()) == round(TARGET * lives[:, trains].numel())
                assert lives[:, ~trains].all()
        return
    of_language = torch.arange(5).repeat_interleave(ranks).repeat(2)  # as source and as target
    for part in ("A", "B"):
        for language in range(5):
            values = torch.cat([model[key[: -len("mask")] + part][of_language == language].flatten() for key in masks])
            assert int((values == 0).sum()) == round(TARGET * len(values))


@pytest.mark.parametrize("start", ["within an epoch", "between two"])
def test_a_resumed_training_ends_with_the_same_bits(run, toy_data, tmp_path, start) -> None:
    name, folder = run
    if start == "within an epoch":
        start = min(folder.glob("checkpoint_2_*.pt"), key=lambda path: int(path.stem.split("_")[2]))
    else:
        start = folder / "checkpoint1.pt"
    shutil.copy(start, tmp_path / "checkpoint_last.pt")
    train_here(toy_data, tmp_path, *SHORT, *RUNS[name])
    expected, found = (load(path / "checkpoint_last.pt") for path in (folder, tmp_path))
    assert found["model"].keys() == expected["model"].keys()
    for key, value in expected["model"].items():
        if not key.endswith("._float_tensor"):
            assert torch.equal(found["model"][key], value), key
    states = [one["last_optimizer_state"]["state"] for one in (expected, found)]
    for number, parts in states[0].items():
        for part, value in parts.items():
            assert torch.equal(torch.as_tensor(states[1][number][part]), torch.as_tensor(value)), (number, part)
