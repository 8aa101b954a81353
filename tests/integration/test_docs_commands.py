"""The commands in README and manual run as they are written, on a small copy of what the quickstart leaves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fairseq_cli import train

from langspec_lora.example.build import make_example
from langspec_lora.example.corpus import Sizes
from langspec_lora.example.small_training import finetune_flags, pretrain_flags
from tests import ROOT
from tests.documentation import PAGES, blocks
from tests.evaluations import run_stock
from tests.optional import hugging_face

SMALL = Sizes(pretrain={"high-high": 20}, finetune=40, valid=2, test=2, vocabulary=200)
LANGUAGES = {"du", "le", "po"}
PAIRS = "du-le,le-du"  # of the four languages that the example's base is trained on


@pytest.fixture(scope="module")
def after_quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``quickstart/``, as small as it can be, and ``checkpoints/`` with three epochs of a training."""
    home = tmp_path_factory.mktemp("docs")
    quickstart = home / "quickstart"
    example = quickstart / "data" / "example"
    make_example(example, SMALL)
    base = quickstart / "base" / "checkpoint_last.pt"
    _train(pretrain_flags(example / "pretrain", base.parent), "--max-epoch", "1")
    for path in (example / "finetune").glob("test.*"):
        if not LANGUAGES.issuperset(path.name.split(".")[1].split("-")):
            path.unlink()  # 132 directions would take minutes
    trained = home / "checkpoints"
    _train(finetune_flags(example / "finetune", base, trained, pruning=True), "--max-epoch", "15")
    (quickstart / "models").mkdir()
    shutil.copy(base, quickstart / "models" / "base.pt")
    for name in ("lslo-seed1.pt", "lslo-pruned-seed1.pt"):
        shutil.copy(trained / "checkpoint_last.pt", quickstart / "models" / name)
    return home


def _train(flags: list[str], *changes: str) -> None:
    """Runs a training on the example with few directions and little text, and keeps its epochs."""
    flags = [flag for flag in flags if flag not in ("--no-epoch-checkpoints", "--user-dir", "langspec_lora")]
    little = ("--lang-pairs", PAIRS, "--virtual-data-size", "60", "--keep-last-epochs", "3")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        run_stock(patch, train, *flags, *little, *changes)


@pytest.fixture
def home(after_quickstart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which a page's commands run."""
    for path in (*after_quickstart.iterdir(), ROOT / "configs", ROOT / "langspec_lora", ROOT / "scripts"):
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "bash")], ids=lambda path: path.name)
def test_the_commands_of_a_page_run(page: Path, home: Path) -> None:
    commands = [found for found in blocks(page, "bash") if not found.reason]
    if not commands:
        pytest.skip("none of its commands can run here")
    if page.name == "huggingface.md":
        hugging_face("transformers")
        hugging_face("peft")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "HOME": str(home),
    }
    script = "set -euo pipefail\n" + "".join(
        f"echo '== {page.name}:{found.line}' >&2\n{found.text}" for found in commands
    )
    done = subprocess.run(
        ["bash", "-c", script], cwd=home, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda path: path.name)
def test_the_python_of_a_page_runs(page: Path, home: Path) -> None:
    for found in blocks(page, "python"):
        if not found.reason:
            exec(compile(found.text, f"{page.name}:{found.line}", "exec"), {})
