"""Learning rates chosen on development text."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean

import pytest

from langspec_lora.errors import UserError
from langspec_lora.study.choose import Choice, choose, loss_of
from langspec_lora.study.plan import Plan
from tests.studies import Workshop


def write_curves(folder: Path, losses: list[float]) -> None:
    """A curve file as a training writes it."""
    lines: list[dict] = [{"kind": "training", "format": 1, "run": "x", "languages": {}}]
    for number, loss in enumerate(losses, start=1):
        lines.append({"kind": "epoch", "epoch": number, "updates": 10 * number, "loss": 0.1})
        lines.append({"kind": "validation", "epoch": number, "updates": 10 * number, "subset": "valid", "loss": loss})
    folder.mkdir(parents=True)
    (folder / "curves.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def test_the_chosen_rate_has_the_best_mean_over_all_directions(workshop: Workshop) -> None:
    study = workshop.run()
    for rate, score in study.choices["full"].scores.items():
        content = json.loads((workshop.folder / "results" / rate / "scores.json").read_text())
        entries = content["directions"] if "directions" in content else content["scores"]
        assert score == pytest.approx(fmean(entry["bleu"] for entry in entries.values()))
    assert study.choices["full"].rate == max(study.choices["full"].scores, key=study.choices["full"].scores.get)


def test_a_score_of_which_less_is_better(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    workshop.run()
    plan = Plan(workshop.recipe(), workshop.out, {})
    from langspec_lora.evaluation.metrics import METRICS

    monkeypatch.setattr(type(METRICS["bleu"]), "higher_is_better", False)
    assert choose(plan, set(plan.steps))["full"].rate == "0.1"


@pytest.mark.parametrize(("epoch", "rate"), [("last", "0.01"), ("best", "0.1")])
def test_by_loss_the_loss_of_the_checkpoint_decides(workshop: Workshop, epoch: str, rate: str) -> None:
    workshop.change("choose-by: bleu", f"choose-by: loss\nepoch: {epoch}")
    workshop.change("{flags: --own, epoch: best}", "--own")
    plan = Plan(workshop.recipe(), workshop.out, {})
    assert not any(step.kind == "development" for step in plan.steps.values())
    for variant in plan.recipe.variants:
        for own, losses in (("0.1", [3.0, 1.0, 4.0]), ("0.01", [3.0, 2.5, 2.0]), ("0.001", [3.5, 3.0, 2.9])):
            write_curves(plan.training_folder(variant, own, 1), losses)
    done = {name for name, step in plan.steps.items() if not step.waits}
    choices = choose(plan, done)
    assert {name: choice.rate for name, choice in choices.items()} == {"full": rate, "lslo": rate}
    assert choices["full"].by == "loss"
    assert choose(plan, done - {"train-full-lr0.001-seed1"}).keys() == {"lslo"}


def test_a_training_without_losses_is_named(tmp_path: Path) -> None:
    write_curves(tmp_path / "one", [])
    with pytest.raises(UserError, match="one has no losses on development text"):
        loss_of(tmp_path / "one", "last")


@pytest.mark.parametrize(
    ("rates", "chosen", "end"),
    [
        (["0.1", "3e-2", "0.01"], "3e-2", ""),
        (["0.1", "3e-2", "0.01"], "0.1", "largest"),
        (["0.1", "3e-2", "0.01"], "0.01", "smallest"),
        (["1e-3", "0.02"], "0.02", "largest"),
        (["0.1"], "0.1", ""),
    ],
)
def test_a_rate_at_the_end_of_those_tried_is_told(rates: list[str], chosen: str, end: str) -> None:
    assert Choice("bleu", dict.fromkeys(rates, 1.0), chosen).at_an_end == end
