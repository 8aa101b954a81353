"""Checkpoints, good and bad, and a finished evaluation, made once for all tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fairseq.tasks.translation_multi_simple_epoch import TranslationMultiSimpleEpochTask

from langspec_lora.evaluation.evaluate import evaluate
from tests import toy
from tests.bad_input import PRE_NORM, STOCK, Touch, cut_short, without_one_adapter, write_checkpoint
from tests.evaluations import options, train_checkpoint
from tests.trainings import WITHIN_EPOCHS, Runs, train


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks all tests of this folder as slow: they run whole commands."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def checkpoints(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of good and bad checkpoints; ``executed`` lies in it if a hostile one was run."""
    folder = tmp_path_factory.mktemp("check points")
    base, plugin = toy.base_flags(toy_data, *STOCK), toy.plugin_flags(toy_data)
    write_checkpoint(folder / "base.pt", base)
    write_checkpoint(folder / "adapted.pt", plugin)
    write_checkpoint(folder / "part.pt", plugin, without_one_adapter)
    three = ["--langs", "en,fr,nl", "--lang-pairs", "en-fr,fr-nl"]
    write_checkpoint(folder / "three.pt", [*plugin, *three])
    write_checkpoint(folder / "deep.pt", [*base, "--encoder-layers", "3"])
    write_checkpoint(folder / "wide.pt", [*base, "--encoder-embed-dim", "32", "--decoder-embed-dim", "32"])
    write_checkpoint(folder / "ffn.pt", [*base, "--decoder-ffn-embed-dim", "48"])
    write_checkpoint(folder / "post-norm.pt", [flag for flag in base if flag not in PRE_NORM])
    more_words = folder / "dict.txt"
    more_words.write_text((toy_data.parent / "dict.txt").read_text() + "more 1\nwords 1\n")
    write_checkpoint(folder / "words.pt", [*base, "--fixed-dictionary", str(more_words)])
    write_checkpoint(folder / "hostile.pt", base, lambda state: state.update(cfg={"x": [Touch(folder / "executed")]}))
    cut_short(write_checkpoint(folder / "damaged.pt", base))
    return folder


@pytest.fixture
def unbuilt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails a test that gets as far as a model."""

    def build_model(*args, **kwargs):
        pytest.fail("a model was built")

    monkeypatch.setattr(TranslationMultiSimpleEpochTask, "build_model", build_model)


@pytest.fixture(scope="session")
def adapted(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with adapters, trained far enough that directions differ and hypotheses end."""
    flags = toy.plugin_flags(toy_data, "--freeze-original-parameters", "False")
    return train_checkpoint(tmp_path_factory.mktemp("adapted"), flags)


@pytest.fixture(scope="session")
def stock(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of stock fairseq."""
    flags = ["--task", "translation_multi_simple_epoch", "--arch", "transformer"]
    flags = toy.base_flags(toy_data, *flags, "--encoder-normalize-before", "--decoder-normalize-before")
    return train_checkpoint(tmp_path_factory.mktemp("stock"), flags)


@pytest.fixture(scope="session")
def results(toy_data: Path, adapted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished evaluation of all twenty directions; copy it before changing it."""
    out = tmp_path_factory.mktemp("results") / "adapted"
    evaluate(options(toy_data, adapted, out))
    return out


@pytest.fixture
def own(results: Path, tmp_path: Path) -> Path:
    """A copy of the finished evaluation."""
    return Path(shutil.copytree(results, tmp_path / "results"))


@pytest.fixture(scope="session")
def base(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stock model that has learned nothing."""
    return write_checkpoint(tmp_path_factory.mktemp("base") / "base.pt", toy.base_flags(toy_data, *STOCK))


@pytest.fixture(scope="session")
def runs(base: Path, toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Trainings with pruning, by the stock command; copy what is to be changed."""
    folder = tmp_path_factory.mktemp("runs")
    start = ("--finetune-from-model", str(base), *WITHIN_EPOCHS)
    train(toy_data, folder / "lean", *start)
    log = train(toy_data, folder / "whole", *start, "--save-adapters-only", "False")
    return Runs(folder / "lean", folder / "whole", log)
