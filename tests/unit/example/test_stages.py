"""Stages: run once, taken up where they were, refused when made from something else, ended with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from langspec_lora.errors import UserError
from langspec_lora.example import quickstart
from langspec_lora.example.quickstart import decoding_progress, finetune_command, training_progress
from langspec_lora.example.stages import Runner, Stage
from tests import ROOT


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path / "out", tmp_path, dict(os.environ))


def python(name: str, code: str, folder: Path, inputs: tuple[Path, ...] = ()) -> Stage:
    return Stage(name, name.title(), [sys.executable, "-c", code], folder, inputs)


def counting(folder: Path, name: str = "count", inputs: tuple[Path, ...] = ()) -> Stage:
    """A stage that writes one more line into FOLDER/lines each time it runs."""
    code = (
        f"import pathlib; p = pathlib.Path({str(folder)!r}); p.mkdir(exist_ok=True); (p / 'lines').open('a').write('x')"
    )
    return python(name, code, folder, inputs)


def test_a_finished_stage_is_not_run_again(runner, tmp_path, capsys):
    stage = counting(tmp_path / "made")
    runner.run(stage)
    runner.run(stage)
    assert (tmp_path / "made" / "lines").read_text() == "x"
    assert runner.ran == 1
    assert "Count: already done" in capsys.readouterr().out


def test_a_stage_whose_folder_was_removed_is_run_again(runner, tmp_path):
    stage = counting(tmp_path / "made")
    runner.run(stage)
    (tmp_path / "made" / "lines").unlink()
    (tmp_path / "made").rmdir()
    runner.run(stage)
    assert (tmp_path / "made" / "lines").read_text() == "x"


def test_a_stage_that_failed_is_run_again_with_what_it_left(runner, tmp_path):
    folder = tmp_path / "made"
    code = (
        f"import pathlib, sys; p = pathlib.Path({str(folder)!r}); p.mkdir(exist_ok=True); "
        "n = len(list(p.iterdir())); (p / str(n)).touch(); sys.exit(n == 0)"
    )
    stage = python("twice", code, folder)
    with pytest.raises(UserError, match="twice failed"):
        runner.run(stage)
    runner.run(stage)
    assert sorted(path.name for path in folder.iterdir()) == ["0", "1"]


def test_stages_of_one_call_run_side_by_side(runner, tmp_path):
    # Each waits for the other's file: one after the other, they would never end.
    code = (
        "import pathlib, time; d = pathlib.Path({0!r}); d.mkdir(exist_ok=True); (d / {1!r}).touch()\n"
        "while not (d / {2!r}).exists(): time.sleep(0.01)"
    )
    folder = tmp_path / "meeting"
    stages = [python(a, code.format(str(folder), a, b), folder) for a, b in (("one", "two"), ("two", "one"))]
    runner.run(*stages)
    assert runner.ran == 2


def test_a_stage_made_by_another_command_is_refused_and_kept(runner, tmp_path):
    runner.run(counting(tmp_path / "made"))
    other = python("count", "raise SystemExit('ran')", tmp_path / "made")
    with pytest.raises(UserError, match=r"made was made with another command .*; remove .*made to make it again"):
        runner.run(other)
    assert (tmp_path / "made" / "lines").read_text() == "x"


def test_a_stage_made_from_another_input_is_refused(runner, tmp_path):
    (tmp_path / "input").write_text("one")
    stage = counting(tmp_path / "made", inputs=(tmp_path / "input",))
    runner.run(stage)
    (tmp_path / "input").write_text("two")
    with pytest.raises(UserError, match="made with another input"):
        runner.run(stage)


def test_the_same_program_of_another_environment_counts_as_the_same_command(runner, tmp_path):
    stage = counting(tmp_path / "made")
    runner.run(stage)
    moved = Stage(
        stage.name, stage.title, [f"/elsewhere/{Path(sys.executable).name}", *stage.command[1:]], stage.folder
    )
    runner.run(moved)
    assert runner.ran == 1


def test_a_failure_shows_the_end_of_the_output_and_names_the_log(runner, tmp_path, capsys):
    code = "print('first'); print(*range(100), sep='\\n'); print('the reason'); raise SystemExit(3)"
    with pytest.raises(UserError, match=r"bad failed \(exit code 3\); see its output in .*logs/bad\.log, then"):
        runner.run(python("bad", code, tmp_path / "made"))
    shown = capsys.readouterr().err
    assert "    | the reason\n" in shown
    assert "first" not in shown
    assert "first" in (tmp_path / "out" / "logs" / "bad.log").read_text()


def test_when_one_stage_fails_those_beside_it_are_ended(runner, tmp_path):
    slow = python("slow", f"import time; time.sleep(60); open({str(tmp_path / 'late')!r}, 'w')", tmp_path / "slow")
    started = time.monotonic()
    with pytest.raises(UserError, match="bad failed"):
        runner.run(slow, python("bad", "raise SystemExit(1)", tmp_path / "bad"))
    assert time.monotonic() - started < 30
    assert not (tmp_path / "late").exists()


def test_the_output_is_that_of_the_latest_run(runner, tmp_path):
    folder = tmp_path / "made"
    code = f"import pathlib, sys; n = pathlib.Path({str(folder)!r}); print('run', n.exists()); n.mkdir(exist_ok=True)"
    stage = python("say", code, folder)
    runner.run(stage)
    (tmp_path / "out" / "stages" / "say.json").unlink()
    runner.run(stage)
    assert runner.output(stage) == "run True\n"


@pytest.mark.parametrize("shift", range(0, 120, 7))
def test_the_printed_command_can_be_pasted_into_a_shell(tmp_path, shift):
    words = ["prog", "x" * shift, "--betas", "(0.9, 0.98)", "", "a b c d e f", *(f"--flag-{n}" for n in range(20))]
    text = Stage("x", "X", words, tmp_path).text()
    assert max(map(len, text.split("\n"))) <= 130
    printed = subprocess.run(
        ["bash", "-c", f"prog() {{ printf '%s\\n' \"$@\"; }}; {text}"], capture_output=True, text=True
    )
    assert printed.stdout.split("\n")[:-1] == words[1:]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(UserError, match=r"file: .*; give a writable folder"),
        Runner(tmp_path / "file", tmp_path, {}).lock(),
    ):
        pass


def test_a_second_run_in_the_same_folder_is_refused(runner, tmp_path):
    other = Runner(tmp_path / "out", tmp_path, {})
    with runner.lock(), pytest.raises(UserError, match="another run is using"), other.lock():
        pass
    with other.lock():
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell a child that its parent was killed")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=["TERM", "INT", "KILL"])
def test_when_the_run_is_ended_its_commands_end_and_the_folder_is_free(tmp_path, number):
    program = (
        "import os, sys; from pathlib import Path; from langspec_lora.example.stages import Runner, Stage\n"
        "here = Path(sys.argv[1]); code = 'import os, time; print(os.getpid(), flush=True); time.sleep(60)'\n"
        "runner = Runner(here / 'out', here, dict(os.environ))\n"
        "with runner.lock(): runner.run(Stage('sleep', 'Sleep', [sys.executable, '-c', code], here / 'made'))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what runs in a shell's background ignores it
    )
    log = tmp_path / "out" / "logs" / "sleep.log"
    try:
        wait_for(lambda: log.exists() and log.read_text().split("\n")[-2:-1][0].isdigit())
        child = int(log.read_text().split("\n")[-2])
        process.send_signal(number)
        assert process.wait(20) != 0
        wait_for(lambda: not is_alive(child))
    finally:
        process.kill()
    with Runner(tmp_path / "out", tmp_path, {}).lock():
        pass


def wait_for(condition, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_progress_is_read_from_what_the_programs_print():
    log = (
        "2026-01-01 | INFO | train_inner | epoch 002:     56 / 95 loss=5.622, nll_loss=4.824, ppl=28.33\n"
        "2026-01-01 | INFO | train_inner | epoch 003:      1 / 95 loss=4.017, nll_loss=3.824, ppl=8.33\n"
    )
    assert training_progress(log) == "epoch 3/15, loss 4.02"
    assert training_progress("loading") == ""
    bar = "decoding:   0%| | 0/6600 [00:00<?, ?sentence/s]\rdecoding:  53%|#| 3498/6600 [00:23<00:20, 0/132 directions]"
    assert decoding_progress(bar) == "3498/6600 sentences"


def test_the_training_commands_have_the_flags_of_the_published_one(monkeypatch):
    monkeypatch.setattr(quickstart, "_program", lambda name: name)
    published = (
        "update-freq seed ddp-backend user-dir finetune-from-model arch task sampling-method sampling-temperature "
        "encoder-langtok decoder-langtok langs lang-pairs criterion label-smoothing optimizer adam-eps adam-betas "
        "lr-scheduler lr warmup-updates max-tokens max-epoch required-batch-size-multiple log-interval log-format "
        "save-dir decoder-layerdrop decoder-layers decoder-normalize-before dropout encoder-layerdrop encoder-layers "
        "encoder-normalize-before share-all-embeddings share-decoder-input-output-embed add-lora "
        "freeze-original-parameters encoder-lora-layer encoder-lora-position decoder-lora-layer decoder-lora-position "
        "dim high-rank med-rank low-rank encoder-activation-direction decoder-activation-direction language-num "
        "pruning pruning-t1 pruning-t2 target-pruning-ratio"
    )  # all but --amp, which a CPU does not have, and --keep-last-epochs, for --no-epoch-checkpoints
    command = finetune_command(Path("data"), Path("base.pt"), Path("out"), pruning=True)
    assert {f"--{name}" for name in published.split()} <= set(command)
    assert command[0] == "fairseq-train"


def test_the_two_fine_tunings_differ_in_nothing_but_pruning(monkeypatch):
    monkeypatch.setattr(quickstart, "_program", lambda name: name)
    plain = finetune_command(Path("data"), Path("base.pt"), Path("out"), pruning=False)
    pruned = finetune_command(Path("data"), Path("base.pt"), Path("out"), pruning=True)
    rest = pruned[: pruned.index("--pruning")] + pruned[pruned.index("--target-pruning-ratio") + 2 :]
    assert rest == plain[: plain.index("--pruning")] + plain[plain.index("--pruning") + 2 :]
    assert plain[plain.index("--pruning") + 1] == "False"
