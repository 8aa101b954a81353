"""COMET by a stand-in for its package: what it is asked, and what is said where it cannot be had."""

from __future__ import annotations

import importlib
import sys

import pytest
import torch

from langspec_lora.errors import UserError
from langspec_lora.evaluation.metrics import comet
from langspec_lora.evaluation.metrics.comet import CometScorer

SENTENCES = (["a", "bb"], ["ccc", "dddd"], ["eeeee", "ffffff"])
SCORE = 100 * ((3 + 100 * 1 + 10000 * 5) + (4 + 100 * 2 + 10000 * 6)) / 2 / 1e6
"""What the stand-in gives for them, times 100."""


def calls() -> list:
    return importlib.import_module("comet").calls


@pytest.mark.parametrize(
    ("there", "flags", "gpus"), [(False, {}, 0), (True, {}, 1), (True, {"cpu": True}, 0), (False, {"cpu": True}, 0)]
)
def test_a_model_is_loaded_once_and_scores_on_a_gpu_that_it_may_use(
    fake_comet, monkeypatch, there, flags, gpus
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    scorer = CometScorer("Some/model", **flags)
    assert calls() == []
    for _ in range(2):
        assert scorer.score(*SENTENCES) == pytest.approx(SCORE)
    asked = {"batch_size": comet.BATCH_SIZE, "gpus": gpus, "progress_bar": False}
    assert calls() == ["downloaded.ckpt", asked, asked]
    assert scorer.signature == "model:Some/model|scale:100|version:2.2.9"


def test_a_file_is_taken_as_it_is(fake_comet, tmp_path) -> None:
    path = str(tmp_path / "model.ckpt")
    with pytest.raises(UserError, match=rf"--comet {path}: file not found; give a COMET model's \.ckpt, or its"):
        CometScorer(path)
    (tmp_path / "model.ckpt").touch()
    CometScorer(path).score(*SENTENCES)
    assert calls()[0] == path


def test_what_the_download_says_is_passed_on_in_one_short_line(fake_comet, monkeypatch) -> None:
    def download_model(name: str) -> str:
        raise ConnectionError("no\n network, " + "x" * 500)

    monkeypatch.setattr(importlib.import_module("comet"), "download_model", download_model)
    words = (
        rf"--comet Some/model cannot be downloaded \(no network, {'x' * 188}\); download it where there is a network"
    )
    with pytest.raises(UserError, match=words):
        CometScorer("Some/model")


def test_without_the_package_its_installation_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "comet", None)
    monkeypatch.setattr(comet, "find_spec", lambda name: None if name == "comet" else pytest.fail(name))
    with pytest.raises(
        UserError, match=r"--comet needs the package unbabel-comet: pip install 'langspec_lora\[comet\]'"
    ):
        CometScorer("Some/model")
