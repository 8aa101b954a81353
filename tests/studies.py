"""Studies whose commands are replaced by a small program, so that what surrounds the commands is tested in seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from langspec_lora.study import run
from langspec_lora.study.recipe import Recipe
from langspec_lora.study.recipe_file import read_recipe
from langspec_lora.study.run import Runner, Watcher
from langspec_lora.study.state import Study
from tests.reports import invented_texts, noisy, write_results

RECIPE = """
data:
  toy: make-example --seed 3
base:
  train: "{toy} --task translation --max-epoch 2"
train: "{toy} --max-epoch {epochs}"
variables:
  epochs: 4
seeds: [1, 2]
learning-rates: [0.1, 0.01, 0.001]
choose-by: bleu
variants:
  full: --all
  lslo: {flags: --own, epoch: best}
evaluate: "{toy} --tokenize 13a"
report: --samples 10
compare-with: [base, full]
"""

_PROGRAM = """#!{python} -IS
import pathlib, shutil, sys, time
here = pathlib.Path({here!r})
words = [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]
with (here / "ran").open("a") as file:
    file.write(" ".join(words) + "\\n")
def value(flag):
    return words[words.index(flag) + 1] if flag in words else ""
out = pathlib.Path(value("--out") or value("--save-dir") or words[-1])
out.mkdir(parents=True, exist_ok=True)
(here / "break").exists() and (here / "break").read_text() in " ".join(words) and sys.exit("broken on purpose")
while (here / "hold").exists() and (here / "hold").read_text() in " ".join(words):
    (here / "held").touch()
    time.sleep(0.02)
if words[0] == "fairseq-train":
    print("num. shared model params: 1,100 (num. trained: 100)")
    for epoch in (1, 2):
        print(f"train_inner | epoch 00{{epoch}}:      2 / 4 loss={{5 - epoch}}.5, nll_loss=9")
    print("train | epoch 002 | loss 3 | ups 4 | bsz 9 | num_updates 8 | lr 1 | train_wall 2 | wall 3")
    for name in ("last", "best"):
        (out / f"checkpoint_{{name}}.pt").write_text(" ".join([name, value("--lr"), value("--seed"), *words]))
elif words[1] == "evaluate":
    print("7/9 [")
    rate = "base" if "/base/" in value("--checkpoint") else value("--checkpoint").split("lr")[-1].split("-seed")[0]
    shutil.copytree(here / "results" / rate, out, dirs_exist_ok=True)
elif words[1] == "report":
    (out / "report.html").write_text("page")
    (out / "report.csv").write_text("group,full − base,full − base: low,full − base: high\\nall,1.5,0.5,2.5\\n")
else:
    (out / "text").write_text(" ".join(words))
"""


class Workshop:
    """A folder with a recipe, the programs that stand in for fairseq's and ours, and a study.

    Args:
        folder: where.
        patch: replaces the programs.
        quality: the share of right words of each learning rate, and of the base.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, quality: Mapping[str, float]) -> None:
        self.folder, self.out, self.path = folder, folder / "study", folder / "recipe.yaml"
        (folder / "bin").mkdir()
        for name in ("fairseq-train", "langspec-lora"):
            (folder / "bin" / name).write_text(_PROGRAM.format(python=sys.executable, here=str(folder)))
            (folder / "bin" / name).chmod(0o755)
        texts = invented_texts(["en", "nl", "wo"], 8)
        for rate, share in quality.items():
            write_results(folder / "results" / rate, texts, noisy(texts, share, 1))
        patch.setattr(run, "_PAUSE", 0.01)
        patch.setattr(run, "program", lambda name: str(folder / "bin" / name))
        self.path.write_text(RECIPE)

    def recipe(self, **given: str) -> Recipe:
        return read_recipe(self.path, given, ("bleu", "chrf"))

    def change(self, old: str, new: str) -> None:
        text = self.path.read_text()
        assert old in text
        self.path.write_text(text.replace(old, new))

    def study(self, sets_aside: bool = False) -> Study:
        study = Study(self.recipe(), self.out, sets_aside)
        study.refresh()
        return study

    def run(
        self, places: int = 2, only: str | None = None, sets_aside: bool = False, watcher: Watcher | None = None
    ) -> Study:
        study = self.study(sets_aside)
        study.write()
        Runner(study, [None] * places, watcher or Watcher()).run(only)
        return study

    def ran(self) -> list[str]:
        """What has run, and is forgotten: the command lines."""
        path = self.folder / "ran"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Waits for something that another process does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
