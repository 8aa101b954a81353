"""Checkpoints without their base: what stock fairseq-train writes, resumes from and generates with."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from tests import toy
from tests.bad_input import STOCK, write_checkpoint
from tests.evaluations import published_hypotheses
from tests.integration.test_training import EPOCHS, command, run, state, train


@pytest.fixture(scope="module")
def base(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("base") / "base.pt", toy.base_flags(toy_data, *STOCK))


@pytest.fixture(scope="module")
def runs(base: Path, toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same run with checkpoints of adapters only, and with whole ones."""
    folder = tmp_path_factory.mktemp("runs")
    start = ("--finetune-from-model", str(base), "--save-interval-updates", "3")
    train(toy_data, folder / "lean", *start)
    train(toy_data, folder / "whole", *start, "--save-adapters-only", "False")
    return folder / "lean", folder / "whole"


def is_adapter(name: str) -> bool:
    return "lora_" in name or name.startswith("adapters.")


def generate(toy_data: Path, checkpoint: Path, out: Path, *more: str) -> list[str]:
    run(
        *(
            command("fairseq-generate"),
            str(toy_data),
            "--user-dir",
            str(Path(toy.__file__).parents[1] / "langspec_lora"),
        ),
        *("--path", str(checkpoint), "--fixed-dictionary", str(toy_data.parent / "dict.txt")),
        *("--langs", ",".join(toy.LANGUAGES), "--lang-pairs", ",".join(toy.PAIRS), "-s", "wo", "-t", "nl"),
        *("--task", "translation_multi_simple_epoch_lora", "--decoder-langtok", "--encoder-langtok", "src"),
        *("--gen-subset", "test", "--cpu", "--results-path", str(out), "--max-len-b", "20", *more),
    )
    return published_hypotheses(out / "generate-test.txt")


def test_every_checkpoint_holds_the_adapters_of_a_whole_one_and_no_base(runs) -> None:
    lean, whole = runs
    names = {path.name for path in whole.glob("*.pt")}
    assert names == {path.name for path in lean.glob("*.pt")}
    assert len(names) > EPOCHS
    for name in names:
        one, other = state(lean / name), state(whole / name)
        assert all(is_adapter(entry) for entry in one)
        assert set(one) - {"adapters.base"} == {entry for entry in other if is_adapter(entry)}
        for entry in set(one) - {"adapters.base"}:
            assert torch.equal(one[entry], other[entry]), entry


def test_a_run_resumed_from_adapters_only_ends_as_one_that_nothing_interrupts(runs, base, toy_data, tmp_path) -> None:
    lean, _ = runs
    shutil.copy(lean / "checkpoint2.pt", tmp_path / "checkpoint_last.pt")
    train(toy_data, tmp_path, "--save-interval-updates", "3")  # finds its base without --finetune-from-model
    expected, actual = (state(folder / f"checkpoint{EPOCHS}.pt") for folder in (lean, tmp_path))
    assert expected.keys() == actual.keys()
    for name in expected:
        assert torch.equal(expected[name], actual[name]), name


def test_fairseq_generate_translates_alike_from_both_and_finds_a_base_that_has_moved(
    runs, base, toy_data, tmp_path
) -> None:
    lean, whole = (folder / "checkpoint_last.pt" for folder in runs)
    expected = generate(toy_data, whole, tmp_path / "whole")
    assert len(set(expected)) > 1
    assert generate(toy_data, lean, tmp_path / "lean") == expected
    moved = tmp_path / "moved.pt"
    base.rename(moved)
    try:
        with pytest.raises(AssertionError, match=r"its base .*base\.pt is not there; .* as --base-checkpoint"):
            generate(toy_data, lean, tmp_path / "gone")
        assert generate(toy_data, lean, tmp_path / "moved", "--base-checkpoint", str(moved)) == expected
    finally:
        moved.rename(base)


def test_another_base_is_refused(runs, base, toy_data, tmp_path) -> None:
    other = torch.load(base, weights_only=False)
    other["model"]["decoder.layers.1.fc1.bias"][3] += 1e-3
    torch.save(other, tmp_path / "other.pt")
    with pytest.raises(AssertionError, match="is another base model"):
        generate(
            toy_data, runs[0] / "checkpoint_last.pt", tmp_path / "out", "--base-checkpoint", str(tmp_path / "other.pt")
        )


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "start with --finetune-from-model"),
        (("--freeze-original-parameters", "False"), "the base trains as well"),
    ],
)
def test_adapters_only_where_no_base_would_be_found_is_refused(base, toy_data, tmp_path, flags, words) -> None:
    start = ("--finetune-from-model", str(base)) if flags else ()
    with pytest.raises(AssertionError, match=words):
        train(toy_data, tmp_path, "--save-adapters-only", "True", *start, *flags)
    assert not list(tmp_path.glob("*.pt"))
