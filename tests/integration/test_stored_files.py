"""Files that an earlier version wrote still load, and mean what they meant; see tests/stored/README.md."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq.checkpoint_utils import load_model_ensemble
from safetensors.torch import load_file

from langspec_lora.cli.main import main
from tests import ROOT, toy

STORED = ROOT / "tests" / "stored"
SOURCE = torch.tensor([[9, 10, 11, 2], [8, 12, 14, 2], [13, 9, 8, 2], [10, 10, 9, 2]])
PREVIOUS = torch.tensor([[2, 9, 12], [2, 8, 8], [2, 11, 10], [2, 14, 9]])
LANGUAGES = torch.tensor([[0, 1, 3, 4], [3, 0, 2, 1]])


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    data = tmp_path_factory.mktemp("stored") / "bin"
    data.mkdir()
    for name in toy.LANGUAGES:
        shutil.copy(STORED / "dict.txt", data / f"dict.{name}.txt")
    shutil.copy(STORED / "dict.txt", data.parent / "dict.txt")
    (data.parent / "levels.yaml").write_text(toy.LEVELS)
    return toy.build(toy.plugin_flags(data), translates=True)[0]


def logits(task, checkpoint: Path) -> np.ndarray:
    overrides = {"base_checkpoint": str(STORED / "base.pt")}
    (model,), _ = load_model_ensemble([str(checkpoint)], overrides, task)
    model.eval()
    with torch.no_grad():
        output = model(SOURCE, torch.full((4,), 4), PREVIOUS, src_lang_id=LANGUAGES[0], tgt_lang_id=LANGUAGES[1])[0]
    return output.numpy()


@pytest.mark.parametrize("name", ["whole.pt", "adapters_only.pt"])
def test_a_stored_checkpoint_computes_what_it_computed(task, name) -> None:
    np.testing.assert_allclose(logits(task, STORED / name), np.load(STORED / "logits.npy"), rtol=0, atol=1e-5)


def test_a_stored_adapter_folder_becomes_the_checkpoint_it_was_exported_from(task, tmp_path) -> None:
    imported, base = tmp_path / "imported.pt", STORED / "base.pt"
    main(["import", str(STORED / "adapter"), "--from", "adapter", "--base", str(base), "--out", str(imported)])
    np.testing.assert_allclose(logits(task, imported), np.load(STORED / "logits.npy"), rtol=0, atol=1e-5)
    state, expected = (torch.load(path, weights_only=False)["model"] for path in (imported, STORED / "whole.pt"))
    adapters = {name for name in expected if "lora_" in name or name == "adapters.mask_epoch"}
    assert len(adapters) > 60
    for name in adapters:
        assert torch.equal(state[name], expected[name]), name


def test_exporting_a_stored_checkpoint_gives_the_stored_adapter_folder(tmp_path) -> None:
    main(["export", str(STORED / "whole.pt"), "--format", "adapter", "--out", str(tmp_path / "adapter")])
    written, stored = tmp_path / "adapter", STORED / "adapter"
    new, old = (json.loads((folder / "adapter_config.json").read_text()) for folder in (written, stored))
    assert len(new.pop("sha256")) == 64  # which that version did not write
    assert new == old
    tensors, expected = (load_file(folder / "adapter.safetensors") for folder in (written, stored))
    assert tensors.keys() == expected.keys()
    for name in expected:
        assert torch.equal(tensors[name], expected[name]), name


def test_a_stored_evaluation_is_reported(tmp_path, capsys) -> None:
    shutil.copytree(STORED / "results", tmp_path / "results")
    main(["report", str(tmp_path / "results"), "--lang-resources", str(levels(tmp_path))])
    scores = (STORED / "results" / "all_direction.spbleu").read_text()
    assert "3.66" in capsys.readouterr().out, scores


def levels(folder: Path) -> Path:
    (folder / "levels.yaml").write_text(toy.LEVELS)
    return folder / "levels.yaml"
