"""Studies run: each step once, several at once, taken up where they were, and never mixed with other settings."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from langspec_lora.errors import SeveralErrors, UserError
from langspec_lora.study.run import Runner, Watcher, is_locked, lock
from langspec_lora.study.state import Study, refuse_outdated
from tests import ROOT
from tests.studies import Workshop, until

STEPS = 3 + 2 * (3 + 3 + 1 + 2) + 2


def test_a_study_runs_each_step_once_with_the_rate_that_was_best_on_development_text(workshop: Workshop) -> None:
    study = workshop.run()
    assert study.done == set(study.plan.steps)
    ran = workshop.ran()
    assert len(ran) == STEPS
    assert {name: choice.rate for name, choice in study.choices.items()} == {"full": "0.01", "lslo": "0.01"}
    for name, epoch in (("full", "last"), ("lslo", "best")):
        checkpoint = workshop.out / "train" / name / "lr0.01-seed2" / f"checkpoint_{epoch}.pt"
        assert checkpoint.read_text().startswith(f"{epoch} 0.01 2 ")
        assert any(f"--checkpoint {checkpoint} --out {workshop.out}/test/{name}/seed2" in line for line in ran)
    assert not (workshop.out / "train" / "full" / "lr0.1-seed2").exists()
    assert json.loads((workshop.out / "choices.json").read_text())["full"]["rate"] == "0.01"
    workshop.run()
    assert workshop.ran() == []


def test_the_score_that_a_recipe_chooses_by_decides(workshop: Workshop) -> None:
    # The same texts, by a score of which less is better.
    workshop.change("choose-by: bleu", "choose-by: chrf")
    study = workshop.run()
    scores = study.choices["full"].scores
    assert study.choices["full"].by == "chrf"
    assert scores["0.01"] == max(scores.values())


def test_an_interrupted_study_goes_on_where_it_was(workshop: Workshop) -> None:
    (workshop.folder / "break").write_text("train/lslo")
    with pytest.raises(SeveralErrors) as error:
        workshop.run()
    assert len(error.value.errors) == 3
    message = str(error.value.errors[0])
    assert "train-lslo-lr0.1-seed1 failed (exit code 1), and 6 steps that need it did not run" in message
    assert "logs/train-lslo-lr0.1-seed1.log" in message
    first = workshop.ran()
    assert any("/test/full/seed2" in line for line in first)  # what does not need the broken steps has run
    (workshop.folder / "break").unlink()
    study = workshop.run()
    assert study.done == set(study.plan.steps)
    second = workshop.ran()
    assert not {line for line in second if "train/lslo" not in line} & set(first)
    assert len({*first, *second}) == STEPS


def test_a_step_without_its_result_has_failed(workshop: Workshop) -> None:
    path = workshop.folder / "bin" / "langspec-lora"
    path.write_text(path.read_text().replace("shutil.copytree(", "(lambda *a, **k: 0)("))
    with pytest.raises(UserError, match=r"test-base failed \(it left no .*scores.json\)"):
        workshop.run()


def test_as_many_steps_run_at_once_as_there_are_places(workshop: Workshop) -> None:
    most = []

    class Count(Watcher):
        def began(self, runner, step) -> None:
            most.append(len(runner.running))
            assert len(runner.running) + len(runner.free) == 3

    workshop.run(places=3, watcher=Count())
    assert max(most) == 3
    workshop.out.rename(workshop.folder / "before")
    most.clear()
    study = workshop.study()
    study.write()
    Runner(study, ["0"], Count.__base__()).run()
    assert len(workshop.ran()) == 2 * STEPS


def test_each_place_has_its_gpus(workshop: Workshop) -> None:
    program = workshop.folder / "bin" / "fairseq-train"
    program.write_text(
        program.read_text().replace(
            "words = ",
            "import os; (here / 'gpus').open('a').write(os.environ['CUDA_VISIBLE_DEVICES'] + '\\n')\nwords = ",
        )
    )
    study = workshop.study()
    study.write()
    Runner(study, ["0,1", "2,3"], Watcher()).run()
    assert set((workshop.folder / "gpus").read_text().split()) == {"0,1", "2,3"}


@pytest.mark.parametrize(
    ("own", "base", "threads"),
    [(None, None, ["2", "2"]), (3, None, ["3", "3"]), (3, 5, ["3", "5"]), (None, 5, ["2", "5"])],
)
def test_threads_are_those_of_the_recipe_or_a_share_of_the_cores(workshop, own, base, threads, monkeypatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    if own:
        workshop.change("compare-with", f"threads: {own}\ncompare-with")
    if base:
        workshop.change("base:\n", f"base:\n  threads: {base}\n")
    for name in ("fairseq-train", "langspec-lora"):
        program = workshop.folder / "bin" / name
        note = "import os; (here / 'threads').open('a').write(os.environ['OMP_NUM_THREADS'] + '\\n')"
        program.write_text(program.read_text().replace("words = ", f"{note}\nwords = "))
    study = workshop.study()
    study.write()
    for name in ("data-toy", "base"):
        Runner(study, [None] * 4, Watcher()).run(name)
    assert (workshop.folder / "threads").read_text().split() == threads


@pytest.mark.parametrize(
    ("old", "new", "outdated", "rerun"),
    [
        # Where what a step gives is the same as before, what follows is not run again: here the scores are.
        ("--seed 3", "--seed 4", ["data/toy"], STEPS - 2),
        ("--task translation", "--task other", ["base"], 1 + 1 + 8),
        ("full: --all", "full: --none", [f"train/full/lr{rate}-seed1" for rate in ("0.1", "0.01", "0.001")], 4 + 3 + 2),
        ("--tokenize 13a", "--tokenize char", ["test/base"], 1 + 6 + 4),
        ("--samples 10", "--samples 20", ["report", "report-against-full"], 2),
    ],
)
def test_results_of_other_settings_are_refused_or_set_aside(workshop: Workshop, old, new, outdated, rerun) -> None:
    workshop.run()
    workshop.ran()
    before = {path: path.read_bytes() for path in workshop.out.rglob("*") if path.is_file()}
    workshop.change(old, new)
    study = workshop.study()
    found = [str(one.step.folder.relative_to(workshop.out)) for one in study.outdated.values()]
    assert set(outdated) <= set(found)
    with pytest.raises(UserError, match=f"{outdated[0]} was made from another command .*--set-aside"):
        refuse_outdated(study)
    assert {path: path.read_bytes() for path in workshop.out.rglob("*") if path.is_file()} == before
    study = workshop.run(sets_aside=True)
    assert study.done == set(study.plan.steps)
    assert len(workshop.ran()) == rerun
    old_files = {path.name for path in (workshop.out / "old").rglob("*")}
    assert {"record.json", "results"} <= old_files
    assert not workshop.study().outdated


def test_another_content_of_a_file_that_a_command_names_is_noticed(workshop: Workshop) -> None:
    (workshop.folder / "levels.yaml").write_text("high: [en]")
    workshop.change("full: --all", f"full: --lang-resources={workshop.folder}/levels.yaml")
    workshop.run()
    (workshop.folder / "levels.yaml").write_text("high: [nl]")
    study = workshop.study()
    assert {name for name in study.outdated if "full" in name} == set(study.outdated)
    with pytest.raises(UserError, match=r"train/full/lr0.1-seed1 was made from another content of .*levels.yaml"):
        refuse_outdated(study)


def test_data_of_another_content_is_noticed_while_the_study_runs(workshop: Workshop) -> None:
    workshop.run()
    for path in (workshop.out / "data" / "toy", workshop.out / "test" / "base"):
        subprocess.run(["rm", "-r", path], check=True)
    program = workshop.folder / "bin" / "langspec-lora"
    program.write_text(program.read_text().replace('" ".join(words))', '"other data")'))
    with pytest.raises(UserError, match=r"base was made from another content of .*data/toy"):
        workshop.run()
    assert (workshop.out / "base" / "checkpoint_last.pt").exists()


def test_data_made_again_with_the_same_content_changes_nothing(workshop: Workshop) -> None:
    workshop.run()
    workshop.ran()
    subprocess.run(["rm", "-r", workshop.out / "data" / "toy"], check=True)
    workshop.run()
    assert len(workshop.ran()) == 1


def test_a_training_that_was_begun_with_other_flags_is_not_continued(workshop: Workshop) -> None:
    program = workshop.folder / "bin" / "fairseq-train"
    text = program.read_text()
    program.write_text(text.replace('print("num.', "sys.exit(3) if '/train/full' in str(out) else print(\"num."))
    with pytest.raises(UserError):
        workshop.run()
    program.write_text(text)
    workshop.change("full: --all", "full: --none")
    with pytest.raises(UserError, match=r"train/full/lr0\.1-seed1 was made from another command"):
        refuse_outdated(workshop.study())


def test_another_rate_adds_its_trial_alone(workshop: Workshop) -> None:
    workshop.run()
    workshop.ran()
    workshop.change("full: --all", "full: {flags: --all, learning-rates: [0.1, 0.01, 0.001, 0.0100]}")
    with pytest.raises(UserError, match=r"names '0\.01' twice"):
        workshop.recipe()
    workshop.change("0.0100", "0.1001")
    (workshop.folder / "results" / "0.1").rename(workshop.folder / "results" / "0.1001")
    workshop.run()
    assert len(workshop.ran()) == 2  # a training and its development text; what was chosen stays


def test_another_variant_and_another_seed_run_alone(workshop: Workshop) -> None:
    workshop.run()
    workshop.ran()
    workshop.change("seeds: [1, 2]", "seeds: [1, 2, 3]")
    study = workshop.study(sets_aside=True)
    assert study.moved == []
    with pytest.raises(UserError, match="report was made from another command"):
        workshop.run()  # the reports are those of two seeds
    workshop.run(sets_aside=True)
    assert len(workshop.ran()) == 2 * 2 + 2


def test_only_one_run_uses_a_folder(workshop: Workshop) -> None:
    assert not is_locked(workshop.out)
    with lock(workshop.out):
        assert is_locked(workshop.out)
        other = subprocess.run(
            [
                sys.executable,
                "-c",
                "from pathlib import Path; from langspec_lora.study.run import lock\n"
                f"with lock(Path({str(workshop.out)!r})): pass",
            ],
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert "another run is using" in other.stderr
    assert not is_locked(workshop.out)


def test_jobs_of_single_steps_run_beside_each_other_but_not_the_same_twice(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from langspec_lora.study.run import lock\n"
        f"with lock(Path({str(tmp_path)!r}), sys.argv[1] or None): pass"
    )

    def free(step: str) -> bool:
        return subprocess.run([sys.executable, "-c", code, step], cwd=ROOT, capture_output=True).returncode == 0

    with lock(tmp_path, "train-a"):
        assert [free(name) for name in ("train-b", "train-a", "")] == [True, False, False]


def test_a_step_alone_needs_what_it_depends_on(workshop: Workshop) -> None:
    workshop.run(only="data-toy")
    assert len(workshop.ran()) == 1
    workshop.run(only="test-base")
    assert workshop.ran() == []
    workshop.run(only="base")
    workshop.run(only="test-base")
    assert len(workshop.ran()) == 2


def test_when_a_run_is_stopped_its_commands_end(workshop: Workshop) -> None:
    (workshop.folder / "hold").write_text("train/full/lr0.1-")

    class Stop(Watcher):
        def look(self, runner: Runner) -> None:
            if (workshop.folder / "held").exists():
                self.processes = [one.process for one in runner.running.values()]
                raise KeyboardInterrupt

    watcher = Stop()
    with pytest.raises(KeyboardInterrupt):
        workshop.run(watcher=watcher)
    assert all(process.poll() is not None for process in watcher.processes)
    (workshop.folder / "hold").unlink()
    study = workshop.run()
    assert study.done == set(study.plan.steps)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux ends the commands of a killed parent")
def test_when_a_run_is_killed_its_commands_end(workshop: Workshop) -> None:
    (workshop.folder / "hold").write_text("--save-dir")
    code = f"""
