"""SIGTERM ends a command of ours in one line, and leaves nothing unfinished."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from langspec_lora.errors import command_line
from langspec_lora.files import whole_files, whole_folder

with command_line("stopped; run the same command again to continue"):
    with whole_folder(Path("folder"), ["a"]) as folder, whole_files(Path("file")) as (partial,):
        (folder / "a").write_text("half")
        partial.write_text("half")
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(write, b"x")
            time.sleep(60)
            os._exit(0)
        os.read(read, 1)
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
        print("begun", flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize(("number", "code", "words"), [(signal.SIGTERM, 143, "SIGTERM received: "), (2, 130, "")])
def test_command_ends_in_a_line_and_leaves_nothing_unfinished(tmp_path: Path, number, code, words) -> None:
    own = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{PROGRAM}"
    process = subprocess.Popen(
        [sys.executable, "-c", own], cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    for _ in range(2 if number == signal.SIGTERM else 1):  # Slurm and torchrun send it twice
        process.send_signal(number)
    assert (
        process.communicate(timeout=30)[1]
        == f"\nlangspec-lora: {words}stopped; run the same command again to continue\n"
    )
    assert process.returncode == code
    assert not list(tmp_path.iterdir())
