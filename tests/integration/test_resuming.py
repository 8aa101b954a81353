"""Going on with a training under other flags: refused where fairseq or torch would stumble, warned of, or right."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from fairseq_cli import train

from tests import toy
from tests.bad_input import refusal_of
from tests.evaluations import run_stock

ADAM = ("--optimizer", "adam", "--lr", "1e-3", "--cpu", "--no-progress-bar")


@pytest.fixture(scope="module")
def trained(toy_data: Path, tmp_path_factory) -> Path:
    """A folder with the checkpoint of two updates."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        run_stock(patch, train, *toy.plugin_flags(toy_data, *ADAM, "--max-update", "2", "--save-dir", str(folder)))
    return folder


def flags(data: Path, folder: Path, *more: str) -> list[str]:
    return toy.plugin_flags(data, *ADAM, "--save-dir", str(folder), *more)


@pytest.mark.usefixtures("unbuilt")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--optimizer", "sgd"], "was trained with --optimizer adam, which its optimizer state depends on, but sgd"),
        (["--fp16"], "with the precision fp32, which its optimizer state depends on, but --fp16 was given"),
        (["--amp"], "with the precision fp32, which its optimizer state depends on, but --amp was given"),
        (["--freeze-original-parameters", "False"], "with --freeze-original-parameters True, which its optimizer"),
        (
            ["--lora-alpha", "4"],
            "with the scaling none, which its optimizer state depends on, but --lora-alpha 4 --lora-scaling rank was",
        ),
        (["--lr-scheduler", "inverse_sqrt"], "with --lr-scheduler fixed, whose state --lr-scheduler inverse_sqrt"),
        (["--lr-scheduler", "reduce_lr_on_plateau"], "whose state --lr-scheduler reduce_lr_on_plateau cannot use"),
        (["--criterion", "cross_entropy"], "with --criterion label_smoothed_cross_entropy, which its optimizer state"),
    ],
)
def test_state_that_cannot_be_taken_up_ends_a_resumption_before_a_model_is_built(
    toy_data, trained, change, words
) -> None:
    given = flags(toy_data, trained, *change)
    if change[0] == "--criterion":
        place = given.index("--label-smoothing")
        given = given[:place] + given[place + 2 :]
    with pytest.raises(SystemExit) as refusal:
        toy.build(given)
    message = refusal.value.code  # without a GPU, --fp16 is a mistake of its own beside it
    assert f"checkpoint {trained / 'checkpoint_last.pt'} was trained " in message
    assert words in message
    assert "start with a new state with --reset-" in message


@pytest.mark.usefixtures("unbuilt")
def test_plateau_is_not_sought_from_a_best_loss_that_was_never_measured(toy_data, trained, tmp_path) -> None:
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(torch.optim.SGD([torch.zeros(1)], lr=1.0))
    plateau.best = None
    with pytest.raises(TypeError):  # after the first epoch
        plateau.step(1.0)
    state = torch.load(trained / "checkpoint_last.pt", weights_only=False)
    state["optimizer_history"][-1]["lr_scheduler_state"] = {"best": None}  # of a training without validation
    torch.save(state, tmp_path / "checkpoint_last.pt")
    message = refusal_of(toy.build, flags(toy_data, tmp_path, "--lr-scheduler", "reduce_lr_on_plateau"))
    assert "whose state --lr-scheduler reduce_lr_on_plateau cannot use" in message


@pytest.mark.parametrize(
    "change",
    [["--optimizer", "sgd", "--reset-optimizer"], ["--lr-scheduler", "inverse_sqrt", "--reset-lr-scheduler"]],
)
def test_what_the_refusal_advises_works(toy_data, trained, tmp_path, monkeypatch, change) -> None:
    shutil.copy(trained / "checkpoint_last.pt", tmp_path)
    run_stock(monkeypatch, train, *flags(toy_data, tmp_path, "--max-update", "3", "--disable-validation", *change))
    history = torch.load(tmp_path / "checkpoint_last.pt", weights_only=False)["optimizer_history"]
    assert history[-1]["num_updates"] == 3


def test_options_that_the_state_overrules_are_warned_of_and_the_advice_works(
    toy_data, trained, tmp_path, monkeypatch, caplog
) -> None:
    shutil.copy(trained / "checkpoint_last.pt", tmp_path)
    given = flags(toy_data, tmp_path, "--disable-validation", "--weight-decay", "0.5", "--update-freq", "2")
    decays = []
    for number, more in enumerate(([], [], ["--optimizer-overrides", "{'weight_decay': 0.5}"])):
        caplog.clear()
        run_stock(monkeypatch, train, *given, "--max-update", str(3 + number), *more)
        state = torch.load(tmp_path / "checkpoint_last.pt", weights_only=False)["last_optimizer_state"]
        decays.append((state["param_groups"][0]["weight_decay"], "--weight-decay 0.5 has no effect" in caplog.text))
    assert decays == [(0.0, True), (0.0, True), (0.5, False)]


@pytest.mark.usefixtures("unbuilt")
def test_base_to_resume_from_is_refused(toy_data, checkpoints, tmp_path) -> None:
    base = checkpoints / "base.pt"
    message = refusal_of(toy.build, flags(toy_data, tmp_path, "--restore-file", str(base)))
    assert f"checkpoint {base} holds no adapters" in message
    assert f"give it as --finetune-from-model {base}" in message


@pytest.mark.usefixtures("unbuilt")
def test_training_in_the_folder_of_its_base_is_refused(toy_data, checkpoints, tmp_path) -> None:
    """fairseq would resume the base's training there, whatever --finetune-from-model says."""
    shutil.copy(checkpoints / "base.pt", tmp_path / "checkpoint_last.pt")
    start = ("--finetune-from-model", str(checkpoints / "base.pt"))
    assert "give another --save-dir" in refusal_of(toy.build, flags(toy_data, tmp_path, *start))


def test_base_with_a_new_optimizer_is_left_to_fairseq(toy_data, checkpoints, tmp_path) -> None:
    toy.build(flags(toy_data, tmp_path, "--restore-file", str(checkpoints / "base.pt"), "--reset-optimizer"))
