"""``--lora-dropout`` in whole models and trainings."""

from __future__ import annotations

import pytest
import torch

from langspec_lora.checkpoints.assembly import adapted_arguments
from langspec_lora.checkpoints.stored_model import StoredModel
from tests import toy
from tests.bad_input import load_for_generation, refusal_of, write_checkpoint
from tests.integration.test_export import load
from tests.trainings import train_here

DROPOUT = ("--lora-dropout", "0.3")


@pytest.mark.parametrize(
    "more", [("--dropout", "0.1", "--attention-dropout", "0.1"), ()], ids=["among others", "alone"]
)
@pytest.mark.parametrize("offload", ["--checkpoint-activations", "--offload-activations"])
def test_recomputed_activations_drop_the_same(toy_data, more, offload) -> None:
    gradients = []
    for flag in ((), (offload,)):
        task, model = toy.build(toy.plugin_flags(toy_data, *DROPOUT, *more, *flag))
        toy.randomise_adapters(model)
        batch = toy.mixed_batch(task)
        torch.manual_seed(6)
        toy.forward(model.train(), batch).square().mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, rtol=1e-5, atol=1e-6)


def test_each_adapted_linear_drops_in_training_and_none_in_evaluation(toy_data) -> None:
    task, model = toy.build(toy.plugin_flags(toy_data, *DROPOUT))
    _, plain = toy.build(toy.plugin_flags(toy_data))
    for own in (model, plain):
        toy.randomise_adapters(own)
    batch = toy.mixed_batch(task)
    expected = toy.forward(plain.eval(), batch)
    assert torch.equal(toy.forward(model.eval(), batch), expected)
    for site, linear in model.train().adapters.linears.items():
        assert linear.dropout == 0.3
        x = torch.randn(3, len(batch["id"]), linear.in_features)
        outputs = [linear(x) for _ in range(2)]
        assert not torch.equal(*outputs), site
    assert not torch.allclose(toy.forward(model, batch), expected, atol=1e-3)


@pytest.mark.slow
def test_a_training_that_stops_within_an_epoch_goes_on_bit_for_bit(toy_data, tmp_path) -> None:
    for folder, updates in (("whole", 5), ("parts", 2), ("parts", 5), ("without", 5)):
        more = () if folder == "without" else DROPOUT
        train_here(toy_data, tmp_path / folder, *more, "--max-update", updates, "--pruning", "False")
    states = {name: load(tmp_path / name / "checkpoint_last.pt") for name in ("whole", "parts", "without")}
    assert states["whole"]["extra_state"]["train_iterator"]["epoch"] == 1
    whole, parts, without = (states[name]["model"] for name in ("whole", "parts", "without"))
    kept = [name for name in whole if not name.endswith("_float_tensor")]
    assert all(torch.equal(whole[name], parts[name]) for name in kept)
    assert not all(torch.equal(whole[name], without[name]) for name in kept)


def test_a_trained_model_translates_without_it(toy_data, tmp_path) -> None:
    path = write_checkpoint(tmp_path / "a.pt", toy.plugin_flags(toy_data, *DROPOUT))
    model = load_for_generation(toy_data, path)[0][0]
    batch = toy.mixed_batch(toy.build(toy.plugin_flags(toy_data))[0])
    state = torch.get_rng_state()
    toy.forward(model.eval(), batch)
    assert torch.equal(state, torch.get_rng_state())
    stored = StoredModel(path)
    assert stored.args.lora_dropout == 0.3
    assert adapted_arguments(stored.args, stored.adapters, stored.settings).lora_dropout == 0


def test_wrong_shares_are_refused_and_one_without_adapters_is_named(toy_data, caplog) -> None:
    for value, words in (
        ("1", "--lora-dropout 1.0: expected a share from 0 to below 1, such as 0.1"),
        ("-0.1", "expected a share from 0 to below 1"),
        ("nan", "expected a share from 0 to below 1"),
        ("much", "--lora-dropout much: expected a number"),
    ):
        assert words in refusal_of(toy.build, toy.plugin_flags(toy_data, "--lora-dropout", value))
    toy.build(toy.plugin_flags(toy_data, *DROPOUT, "--add-lora", "False"))
    assert "--lora-dropout 0.3: no effect with --add-lora False, which adds no adapters" in caplog.text
