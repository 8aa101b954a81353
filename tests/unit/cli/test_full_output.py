"""An output that cannot be written, or that nobody reads any more, in every command that writes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from langspec_lora import files
from langspec_lora.cli.commands import COMMANDS, module_of
from langspec_lora.cli.main import main
from langspec_lora.errors import UserError, command_line
from tests import ROOT, toy
from tests.bad_input import write_checkpoint

FULL = "langspec-lora: error: cannot write the output: No space left on device; check the disk"

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")


def run(*arguments: object, unbuffered: bool = False, **how) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment["PYTHONUNBUFFERED"] = "1" if unbuffered else ""
    program = [sys.executable, "-m", "langspec_lora.cli.main", *map(str, arguments)]
    return subprocess.run(program, stderr=subprocess.PIPE, text=True, env=environment, check=False, **how)


@pytest.fixture(scope="module")
def checkpoint(toy_data, tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("full") / "ck.pt", toy.plugin_flags(toy_data))


@pytest.mark.parametrize("unbuffered", [False, True])
def test_full_standard_output_is_one_sentence(checkpoint, unbuffered) -> None:
    with Path("/dev/full").open("w") as full:
        done = run("inspect", checkpoint, stdout=full, unbuffered=unbuffered)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, FULL)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_so(monkeypatch, command) -> None:
    """They all run inside of one guard."""

    def write(args: object) -> int:
        with Path("/dev/full").open("w") as full:
            full.write("text")
        return 0

    module = module_of(command)
    monkeypatch.setattr(module, "add_arguments", lambda parser: None)
    monkeypatch.setattr(module, "run", write)
    monkeypatch.setattr("langspec_lora.errors._drop_output", lambda: None)
    with pytest.raises(SystemExit) as end:
        main([command])
    assert end.value.code == FULL


def test_reader_that_has_enough_ends_a_command_without_a_word(checkpoint) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = run("inspect", checkpoint, stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_file_that_may_not_be_read_is_named(tmp_path) -> None:
    with (
        pytest.raises(SystemExit, match=f"error: {tmp_path / 'none'}: No such file or directory; check"),
        command_line(),
    ):
        (tmp_path / "none").read_text()


@pytest.mark.parametrize("overwrite", [False, True])
def test_device_is_never_replaced_by_a_file(overwrite) -> None:
    with pytest.raises(UserError, match=r"is a device|already exists"):
        files.check_file(Path("/dev/full"), overwrite)


@pytest.mark.parametrize(
    "arguments",
    [
        ["average", "CK", "CK", "--out", "/dev/full", "--overwrite"],
        ["average", "CK", "CK", "--out", "/dev/full/x"],
        ["inspect", "CK", "--out", "/dev/full"],
        ["subspaces", "CK", "--out", "/dev/full"],
        ["export", "CK", "--format", "adapter", "--out", "/dev/full"],
        ["export", "CK", "--format", "merged", "-s", "en", "-t", "wo", "--out", "/dev/full", "--overwrite"],
        ["add-language", "CK", "--langs", "ja", "--out", "/dev/full", "--overwrite"],
        ["remove-language", "CK", "--langs", "wo", "--out", "/dev/full", "--overwrite"],
        ["join", "CK", "CK", "--out", "/dev/full", "--overwrite"],
    ],
)
def test_device_as_output_file_is_one_sentence(checkpoint, arguments) -> None:
    with pytest.raises(SystemExit, match=r"^langspec-lora: error: .*/dev/full"):
        main([str(checkpoint) if word == "CK" else word for word in arguments])
    assert not Path("/dev/full").is_file()
