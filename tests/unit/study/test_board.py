"""The table of progress, and what a run prints."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from langspec_lora.study.board import Board, ScreenWatcher, progress
from langspec_lora.study.run import Runner, Watcher
from langspec_lora.study.steps import Step
from tests.studies import Workshop


def step(kind: str, *command: str) -> Step:
    return Step("x", kind, command, "x", "x")


@pytest.mark.parametrize(
    ("kind", "output", "text"),
    [
        ("train", "", "starting"),
        (
            "train",
            "… | INFO | train_inner | epoch 003:     20 / 38 loss=2.314, nll_loss=1.8, ppl=3",
            "epoch 3/15, loss 2.31",
        ),
        ("train", '{"epoch": 12, "update": 11.2, "loss": "3.5", "nll_loss": "2"}', "epoch 12/15, loss 3.50"),
        ("test", "sentences: 42%|# | 55/132 [00:01<00:02, 3direction/s]", "55/132 sentences"),
        ("test", "loading", "running"),
    ],
)
def test_progress_is_read_from_the_end_of_the_output(kind: str, output: str, text: str) -> None:
    assert progress(step(kind, "p", "--max-epoch", "15"), output) == text


def test_without_a_number_of_epochs_the_epoch_alone_is_shown() -> None:
    assert progress(step("base", "p"), "train_inner | epoch 003: 2 / 4 loss=2") == "epoch 3, loss 2.00"


def rows(workshop: Workshop, **state: list[str]) -> dict[str, list[str]]:
    """The rows by their first two cells; a variant's name is in its first row only."""
    found, name = {}, ""
    for row in Board(workshop.study(), "bleu").rows(**state):
        name = row[0] or name
        found[f"{name} {row[1]}".strip()] = row[2:]
    return found


def test_before_anything_has_run_all_waits(workshop: Workshop) -> None:
    table = rows(workshop)
    assert list(table) == [
        "data toy",
        "base",
        *(f"{n} {r}" for n in ("full", "lslo") for r in ("0.1", "0.01", "0.001")),
        "report",
        "report against full",
    ]
    assert table["full 0.1"] == ["waiting", "waiting"]
    assert table["base"] == ["waiting", ""]


def test_what_runs_failed_and_has_run(workshop: Workshop) -> None:
    (workshop.folder / "break").write_text("train/lslo/lr0.1-")
    seen: list[dict[str, list[str]]] = []

    class Look(Watcher):
        def look(self, runner: Runner) -> None:
            seen.append(
                {row[0] or row[1]: row[2:] for row in Board(runner.study, "bleu").rows(runner.running, runner.failed)}
            )

    with pytest.raises(Exception, match="failed"):
        workshop.run(watcher=Look())
    assert any("epoch 2" in cell or "starting" in cell for row in seen for cells in row.values() for cell in cells)
    assert seen[-1]["lslo"][0] == "failed"
    table = rows(workshop)
    assert table["lslo 0.1"] == ["stopped", "waiting"]
    study = workshop.study()
    best = study.choices["full"].scores["0.01"]
    assert table["full 0.01 ✓"] == [f"development {best:.2f}, {best:.2f}", f"{best:.2f}"]
    assert table["full 0.1"][1] == "-"  # not chosen: no other seed trains with it
    assert table["full 0.1"][0] == f"development {study.choices['full'].scores['0.1']:.2f}"
    assert table["report"] == ["waiting", ""]


def test_results_of_other_settings_are_shown_as_such(workshop: Workshop) -> None:
    workshop.run(only="data-toy")
    workshop.change("--seed 3", "--seed 5")
    assert rows(workshop)["data toy"] == ["outdated", ""]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_has_a_table_and_a_log_a_line_for_each_step(workshop: Workshop, terminal: bool, capsys) -> None:
    (workshop.folder / "break").write_text("train/lslo/lr0.1-")
    study = workshop.study()
    study.write()
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=120, markup=False)
    with ScreenWatcher(Board(study, "bleu"), console) as watcher, pytest.raises(Exception, match="failed"):
        Runner(study, [None], watcher).run()
    printed = capsys.readouterr().out
    if terminal:
        assert "learning rate" in text.getvalue()
        assert "broken on purpose" in text.getvalue()
    else:
        assert "base: done in " in printed
        assert "    fairseq-train " in printed
        assert "train-lslo-lr0.1-seed1 failed:\n    | broken on purpose" in printed
        assert f"test-full-seed2: done in 0 s ({study.choices['full'].scores['0.01']:.2f})" in printed
