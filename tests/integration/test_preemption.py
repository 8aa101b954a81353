"""A training that a signal stops, at any moment, is continued by the same command as if nothing had happened."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.tasks import FairseqTask
from fairseq_cli import train as fairseq_train

from tests import ROOT, toy
from tests.toy import needs_processes_on_cpu
from tests.trainings import ONE_THREAD, TRAINING, run, train_here

sys.path.insert(0, str(ROOT / "scripts"))
from kills_compare import differences, state, unequal

FLAGS = (
    *("--max-tokens", "2400", "--max-tokens-valid", "900", "--max-epoch", "2", "--no-epoch-checkpoints"),
    *("--save-interval-updates", "3", "--validate-interval-updates", "2"),
)
"""Two epochs of four updates of two batches; each validation has three."""


@pytest.fixture(scope="module")
def whole(toy_data, tmp_path_factory) -> Path:
    """The folder of an undisturbed training."""
    folder = tmp_path_factory.mktemp("whole")
    train_here(toy_data, folder, *FLAGS)
    return folder


def at_call(cls: type, name: str, count: int, number: int) -> Callable[[pytest.MonkeyPatch], None]:
    """Sends a signal to this process at a certain call of a function of fairseq's."""

    def install(patch: pytest.MonkeyPatch) -> None:
        stock, calls = getattr(cls, name), [0]

        def counted(*args, **kwargs):
            calls[0] += 1
            if calls[0] == count:
                os.kill(os.getpid(), number)
            return stock(*args, **kwargs)

        patch.setattr(cls, name, counted)

    return install


def ending_of(data: Path, save: Path, *more: str) -> int | str | None:
    """How a training ends that does not come to its end: exit code or message."""
    with pytest.raises(SystemExit) as end:
        train_here(data, save, *FLAGS, *more)
    return end.value.code


TERM, USR1 = signal.SIGTERM, signal.SIGUSR1
MOMENTS = {
    "within an epoch": (at_call(FairseqTask, "train_step", 10, USR1), 138, "epoch 2 @ 5 updates"),
    "within a validation": (at_call(FairseqTask, "valid_step", 5, TERM), 143, "epoch 1 @ 3 updates"),
    "last update of an epoch": (at_call(FairseqTask, "train_step", 8, USR1), 138, "epoch 1 @ 4 updates"),
    "last validation": (at_call(FairseqTask, "valid_step", 14, TERM), 143, "epoch 2 @ 8 updates"),
    "while saving at the end of an epoch": (at_call(checkpoint_utils, "torch_persistent_save", 2, TERM), 143,
                                            "epoch 2 @ 5 updates"),
}  # fmt: skip


@pytest.mark.parametrize("moment", MOMENTS)
def test_stopped_training_goes_on_as_if_it_had_not_been(whole, toy_data, tmp_path, caplog, moment) -> None:
    install, code, place = MOMENTS[moment]
    with pytest.MonkeyPatch.context() as patch:
        install(patch)
        assert ending_of(toy_data, tmp_path) == code
    name = "SIGTERM" if code == 143 else "SIGUSR1"
    saved = f"saved {tmp_path}/checkpoint_last.pt ({place})"
    assert f"{name} received: {saved}; run the same command to continue" in caplog.messages
    train_here(toy_data, tmp_path, *FLAGS)
    assert differences(whole, tmp_path) == []


def test_losses_since_the_last_logged_update_are_kept_at_the_end_of_an_epoch(whole, toy_data, tmp_path) -> None:
    for epoch in ("1", "2"):
        train_here(toy_data, tmp_path, *FLAGS, "--max-epoch", epoch)
    resumed, undisturbed = (state(folder / "checkpoint_last.pt") for folder in (tmp_path, whole))
    assert len(undisturbed["losses"]) == 4
    assert unequal(resumed, undisturbed, "") == []


