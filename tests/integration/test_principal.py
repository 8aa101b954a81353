"""``--lora-init principal``: where a training computes it, and where not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from langspec_lora.checkpoints.stored_model import StoredModel
from langspec_lora.models import loaded_state
from tests import toy
from tests.bad_input import STOCK, refusal_of, write_checkpoint
from tests.integration.test_export import load, run
from tests.trainings import train_here

RANKS = (2, 2, 3, 4, 4)
PRINCIPAL = ("--lora-init", "principal", "--dim", "12", "--start-idx", "2")


@pytest.fixture(scope="module")
def base(toy_data, tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("base") / "base.pt", toy.base_flags(toy_data, *STOCK))


def check_start(path: str, a: torch.Tensor, weight: torch.Tensor) -> None:
    """A spans, for each language, the first right singular vectors of the columns 2 to 14."""
    vectors = np.linalg.svd(weight.double().numpy()[:, 2:14])[2]
    for rank, own in zip(RANKS, a.double().split(RANKS), strict=True):
        cosines = (own.numpy() * vectors[:rank]).sum(1) / np.sqrt(12 / (3 * rank))
        np.testing.assert_allclose(np.abs(cosines), 1, rtol=1e-4, err_msg=path)


def test_a_base_that_is_loaded_gives_the_directions_and_the_model_is_still_the_base(toy_data, base) -> None:
    flags = [*toy.plugin_flags(toy_data, "--finetune-from-model", str(base)), *PRINCIPAL]
    task, model = toy.build(flags)
    model.load_state_dict(dict(load(base)["model"]))  # as fairseq's trainer does
    for site, linear in model.adapters.linears.items():
        check_start(site.path, linear.lora_A.detach(), linear.weight.detach())
        assert not linear.lora_B.any()
    _, plain = toy.build(toy.plugin_flags(toy_data))
    plain.load_state_dict(dict(load(base)["model"]))
    batch = toy.mixed_batch(task)
    assert torch.equal(toy.forward(model.eval(), batch), toy.forward(plain.eval(), batch))


@pytest.mark.slow
def test_a_training_starts_with_them_and_resumes_without_computing_them_again(
    toy_data, base, tmp_path, monkeypatch
) -> None:
    calls = []
    own = loaded_state.set_principal
    monkeypatch.setattr(loaded_state, "set_principal", lambda *given: (calls.append(1), own(*given)))
    start = ("--finetune-from-model", base, *PRINCIPAL)
    train_here(toy_data, tmp_path / "still", *start, "--max-epoch", 1, "--lr", "1e-30")
    assert len(calls) == 26  # 2 × 5 positions of the encoder, 2 × 8 of the decoder
    state = load(tmp_path / "still" / "checkpoint_last.pt")["model"]
    weights = load(base)["model"]
    for name in (name for name in state if name.endswith("lora_A")):
        check_start(name, state[name], weights[name.replace("lora_A", "weight")])
    for folder, epochs in (("whole", 2), ("parts", 1), ("parts", 2)):
        train_here(toy_data, tmp_path / folder, *start, "--max-epoch", epochs)
    assert len(calls) == 3 * 26
    whole, parts = (load(tmp_path / name / "checkpoint_last.pt")["model"] for name in ("whole", "parts"))
    assert all(torch.equal(value, parts[name]) for name, value in whole.items() if not name.endswith("_float_tensor"))


def test_new_languages_start_in_the_same_directions(toy_data, base, tmp_path) -> None:
    start = ("--finetune-from-model", str(base))
    path = write_checkpoint(tmp_path / "a.pt", [*toy.plugin_flags(toy_data, *start), *PRINCIPAL])
    (tmp_path / "levels.yaml").write_text("med: [xh]\n")
    run("add-language", path, "--langs", "xh", "--lang-resources", tmp_path / "levels.yaml", "--out", tmp_path / "b.pt")
    stored = StoredModel(tmp_path / "b.pt")
    for site in stored.adapters.packed:
        vectors = np.linalg.svd(stored.base[f"{site.path}.weight"].double().numpy()[:, 2:14])[2]
        a, b = stored.adapters.adapter(site, "xh")
        cosines = (a.double().numpy() * vectors[:3]).sum(1) / np.sqrt(12 / (3 * 3))
        np.testing.assert_allclose(np.abs(cosines), 1, rtol=1e-4)
        assert not b.any()


def test_without_a_base_it_is_refused_and_with_adapters_it_has_no_effect(toy_data, base, tmp_path, caplog) -> None:
    message = refusal_of(toy.build, toy.plugin_flags(toy_data, "--lora-init", "principal"))
    assert message.endswith("but this training has none; give it as --finetune-from-model")
    adapted = write_checkpoint(tmp_path / "a.pt", toy.plugin_flags(toy_data))
    toy.build(toy.plugin_flags(toy_data, "--lora-init", "principal", "--finetune-from-model", str(adapted)))
    assert f"--lora-init principal: no effect, since checkpoint {adapted} already has all adapters" in caplog.text
    state = load(base)
    state["model"]["encoder.layers.1.fc2.weight"][0, 0] = float("nan")
    _, model = toy.build([*toy.plugin_flags(toy_data, "--finetune-from-model", str(base)), *PRINCIPAL])
    message = refusal_of(model.load_state_dict, state["model"])
    assert "the base has infinite numbers or NaN in encoder.layers.1.fc2.weight" in message