from pathlib import Path
from langspec_lora.study import run
from langspec_lora.study.recipe_file import read_recipe
from langspec_lora.study.state import Study
run.program = lambda name: {str(workshop.folder / "bin")!r} + "/" + name
study = Study(read_recipe(Path({str(workshop.path)!r}), {{}}, ("bleu",)), Path({str(workshop.out)!r}))
with run.lock(study.out):
    study.refresh(); study.write()
    run.Runner(study, [None], run.Watcher()).run()
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    try:
        until(lambda: (workshop.folder / "held").exists())
        assert is_locked(workshop.out)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    until(lambda: not is_locked(workshop.out))  # the training held it too, and has ended
    (workshop.folder / "hold").unlink()
    study = workshop.run()
    assert study.records.read(study.plan.steps["base"])["attempts"] == 2


def test_a_folder_of_something_else_is_refused(workshop: Workshop) -> None:
    workshop.run(only="data-toy")
    other = workshop.path.with_name("other.yaml")
    other.write_text(workshop.path.read_text())
    workshop.path = other
    with pytest.raises(UserError, match="holds the study of another recipe, 'recipe'; give another --out for 'other'"):
        workshop.study()
    workshop.out = workshop.folder / "mine"
    workshop.out.mkdir()
    (workshop.out / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="exists and holds no study"):
        workshop.study()
    with pytest.raises(UserError, match="which have a meaning in commands"):
        Study(workshop.recipe(), workshop.folder / "a,b")