def test_patience_goes_on_counting_where_it_was(toy_data, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(fairseq_train, "validate", lambda *args: [7.0])  # which never improves
    flags = (*FLAGS[:4], "--patience", "3", "--no-epoch-checkpoints")
    train_here(toy_data, tmp_path / "whole", *flags, "--max-epoch", "9")
    for epoch in (1, 2, 9):
        train_here(toy_data, tmp_path / "resumed", *flags, "--max-epoch", epoch)
    train_here(toy_data, tmp_path / "anew", *flags, "--max-epoch", "9", "--reset-meters", "--restore-file",
               tmp_path / "resumed" / "checkpoint_last.pt")  # fmt: skip
    train_here(toy_data, tmp_path / "from it", *flags, "--max-epoch", "9", "--finetune-from-model",
               tmp_path / "resumed" / "checkpoint_last.pt")  # fmt: skip
    epochs = {
        path.parent.name: torch.load(path, weights_only=False)["extra_state"]["train_iterator"]["epoch"] - 1
        for path in tmp_path.glob("*/checkpoint_last.pt")
    }
    assert epochs == {"whole": 4, "resumed": 4, "anew": 8, "from it": 4}


def test_nothing_is_saved_where_nothing_should_be(toy_data, tmp_path, caplog) -> None:
    with pytest.MonkeyPatch.context() as patch:
        at_call(FairseqTask, "train_step", 1, TERM)(patch)
        assert ending_of(toy_data, tmp_path, "--no-save") == 143
    assert "SIGTERM received: the training has ended and nothing was saved, because --no-save was given" in caplog.text
    assert not list(tmp_path.rglob("*.pt"))


def test_full_disk_ends_the_stop_in_a_sentence_and_leaves_the_last_checkpoint(whole, toy_data, tmp_path) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    before = (tmp_path / "checkpoint_last.pt").read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        at_call(FairseqTask, "train_step", 1, TERM)(patch)
        patch.setattr(checkpoint_utils, "torch_persistent_save", full)
        message = ending_of(toy_data, tmp_path, "--max-epoch", "3")
    assert f"{tmp_path}/checkpoint_last.pt cannot be written: No space left on device" in str(message)
    assert (tmp_path / "checkpoint_last.pt").read_bytes() == before


def test_five_kills_at_random_moments_lose_nothing(tmp_path) -> None:
    """A campaign of fifty is run by hand: the script's default."""
    out = tmp_path / "figures.json"
    script = (sys.executable, str(ROOT / "scripts" / "kills.py"), "train", str(tmp_path / "work"))
    run(*script, "--kills", "5", "--seed", "4", "--epochs", "2", "--json", str(out), cwd=ROOT)
    figures = json.loads(out.read_text())
    assert sum(figures["kills"].values()) == 5
    assert figures["losses"] == []


STAND_INS = """
srun() { exec "$@"; }
scontrol() { echo "scontrol $*"; }
scancel() {  # as Slurm, to processes however deep; but of the training only to one of two
    echo "scancel $*"
    for process in $(pgrep --parent $step) $step; do
        if ! tr '\\0' '\\n' < /proc/$process/environ | grep -qx RANK=0; then
            kill -USR1 $process $(pgrep --parent $process | grep -vx "$(pgrep --parent $step)")
        fi
    done
}
"""


@needs_processes_on_cpu
def test_job_script_stops_both_processes_after_the_same_update_and_queues_the_job_again(toy_data, tmp_path) -> None:
    """The signal reaches torchrun, one process of the training, and the process that loads its data."""
    page = (ROOT / "docs" / "several-gpus.md").read_text(encoding="utf-8")
    (script,) = [block for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) if "--signal=B:USR1" in block]
    flags = toy.plugin_flags(toy_data, *TRAINING, "--save-dir", str(tmp_path / "save"), *FLAGS, "--max-epoch", "90")
    flags += ["--distributed-backend", "gloo", "--ddp-backend", "no_c10d", "--num-workers", "1", "--log-interval", "1"]
    for was, now in {
        "source .venv/bin/activate\n": STAND_INS,
        "--nproc_per_node 8": "--nproc_per_node 2",
        "$DATA_BIN --user-dir langspec_lora … &": f"{shlex.join([*flags, '--no-progress-bar'])} &\nstep=$!",
    }.items():
        assert was in script
        script = script.replace(was, now)
    environment = {**ONE_THREAD, "PYTHONPATH": str(ROOT), "SLURM_JOB_ID": "7"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    log = tmp_path / "log"
    with log.open("w") as output:
        job = subprocess.Popen(["bash", "-c", script], stdout=output, stderr=subprocess.STDOUT, env=environment)
    try:
        wait_for(log, "train_inner", job)
        job.send_signal(signal.SIGUSR1)
        assert job.wait(120) == 1
    finally:
        job.kill()
    text = log.read_text()
    assert len(re.findall(r"SIGUSR1 received: saved .*checkpoint_last.pt \(epoch", text)) == 1
    assert "exitcode  : 138" in text
    assert text.index("scancel --signal=USR1 7") < text.index("SIGUSR1 received") < text.index("scontrol requeue 7")
    state = torch.load(tmp_path / "save" / "checkpoint_last.pt", weights_only=False)
    assert state["optimizer_history"][-1]["num_updates"] >= 1


def wait_for(log: Path, words: str, process: subprocess.Popen) -> None:
    end = time.monotonic() + 120
    while words not in log.read_text():
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < end, log.read_text()[-3000:]
        time.sleep(0.1)
