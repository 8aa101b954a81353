"""``scripts/gpu_check.sh``: its table, its exit codes, and that its checks can fail."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch

from tests import ROOT, toy

FOLDER = ROOT / "scripts" / "gpu_check"


@pytest.fixture
def main(monkeypatch) -> Iterator[ModuleType]:
    """The script as a module; it changes the working folder."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.chdir(ROOT)
    spec = importlib.util.spec_from_file_location("gpu_check_main", FOLDER / "__main__.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_check_main", module)  # where dataclasses look their fields up
    spec.loader.exec_module(module)
    yield module
    for name in ("checks", "machine", "checkpoints"):
        del sys.modules[name]


def test_without_a_gpu_it_says_so_and_leaves_with_a_code_of_its_own(main, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main.main([str(tmp_path / "out")]) == 77
    assert capsys.readouterr().err == "gpu_check.sh: no GPU: torch finds none; nothing was checked\n"
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_refused(main, tmp_path, capsys) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(SystemExit) as left:
        main.main([str(tmp_path), "--device", "cpu"])
    assert "is not an empty folder; give a new one" in str(left.value)


def failing(machine) -> tuple[bool, str, str]:
    raise RuntimeError("it broke\nlong story")


def test_a_check_that_fails_does_not_stop_the_others(main, tmp_path, monkeypatch, capsys) -> None:
    def skipping(machine) -> tuple[bool, str, str]:
        raise main.Skipped("no apex")

    checks = {
        "example": lambda machine: (True, "made", ""),
        "breaks": failing,
        "skips": skipping,
        "wrong": lambda machine: (False, "3", "≤ 2"),
        "right": lambda machine: (True, "1", "≤ 2"),
    }
    monkeypatch.setattr(main, "CHECKS", checks)
    assert main.main([str(tmp_path / "out"), "--device", "cpu"]) == 1
    written = json.loads((tmp_path / "out" / "gpu-check.json").read_text())
    assert [(one["check"], one["status"], one["figure"]) for one in written["results"]] == [
        ("example", "passed", "made"),
        ("breaks", "failed", "RuntimeError: it broke"),
        ("skips", "skipped", "no apex"),
        ("wrong", "failed", "3"),
        ("right", "passed", "1"),
    ]
    assert written["facts"]["torch"] == torch.__version__
    table = (tmp_path / "out" / "gpu-check.md").read_text()
    assert table in capsys.readouterr().out
    assert main.main([str(tmp_path / "few"), "--device", "cpu", "--only", "right", "skips"]) == 0
    late = main.check("right", main.Machine(tmp_path, False, time.monotonic()))
    assert (late.status, late.figure) == ("skipped", "no time was left; give more --minutes, or fewer checks as --only")


@pytest.mark.parametrize(("cuda", "precision", "own"), [(True, "amp", "--amp"), (True, "fp16", "--fp16")])
def test_the_published_command_is_what_trains_on_the_gpu(main, tmp_path, monkeypatch, cuda, precision, own) -> None:
    given = []
    monkeypatch.setattr(main.Machine, "fairseq", lambda self, name, program, flags, *watch: given.extend(flags))
    main.Machine(tmp_path, cuda, 0).train("x", precision)
    assert own in given
    assert "--cpu" not in given
    assert given[given.index("--pruning") + 1] == "True"
    assert given[given.index("--update-freq") + 1] == "1"
    given.clear()
    main.Machine(tmp_path, cuda, 0).train("cpu", "cpu")
    assert "--cpu" in given
    assert not {"--amp", "--fp16"} & set(given)


def test_wrong_masks_and_different_checkpoints_are_noticed(main, toy_data, tmp_path) -> None:
    checkpoints = importlib.import_module("checkpoints")
    _, model = toy.build(toy.plugin_flags(toy_data))
    toy.randomise_adapters(model)
    linear = next(iter(model.adapters.linears.values()))
    with torch.no_grad():
        linear.lora_mask[:2, :3] = 0  # six entries of the first language, one of which is not zero
        linear.lora_B[:2, :3] = 0
        linear.lora_B[1, 1] = 0.5
    state = {"model": model.state_dict(), "last_optimizer_state": {"state": {0: {"exp_avg": torch.ones(2)}}}}
    torch.save(state, tmp_path / "one.pt")
    found = list(checkpoints.pruned_entries(tmp_path / "one.pt"))
    assert [(pruned, wrong) for pruned, _, wrong in found] == [(6, 1), (0, 0), (0, 0), (0, 0), (0, 0)]
    assert found[0][1] == 2 * sum(linear.lora_B.size(1) for linear in model.adapters.linears.values())
    assert checkpoints.different_entries(tmp_path / "one.pt", tmp_path / "one.pt") == []
    state["last_optimizer_state"]["state"][0]["exp_avg"][1] += 1e-6
    torch.save(state, tmp_path / "two.pt")
    assert checkpoints.different_entries(tmp_path / "one.pt", tmp_path / "two.pt") == ["optimizer 0 exp_avg"]


@pytest.mark.slow
@pytest.mark.skipif(not toy.GLOO_SENDS_BOOLS, reason="gloo of torch 2.0 cannot send truth values")
def test_a_run_reports_the_loss_of_each_update_behind_torchs_wrapper_too(toy_data, tmp_path) -> None:
    flags = toy.plugin_flags(
        toy_data,
        *(
            "--user-dir",
            str(ROOT / "langspec_lora"),
            "--optimizer",
            "adam",
            "--lr",
            "0.01",
            "--max-update",
            "2",
            "--cpu",
        ),
        *("--no-save", "--disable-validation", "--log-interval", "1", "--log-format", "json"),
        *("--ddp-backend", "pytorch_ddp", "--distributed-backend", "gloo"),
    )
    run = [sys.executable, FOLDER / "run.py", "train", tmp_path / "report.json", "--wrapped", "--repeatable"]
    done = subprocess.run([*run, "--", *flags], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads((tmp_path / "report.json").read_text())
    logged = [
        json.loads(line.split("| train_inner | ")[1]) for line in done.stderr.splitlines() if "train_inner" in line
    ]
    assert len(logged) == len(report["norms"]) == 2
    bits = [loss / 0.6931471805599453 for loss in report["losses"]]
    assert [float(line["loss"]) for line in logged] == pytest.approx(bits, abs=1e-3)