def test_a_damaged_record_is_named(workshop: Workshop) -> None:
    study = workshop.run(only="data-toy")
    study.records.path(study.plan.steps["data-toy"]).write_text("{")
    with pytest.raises(UserError, match=r"data-toy\.json is damaged .*remove it to run the step again"):
        workshop.study()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="give a writable folder"), lock(tmp_path / "file" / "study"):
        pass


def test_how_long_a_step_took_and_its_memory_are_known(workshop: Workshop) -> None:
    began = time.monotonic()
    study = workshop.run(only="data-toy")
    record = study.records.read(study.plan.steps["data-toy"])
    assert 0 <= record["seconds"] <= time.monotonic() - began + 0.1
    assert 1e6 < record["memory"] < 1e9  # bytes of a Python that does nothing
    assert record["attempts"] == 1


def test_all_trainings_are_checked_once_the_data_is_there_and_before_the_first(workshop: Workshop) -> None:
    study = workshop.study()
    study.write()
    seen: list[list[str]] = []
    Runner(study, [None] * 2, Watcher(), lambda: seen.append(workshop.ran())).run()
    assert [[line.split()[1] for line in lines] for lines in seen] == [["make-example"]]


def test_a_mistake_that_is_found_then_ends_the_study(workshop: Workshop) -> None:
    def refuse() -> None:
        raise UserError("variant full: --x is wrong")

    study = workshop.study()
    study.write()
    with pytest.raises(UserError, match="--x is wrong"):
        Runner(study, [None], Watcher(), refuse).run()
    assert len(workshop.ran()) == 1
