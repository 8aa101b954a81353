"""``--lora-alpha``: trainings, checkpoints, edits and exports of scaled adapters, held against the formula."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from langspec_lora.adapters.entries import SCALING, read_scaling
from langspec_lora.checkpoints.stored_model import StoredModel
from langspec_lora.errors import UserError
from langspec_lora.scaling import Scaling
from tests import toy
from tests.bad_input import refusal_of, write_checkpoint
from tests.integration.test_adapter_keys import logits_of
from tests.integration.test_export import load, refusal, run
from tests.trainings import train_here

RANKS = (2, 2, 3, 4, 4)
KINDS = {
    "rank": (("--lora-alpha", "3"), [3 / rank for rank in RANKS]),
    "root": (("--lora-alpha", "1.7", "--lora-scaling", "root"), [1.7 / math.sqrt(rank) for rank in RANKS]),
}


def fill(state: dict) -> None:
    for name, value in state["model"].items():
        if name.endswith("lora_B"):
            value.normal_(generator=torch.Generator().manual_seed(len(name)), std=0.3)


@pytest.fixture(scope="module", params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def scaled(kind, toy_data, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp(kind) / "model.pt"
    return write_checkpoint(path, [*toy.plugin_flags(toy_data), *KINDS[kind][0]], fill)


def reference(task, model, flags: list[str], factors: list[float]) -> toy.PerLanguageReference:
    def key_of(side: str, source: int, target: int) -> list[tuple[int, float]]:
        language = source if side == "src" else target
        return [(language, factors[language])]

    return toy.PerLanguageReference(task, model, flags, key_of).train(False)


@pytest.mark.parametrize("more", [(), ("--dim", "10", "--start-idx", "3")], ids=["whole", "slice"])
def test_a_mixed_batch_gives_the_logits_and_gradients_of_the_formula(kind, toy_data, more) -> None:
    own = [*toy.plugin_flags(toy_data), *KINDS[kind][0], *more]
    task, model = toy.build(own)
    toy.randomise_adapters(model)
    batch = toy.mixed_batch(task)
    plain = reference(task, model, own, KINDS[kind][1])
    logits, expected = toy.forward(model.eval(), batch), plain.logits(batch)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    logits.square().mean().backward()
    expected.square().mean().backward()
    for site, linear in model.adapters.linears.items():
        for parameter, slope in zip((linear.lora_A, linear.lora_B), plain.gradients()[site.path], strict=True):
            torch.testing.assert_close(parameter.grad, slope, rtol=1e-3, atol=1e-5)


def test_every_export_and_edit_computes_what_the_model_computes(kind, scaled, toy_data, tmp_path) -> None:
    direction = ("nl", "wo")
    expected = logits_of(scaled, toy_data, direction, merged=False)

    def check(path: Path) -> None:
        assert SCALING not in load(path)["model"]
        assert load(path)["args"].lora_alpha is None
        other = logits_of(path, toy_data, direction, merged=False)
        torch.testing.assert_close(other, expected, rtol=1e-4, atol=1e-5)

    torch.testing.assert_close(logits_of(scaled, toy_data, direction, merged=True), expected, rtol=1e-4, atol=1e-5)
    run("export", scaled, "--format", "adapter", "--out", tmp_path / "folder")
    run("import", tmp_path / "folder", "--from", "adapter", "--base", scaled, "--out", tmp_path / "again.pt")
    check(tmp_path / "again.pt")
    run("average", scaled, scaled, "--out", tmp_path / "mean.pt")
    check(tmp_path / "mean.pt")
    run("remove-language", scaled, "--langs", "fr", "--out", tmp_path / "fewer.pt")
    left = [name for name in toy.LANGUAGES if name != "fr"]
    stored = StoredModel(tmp_path / "fewer.pt").adapters
    assert stored.languages.names == tuple(left)
    raw, factors = load(scaled)["model"], KINDS[kind][1]
    for site in stored.packed:
        for name in left:
            number = toy.LANGUAGES.index(name)
            rows = slice(sum(RANKS[:number]), sum(RANKS[: number + 1]))
            b = raw[f"{site.path}.lora_B"][rows] * factors[number]
            torch.testing.assert_close(stored.adapter(site, name)[1], b, rtol=1e-6, atol=0)
    run("export", scaled, "--format", "merged", "-s", direction[0], "-t", direction[1], "--out", tmp_path / "one.pt")
    merged, whole = load(tmp_path / "one.pt")["model"], StoredModel(scaled)
    for site in whole.adapters.packed:
        number = toy.LANGUAGES.index(direction[whole.adapters.side(site) == "tgt"])
        rows = slice(sum(RANKS[:number]), sum(RANKS[: number + 1]))
        a, b = (raw[f"{site.path}.lora_{part}"][rows] for part in "AB")
        weight = raw[f"{site.path}.weight"] + factors[number] * b.t() @ a
        torch.testing.assert_close(merged[f"{site.path}.weight"], weight, rtol=1e-5, atol=1e-6)


def test_adapters_of_trainings_with_other_scalings_join_by_what_they_compute(toy_data, tmp_path) -> None:
    one, other = (toy.plugin_flags(toy_data, *KINDS[name][0]) for name in ("rank", "root"))
    for name, flags in (("one", one), ("other", other)):
        write_checkpoint(tmp_path / f"{name}.pt", flags, fill)
    run("remove-language", tmp_path / "one.pt", "--langs", "wo,sd", "--out", tmp_path / "a.pt")
    run("remove-language", tmp_path / "other.pt", "--langs", "en,fr,nl", "--out", tmp_path / "b.pt")
    run("join", tmp_path / "a.pt", tmp_path / "b.pt", "--out", tmp_path / "joined.pt")
    joined, raw = StoredModel(tmp_path / "joined.pt").adapters, load(tmp_path / "one.pt")["model"]
    for site in joined.packed:
        factors = [*KINDS["rank"][1][:3], *KINDS["root"][1][3:]]  # both are filled with the same numbers
        wanted = [factor for rank, factor in zip(RANKS, factors, strict=True) for _ in range(rank)]
        b = raw[f"{site.path}.lora_B"] * torch.tensor(wanted).unsqueeze(1)
        torch.testing.assert_close(joined.packed[site].b, b, rtol=1e-6, atol=0)


@pytest.mark.parametrize("half", [False, True])
def test_a_new_training_with_another_scaling_starts_from_the_same_model(kind, scaled, toy_data, tmp_path, half) -> None:
    state = load(scaled)
    if half:
        state["model"] = {n: v.half() if v.is_floating_point() else v for n, v in state["model"].items()}
        assert read_scaling(state["model"]) == Scaling(float(KINDS[kind][0][1]), kind)
    batch, logits = None, []
    for more in (KINDS[kind][0], (), ("--lora-alpha", "0.3", "--lora-scaling", "root")):
        task, model = toy.build([*toy.plugin_flags(toy_data), *more])
        batch = batch or toy.mixed_batch(task)
        model.load_state_dict(dict(state["model"]))
        logits.append(toy.forward(model.eval(), batch).detach())
    tolerance = {"rtol": 1e-2, "atol": 2e-3} if half else {"rtol": 1e-4, "atol": 1e-5}
    for other in logits[1:]:
        torch.testing.assert_close(other, logits[0], **tolerance)
    task, model = toy.build([*toy.plugin_flags(toy_data), *KINDS[kind][0]])
    model.load_state_dict(dict(load(scaled)["model"]))
    for name, value in load(scaled)["model"].items():
        if "lora_" in name:
            assert torch.equal(model.state_dict()[name], value)  # as trained, so that a training resumes bit for bit


def test_languages_in_another_order_keep_their_factors(kind, scaled, toy_data) -> None:
    order = ("sd", "nl", "en", "wo", "fr")
    flags = [*toy.plugin_flags(toy_data), "--langs", ",".join(order)]
    _, model = toy.build(flags)  # without a scaling, so that B is converted
    model.load_state_dict(dict(load(scaled)["model"]))
    raw, factors = load(scaled)["model"], KINDS[kind][1]
    for site, linear in model.adapters.linears.items():
        wanted = []
        for name in order:
            number = toy.LANGUAGES.index(name)
            rows = slice(sum(RANKS[:number]), sum(RANKS[: number + 1]))
            wanted.append(raw[f"{site.path}.lora_B"][rows] * factors[number])
        torch.testing.assert_close(linear.lora_B.detach(), torch.cat(wanted), rtol=1e-6, atol=0)


def test_a_scaling_that_the_arguments_do_not_have_is_damage(kind, scaled, tmp_path) -> None:
    for change, words in (
        (lambda state: state["model"].pop(SCALING), "holds only part of the adapters"),
        (lambda state: setattr(state["args"], "lora_alpha", 2.0), "is damaged: its adapters were trained with"),
        (lambda state: state["model"].update({SCALING: torch.tensor([1, 2])}), f"the checkpoint's {SCALING} is dam"),
    ):
        state = load(scaled)
        change(state)
        torch.save(state, tmp_path / "other.pt")
        assert words in refusal("inspect", tmp_path / "other.pt")
    with pytest.raises(UserError, match="is damaged"):
        read_scaling({SCALING: torch.tensor(list(b'{"alpha": -1, "by": "rank"}'))})


def test_new_languages_are_trained_on_with_the_scaling(kind, scaled, toy_data, tmp_path, capsys) -> None:
    (tmp_path / "levels.yaml").write_text("low: [xh]\n")
    run("add-language", scaled, "--langs", "xh", "--lang-resources", tmp_path / "levels.yaml", "--out", tmp_path / "x")
    alpha, by = KINDS[kind][0][1], kind
    assert f"--train-languages xh --lora-alpha {alpha} --lora-scaling {by}" in capsys.readouterr().out


@pytest.mark.slow
def test_a_pruned_training_resumes_bit_for_bit_and_translates_as_it_was_trained(kind, toy_data, tmp_path) -> None:
    own = (*KINDS[kind][0], "--pruning-scope", "layer")
    for folder, epochs in (("whole", 3), ("parts", 1), ("parts", 3)):
        train_here(toy_data, tmp_path / folder, *own, "--max-epoch", epochs)
    whole, parts = (load(tmp_path / name / "checkpoint_last.pt")["model"] for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(value, parts[name]) for name, value in whole.items() if not name.endswith("_float_tensor"))
    assert read_scaling(whole) == Scaling(float(KINDS[kind][0][1]), kind)
    message = refusal_of(train_here, toy_data, tmp_path / "parts", "--lora-alpha", "7", "--max-epoch", 4)
    assert "was trained with the scaling --lora-alpha" in message
    assert "but --lora-alpha 7 --lora-scaling rank was given" in message


def test_what_has_no_effect_is_named_and_wrong_values_are_refused(toy_data, caplog) -> None:
    for flags, words in (
        (("--lora-scaling", "root"), "--lora-scaling root: no effect without --lora-alpha"),
        (("--lora-alpha", "2", "--add-lora", "False"), "--lora-alpha 2.0: no effect with --add-lora False"),
    ):
        caplog.clear()
        toy.build([*toy.plugin_flags(toy_data), *flags])
        assert words in caplog.text
    for flags, words in (
        (("--lora-alpha", "0"), "--lora-alpha 0.0: expected a number from 0.0001 to 10000, such as 16"),
        (("--lora-alpha", "1e39"), "expected a number from"),  # infinite in single precision
        (("--lora-alpha", "nan"), "expected a number from"),
        (("--lora-alpha", "x"), "--lora-alpha x: expected a number"),
        (("--lora-scaling", "none"), "--lora-scaling none: expected rank, root, constant"),
    ):
        assert words in refusal_of(toy.build, [*toy.plugin_flags(toy_data), *flags])
