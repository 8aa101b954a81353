"""The summary of a study: figures from its logs, scores and reports."""

from __future__ import annotations

import json
import shutil
from statistics import fmean

import pytest

from langspec_lora.study.summary import PAGE, notes, seconds_of_an_update, summary, write
from tests.studies import Workshop


def test_the_figures_are_those_of_logs_and_scores(workshop: Workshop) -> None:
    study = workshop.run()
    base, full, lslo = summary(study, "bleu")
    scores = {
        rate: json.loads((workshop.folder / "results" / rate / "scores.json").read_text())["directions"]
        for rate in ("base", "0.01")
    }
    assert base["mean"] == pytest.approx(fmean(entry["bleu"] for entry in scores["base"].values()))
    assert full["scores"] == pytest.approx(
        dict.fromkeys((1, 2), fmean(entry["bleu"] for entry in scores["0.01"].values()))
    )
    assert (full["rate"], full["parameters"], full["trained"]) == ("0.01", 1100, 100)  # as the program logs them
    assert full["update"] == 0.25  # a fourth of a second: ups 4
    assert full["seconds"] >= 0
    assert lslo["bytes"] == (workshop.out / "train/lslo/lr0.01-seed1/checkpoint_best.pt").stat().st_size
    assert lslo["rates"].keys() == {"0.1", "0.01", "0.001"}


@pytest.mark.parametrize(
    ("epochs", "seconds"),
    [
        ([(4.0, 40, 10), (5.0, 80, 8), (2.0, 90, 5)], 0.25),
        ([(0.06, 5, 81), (0.06, 10, 79)], 16.0),  # 81 / 5 and 79 / 5; ups alone would say 16.7
        ([], None),
    ],
)
def test_the_time_of_an_update_is_exact_where_fairseq_rounds(epochs, seconds) -> None:
    lines = [
        f"2026 | INFO | train | epoch 00{number} | loss 3 | nll_loss 2 | ppl 4 | wps 900 | ups {ups:g} | wpb 9 | "
        f"bsz 9 | num_updates {updates} | lr 0.1 | gnorm 1 | train_wall {wall} | wall 99"
        for number, (ups, updates, wall) in enumerate(epochs, start=1)
    ]
    assert seconds_of_an_update("\n".join(lines)) == (seconds if seconds is None else pytest.approx(seconds))


def test_a_training_that_was_interrupted_has_no_time(workshop: Workshop) -> None:
    study = workshop.run()
    step = study.plan.steps["train-full-lr0.01-seed1"]
    record = study.records.read(step)
    study.records.path(step).write_text(json.dumps({**record, "attempts": 2}))
    assert summary(study, "bleu")[1]["seconds"] is None


def test_the_page_holds_table_and_commands(workshop: Workshop) -> None:
    study = workshop.run()
    text = write(study, "bleu")
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    assert lines[0][:5] == ["", "trained", "share", "rate", "bleu"]
    full = dict(zip(lines[0], lines[3], strict=True))
    assert full["trained"] == "100"
    assert full["share"] == "10.00%"  # 100 of the 1,000 that do not train
    assert full["against base"] == "+1.50 (+0.50, +2.50)"  # from the report's table
    assert full["s/update"] == "0.250"
    page = (workshop.out / PAGE).read_text()
    assert "[report-against-full/report.html](report-against-full/report.html)" in page
    assert "--save-dir" in page
    assert f"{workshop.out}/train/lslo/lr0.01-seed1" in page
    assert json.loads((workshop.out / "results.json").read_text())["rows"][0]["name"] == "base"


@pytest.mark.parametrize(
    ("old", "new", "remark"),
    [
        (
            "[0.1, 0.01, 0.001]",
            "[0.1, 0.01]",
            "the best learning rate of full (0.01), lslo (0.01) is the smallest or largest",
        ),
        ("seeds: [1, 2]", "seeds: [1]", "one seed"),
        ("lslo: {flags: --own, epoch: best}", "lslo: {flags: --own, learning-rates: 0.01}", "(full 3, lslo 1)"),
    ],
)
def test_what_weakens_the_comparison_is_said(workshop: Workshop, old: str, new: str, remark: str) -> None:
    study = workshop.run()
    assert notes(study, summary(study, "bleu")) == []
    workshop.change(old, new)
    study = workshop.run(sets_aside=True)
    assert remark in "\n".join(notes(study, summary(study, "bleu")))


def test_rates_that_are_equally_good_are_told(workshop: Workshop) -> None:
    shutil.rmtree(workshop.folder / "results" / "0.1")
    shutil.copytree(workshop.folder / "results" / "0.01", workshop.folder / "results" / "0.1")
    study = workshop.run()
    assert study.choices["full"].rate == "0.1"  # the first of the recipe
    remark = "several learning rates of full, lslo were equally good, so that the first of them was taken"
    assert remark in notes(study, summary(study, "bleu"))


def test_steps_of_different_versions_are_told(workshop: Workshop) -> None:
    study = workshop.run()
    step = study.plan.steps["base"]
    record = study.records.read(step)
    study.records.path(step).write_text(json.dumps({**record, "versions": {"langspec_lora": "0.0", "torch": "1"}}))
    assert "steps ran with different versions" in "\n".join(notes(study, summary(study, "bleu")))


def test_models_are_found_under_names_that_do_not_depend_on_what_was_chosen(workshop: Workshop) -> None:
    study = workshop.run()
    models = {
        path.name: path.resolve().relative_to(workshop.out.resolve()) for path in (workshop.out / "models").iterdir()
    }
    assert set(models) == {"base.pt", *(f"{name}-seed{seed}.pt" for name in ("full", "lslo") for seed in (1, 2))}
    assert str(models["lslo-seed2.pt"]) == "train/lslo/lr0.01-seed2/checkpoint_best.pt"
    workshop.out.rename(workshop.folder / "moved")  # links are relative
    assert (workshop.folder / "moved" / "models" / "full-seed1.pt").exists()
    assert study.choices["full"].rate == "0.01"
