"""One training writes to a --save-dir at a time, and removes what a killed one left unfinished."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import signal
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fairseq import checkpoint_utils, tasks

from langspec_lora.errors import UserError
from langspec_lora.tasks import save_folder
from langspec_lora.tasks.save_folder import hold_save_folder


def command(folder: Path | str, **more) -> Namespace:
    return Namespace(**{"save_dir": str(folder), "no_save": False, "checkpoint_suffix": "", **more})


@contextmanager
def another_training(args: Namespace) -> Iterator[int]:
    """Another process that holds a folder until it is killed."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        held = hold_save_folder(args)
        os.write(write, b"x")
        signal.pause()
        os._exit(held is None)
    os.read(read, 1)
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(read)
        os.close(write)


@pytest.mark.parametrize("way", ["same path", "relative", "through a link"])
def test_second_training_is_refused_in_a_sentence_until_the_first_has_ended_in_whatever_way(
    tmp_path, monkeypatch, way
) -> None:
    folder = tmp_path / "save"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    second = {"relative": "save", "through a link": tmp_path / "link"}.get(way, folder)
    refusal = r"another training is writing to --save-dir .*; wait until it has ended"
    with another_training(command(folder)), pytest.raises(UserError, match=refusal):
        hold_save_folder(command(second))
    assert hold_save_folder(command(second)) is not None


@pytest.mark.parametrize(
    "more", [{"no_save": True}, {"checkpoint_suffix": "-b"}], ids=["writes nothing", "writes other files"]
)
def test_training_that_writes_no_file_of_the_other_is_allowed(tmp_path, more) -> None:
    with another_training(command(tmp_path)):
        hold_save_folder(command(tmp_path, **more))


@pytest.mark.parametrize(("first", "second"), [("", "1"), ("1", ""), ("1", "21"), ("-b", "-b")])
def test_suffix_that_can_make_the_names_of_another_training_is_refused_beside_it(tmp_path, first, second) -> None:
    """With the suffix 1, the first epoch's checkpoint has the name of the eleventh epoch's without a suffix."""
    with (
        another_training(command(tmp_path, checkpoint_suffix=first)),
        pytest.raises(UserError, match="another training is writing"),
    ):
        hold_save_folder(command(tmp_path, checkpoint_suffix=second))


def test_suffix_that_leads_into_another_folder_is_refused(tmp_path) -> None:
    with pytest.raises(UserError, match="--checkpoint-suffix /b contains a slash"):
        hold_save_folder(command(tmp_path, checkpoint_suffix="/b"))
    assert not list(tmp_path.iterdir())


def test_file_system_without_locks_is_warned_of_and_nothing_is_removed_there(tmp_path, monkeypatch, caplog) -> None:
    """As Lustre without ``flock``, where another training may be writing."""

    def lockf(*args: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "lockf", lockf)
    (tmp_path / "checkpoint_last.pt.tmp").write_text("x")
    assert hold_save_folder(command(tmp_path)) is not None
    assert f"the file system of --save-dir {tmp_path} has no locks; start no second training there" in caplog.text
    assert (tmp_path / "checkpoint_last.pt.tmp").exists()


def test_folder_in_which_no_file_can_be_made_is_refused_by_any_task_in_a_sentence(tmp_path) -> None:
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "save", "/proc/save"):
        checkpoint_utils.verify_checkpoint_directory(str(folder))
        with pytest.raises(SystemExit, match=rf"--save-dir {folder} cannot be written to: .*; give a folder that can"):
            tasks.setup_task(Namespace(task="translation", _name="translation"))
    assert (tmp_path / "file").read_text() == "mine"


def test_folder_is_made_and_nothing_in_it_is_touched(tmp_path) -> None:
    """fairseq's own check removes a file named ``dummy``."""
    checkpoint_utils.verify_checkpoint_directory(str(tmp_path / "a" / "b"))
    assert not list((tmp_path / "a" / "b").iterdir())
    (tmp_path / "a" / "dummy").write_text("mine")
    checkpoint_utils.verify_checkpoint_directory(str(tmp_path / "a"))
    assert (tmp_path / "a" / "dummy").read_text() == "mine"


def test_folder_is_free_again_when_the_training_has_ended_within_the_process(tmp_path) -> None:
    first = hold_save_folder(command(tmp_path))
    assert hold_save_folder(command(tmp_path)) is first
    (tmp_path / "link").symlink_to(tmp_path)
    assert hold_save_folder(command(tmp_path / "link")) is first
    del first
    gc.collect()
    child = os.fork()
    if child == 0:
        try:
            save_folder._held.clear()  # as in a process that is not forked from this one
            os._exit(hold_save_folder(command(tmp_path)) is None)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def test_nothing_is_made_where_fairseq_has_made_no_folder(tmp_path) -> None:
    assert hold_save_folder(command(tmp_path / "none")) is None
    assert not list(tmp_path.iterdir())


def test_unfinished_checkpoints_are_removed_and_nothing_else(tmp_path) -> None:
    unfinished = [
        "checkpoint12.pt.tmp", "checkpoint_3_120.pt.tmp", "checkpoint_last.pt.tmp", "checkpoint_best.pt.tmp",
        "checkpoint.best_loss_3.4561.pt.tmp", "checkpoint.best_bleu_31.2500.pt.tmp", "crash.pt.tmp",
    ]  # fmt: skip
    others = ["checkpoint12.pt", "checkpoint_last-b.pt.tmp", "mine.pt.tmp", "checkpoint_last.pt.tmp.bak", "notes.tmp"]
    for name in unfinished + others:
        (tmp_path / name).write_text("x")
    held = hold_save_folder(command(tmp_path))
    assert held is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, ".lock"])


def test_what_a_training_with_another_suffix_may_be_writing_is_left_alone(tmp_path) -> None:
    """After an error, fairseq writes the same file whatever the suffix."""
    with another_training(command(tmp_path, checkpoint_suffix="-b")):
        (tmp_path / "crash.pt.tmp").write_text("x")
        assert hold_save_folder(command(tmp_path)) is not None
    assert (tmp_path / "crash.pt.tmp").exists()


def test_files_of_a_running_training_are_left_alone(tmp_path) -> None:
    with another_training(command(tmp_path)):
        (tmp_path / "checkpoint_last.pt.tmp").write_text("x")
        with pytest.raises(UserError):
            hold_save_folder(command(tmp_path))
    assert (tmp_path / "checkpoint_last.pt.tmp").exists()
