"""Jobs for Slurm, run by an ``sbatch`` that does what it is told at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from langspec_lora.study import slurm
from langspec_lora.study.slurm import write_jobs
from tests.studies import Workshop

SBATCH = """#!/usr/bin/env bash
# Runs the job's script at once, after a look at what it waits for; prints a number as sbatch --parsable does.
set -euo pipefail
here=$(dirname "$0")
number=$(( $(cat "$here/number" 2>/dev/null || echo 100) + 1 ))
echo $number > "$here/number"
for word in "$@"; do
    case $word in --dependency=afterok:*)
        for other in $(tr ':' ' ' <<<"${word#--dependency=afterok:}"); do [ -f "$here/done-$other" ] || exit 9; done;;
    esac
done
script=${!#}
bash "$script" >/dev/null 2>&1 && touch "$here/done-$number"
echo "$number;cluster"
"""
STUDY = """#!{python}
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from langspec_lora.study import run
from langspec_lora.study.recipe_file import read_recipe
from langspec_lora.study.state import Study
run.program = lambda name: {bin!r} + "/" + name
recipe, out, name = sys.argv[2], sys.argv[4], sys.argv[-1]
with run.lock(Path(out), name):
    study = Study(read_recipe(Path(recipe), {{}}, ("bleu",)), Path(out))
    study.refresh()
    missing = [need for need in study.plan.steps[name].needs if need not in study.done]
    assert not missing, missing
    run.Runner(study, [None], run.Watcher()).run(name)
"""


@pytest.fixture
def cluster(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the search path with an ``sbatch`` and a ``langspec-lora`` that runs single steps."""
    folder = workshop.folder / "cluster"
    folder.mkdir()
    root = str(Path(__file__).resolve().parents[3])
    text = STUDY.format(python=sys.executable, root=root, bin=str(workshop.folder / "bin"))
    for name, content in (("sbatch", SBATCH), ("langspec-lora", text)):
        (folder / name).write_text(content)
        (folder / name).chmod(0o755)
    monkeypatch.setattr(slurm, "program", lambda name: str(folder / name))
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_the_submitted_jobs_make_the_study(workshop: Workshop, cluster: Path) -> None:
    workshop.change("seeds: [1, 2]", "seeds: [1]")
    workshop.change("learning-rates: [0.1, 0.01, 0.001]", "learning-rates: [0.1, 0.01]")
    workshop.change("  lslo: {flags: --own, epoch: best}\n", "")
    study = workshop.study()
    study.write()
    command = ["study", str(workshop.path), "--out", str(workshop.out)]
    submit, count = write_jobs(study, command, "--gres=gpu:1 -p big", "--time 10")
    assert count == len(study.plan.steps)
    done = subprocess.run(["bash", submit], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{count} jobs submitted\n"
    study = workshop.study()
    assert study.done == set(study.plan.steps)
    assert study.choices["full"].rate == "0.01"
    assert len(workshop.ran()) == count
    assert write_jobs(study, command, "", "")[1] == 0


def test_jobs_have_their_flags_and_wait_for_those_that_they_need(workshop: Workshop) -> None:
    study = workshop.study()
    submit, _ = write_jobs(study, ["study", "a b.yaml"], "--gres=gpu:1 -p big --time 10:00", "--cpus-per-task=2")
    job = (submit.parent / "train-full-seed2.sh").read_text().splitlines()
    assert [line for line in job if line.startswith("#SBATCH")][2:] == [
        *("#SBATCH --gres=gpu:1", "#SBATCH -pbig", "#SBATCH --time=10:00"),
    ]
    assert job[-1].endswith("langspec-lora study 'a b.yaml' --step train-full-seed2")
    light = (submit.parent / "report.sh").read_text()
    assert "#SBATCH --cpus-per-task=2" in light
    assert "gres" not in light
    lines = {
        line.split("]=")[0].removeprefix("job["): line
        for line in submit.read_text().splitlines()
        if "sbatch --" in line
    }
    assert "--dependency" not in lines["data-toy"]
    needs = ":".join(f"${{job[development-full-lr{rate}]}}" for rate in ("0.1", "0.01", "0.001"))
    assert f'afterok:${{job[data-toy]}}:${{job[base]}}:{needs}"' in lines["train-full-seed2"]
    assert list(lines) == list(study.plan.steps)
