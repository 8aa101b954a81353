"""Files that a killed process was writing are removed by the next one that writes there; those of others stay."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from langspec_lora import partial_files
from langspec_lora.files import whole_files, whole_folder, write_whole
from langspec_lora.partial_files import partial_path, remove_leftovers


@pytest.fixture(autouse=True)
def _nothing_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process."""
    monkeypatch.setattr(partial_files, "_clean", set())


def writer(start: Callable[[], object]) -> int:
    """A process that has begun to write, and waits."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        start()
        os.write(write, b"x")
        signal.pause()
    os.read(read, 1)
    return child


def kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def begin_file(path: Path) -> None:
    context = whole_files(path)
    (partial,) = context.__enter__()
    partial.write_text("half")
    begun.append(context)


def begin_folder(path: Path) -> None:
    context = whole_folder(path, ["a"])
    (context.__enter__() / "a").write_text("half")
    begun.append(context)


begun: list = []


@pytest.mark.parametrize("begin", [begin_file, begin_folder])
@pytest.mark.parametrize("name", ["out", "ä" * 120, "with.dots-and 1-2-3"])
def test_leftover_goes_once_its_writer_has_been_killed_and_not_before(tmp_path, monkeypatch, begin, name) -> None:
    child = writer(lambda: begin(tmp_path / name))
    (leftover,) = tmp_path.iterdir()
    assert leftover.name.startswith(".")
    write_whole(tmp_path / "other", "x")
    assert leftover.exists()
    kill(child)
    monkeypatch.setattr(partial_files, "_clean", set())
    write_whole(tmp_path / "other", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_leftover_of_another_machine_stays_even_if_no_such_process_is_here(tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "elsewhere")
        kill(writer(lambda: begin_file(tmp_path / "out")))
    before = list(tmp_path.iterdir())
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == before


def test_process_that_has_got_the_number_of_a_killed_one_does_not_keep_its_leftover(tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(partial_files, "_started", lambda process: 7)
        partial_path(tmp_path / "out").write_text("half")  # of an earlier process with this number
    own = partial_path(tmp_path / "out")
    own.write_text("half")
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [own]


def test_only_names_of_this_kind_are_removed(tmp_path) -> None:
    names = [".out.partial", ".out.0a1b2c3d.partial", "out.tar.gz.partial", ".x.00000000-1-1-abcd.partial", ".partial"]
    for name in names:
        (tmp_path / name).write_text("mine")
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
