"""What ``langspec-lora prepare`` prints at its end runs as it stands: bash runs it, with programs that this process is.

Each program that bash starts hands its arguments to this process, which has imported torch and fairseq, waits, and ends
with the exit status of what this process ran.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fairseq_cli import train

from langspec_lora.cli.main import main
from tests.evaluations import run_stock
from tests.unit.data.own_text.corpora import rows_of, vocabulary, write_columns

pytestmark = pytest.mark.slow

PROGRAM = """#!/usr/bin/env bash
printf '%s\\0' "{name}" "$@" >request
read -r status <answer
cat output
exit "$status"
"""
CHEAP = {"MAX_UPDATE": "2", "MAX_EPOCH": "2", "MAX_TOKENS": "300", "UPDATE_FREQ": "1", "TOKENIZE": "13a"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Text of two language pairs, of which one has no validation text, in a folder with a space in its name."""
    for number, (split, names) in enumerate(
        [("train", ("en", "fr")), ("train", ("en", "wo")), ("valid", ("en", "fr")), ("test", ("en", "wo"))]
    ):
        files = [f"{'-'.join(names)}.{name}" for name in names]
        write_columns(tmp_path / "my text" / split, files, rows_of(names, 30 if split == "train" else 1, number))
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    for name in ("fairseq-train", "langspec-lora", "python3"):
        program = tmp_path / "venv" / "bin" / name
        program.write_text(PROGRAM.format(name=name))
        program.chmod(0o755)
    for name in ("request", "answer"):
        os.mkfifo(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def requests(script: str, folder: Path) -> Iterator[list[str]]:
    """Runs a script; yields what its programs were called with, and lets them go on."""
    programs = folder / "venv"
    environment = {**os.environ, **CHEAP, "VENV": str(programs), "PRECISION": "", "CUDA_VISIBLE_DEVICES": ""}
    environment["PATH"] = f"{programs / 'bin'}:{os.environ['PATH']}"
    ends = "trap \"printf 'end\\\\0' >request\" EXIT\n"  # also if the script fails, so that this process does not wait
    with subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", ends + script], env=environment, cwd=folder, start_new_session=True
    ) as process:
        try:
            while True:
                words = (folder / "request").read_text().split("\0")[:-1]
                if words == ["end"]:
                    break
                yield words
                (folder / "answer").write_text("0\n")
        finally:
            if process.poll() is None and words != ["end"]:
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0


def prepared(folder: Path, capsys: pytest.CaptureFixture, *more: str) -> str:
    text = folder / "my text"
    command = ["prepare", "--train", text / "train", "--valid", text / "valid", "--test", text / "test"]
    assert main(list(map(str, [*command, "--valid-lines", 2, "--out", "the data", *more]))) == 0
    printed = capsys.readouterr().out
    return printed[printed.index("# Next commands") :]


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs one program in this process; returns what it printed."""
    program, *arguments = words
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        if program == "fairseq-train":
            run_stock(monkeypatch, train, *arguments, "--cpu", "--no-progress-bar")
        elif program == "langspec-lora":
            # A model that has hardly been trained never ends its sentences.
            assert main([*arguments, *(["--max-len-b", "5"] if arguments[0] == "evaluate" else [])]) == 0
        else:
            assert arguments[:2] == ["-m", "langspec_lora.cli.main"]
            assert main(arguments[2:]) == 0
    return printed.getvalue()


def test_printed_commands_pretrain_finetune_evaluate_and_compare(folder, capsys, monkeypatch) -> None:
    script = prepared(folder, capsys, "--vocab-size", "60")
    ran = []
    for words in requests(script, folder):
        ran.append(words[0])
        (folder / "output").write_text(run(words, monkeypatch))
    assert ran == ["fairseq-train", "python3", "fairseq-train", "langspec-lora", "langspec-lora"]
    out = folder / "the data"
    hypotheses = {path.name for path in (out / "results" / "finetuned").glob("*.hyp.txt")}
    assert hypotheses == {"en-wo.hyp.txt", "wo-en.hyp.txt"}
    assert (out / "report" / "report.html").is_file()
    tuned, base = out / "finetuned" / "checkpoint_last.pt", out / "base" / "checkpoint_best.pt"
    assert tuned.stat().st_size < base.stat().st_size


def test_a_given_base_is_fine_tuned_and_no_other_is_pretrained(folder, capsys, monkeypatch) -> None:
    spm, dictionary = vocabulary(folder / "m2m100")
    script = prepared(folder, capsys, "--spm", str(spm), "--dict", str(dictionary))
    assert "pretrain" not in script.lower()
    unset = {name: value for name, value in os.environ.items() if name != "BASE"}
    done = subprocess.run(["bash", "-c", script], env=unset, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "BASE: set BASE to the checkpoint to fine-tune" in done.stderr
    (folder / "m2m100" / "model.pt").touch()
    assert f"BASE={folder}/m2m100/model.pt" in prepared(folder, capsys, "--spm", str(spm), "--dict", str(dictionary))
