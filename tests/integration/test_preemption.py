"""A training that a signal stops, at any moment, is continued by the same command as if nothing had happened."""

from __future__ import annotations

import json
import os
import re
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

from tests import ROOT, toy
from tests.toy import needs_processes_on_cpu
from tests.trainings import ONE_THREAD, TRAINING, command, run, train_here

sys.path.insert(0, str(ROOT / "scripts"))
from kills import differences

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


@needs_processes_on_cpu
def test_signal_to_one_process_of_two_stops_both_after_the_same_update(toy_data, tmp_path) -> None:
    """With processes that load data, as by default, which get the signals that torchrun sends too."""
    flags = toy.plugin_flags(toy_data, *TRAINING, "--save-dir", str(tmp_path / "save"), *FLAGS, "--max-epoch", "90")
    log = tmp_path / "log"
    with log.open("w") as output:
        torchrun = subprocess.Popen(
            [command("torchrun"), "--standalone", "--nproc_per_node", "2", command("fairseq-train"), *flags,
             "--distributed-backend", "gloo", "--ddp-backend", "no_c10d", "--num-workers", "1", "--log-interval", "1",
             "--no-progress-bar"],
            stdout=output, stderr=subprocess.STDOUT, env={**ONE_THREAD, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        try:
            wait_for(log, "train_inner", torchrun)
            os.kill(process_of_rank(1, torchrun.pid), signal.SIGUSR1)
            assert torchrun.wait(120) == 1  # whatever the processes end with
        finally:
            torchrun.kill()
    text = log.read_text()
    assert len(re.findall(r"SIGUSR1 received: saved .*checkpoint_last.pt \(epoch", text)) == 1
    assert "exitcode  : 138" in text
    state = torch.load(tmp_path / "save" / "checkpoint_last.pt", weights_only=False)
    assert state["optimizer_history"][-1]["num_updates"] >= 1


def wait_for(log: Path, words: str, process: subprocess.Popen) -> None:
    end = time.monotonic() + 120
    while words not in log.read_text():
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < end, log.read_text()[-3000:]
        time.sleep(0.1)


def process_of_rank(rank: int, torchrun: int) -> int:
    for child in Path(f"/proc/{torchrun}/task/{torchrun}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise AssertionError
