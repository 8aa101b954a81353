"""Locks between processes: who holds one, who waits for it, and who frees it."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from langspec_lora.errors import UserError
from langspec_lora.locks import Locks

FORK = multiprocessing.get_context("fork")


class Other:
    """Another process, which does with the locks what it is asked for."""

    def __init__(self, path: Path) -> None:
        self._ours, theirs = FORK.Pipe()
        self.process = FORK.Process(target=self._serve, args=(path, theirs), daemon=True)
        self.process.start()

    @staticmethod
    def _serve(path: Path, asked: Connection) -> None:
        with Locks(path) as locks:
            while True:
                method, *args = asked.recv()
                if method == "wait":
                    with locks.held(*args):
                        asked.send("waited")
                else:
                    asked.send(getattr(locks, method)(*args))

    def ask(self, *words: object) -> None:
        self._ours.send(words)

    def answer(self) -> object:
        assert self._ours.poll(30)
        return self._ours.recv()

    def do(self, *words: object) -> object:
        self.ask(*words)
        return self.answer()

    def has_answered(self, seconds: float = 0.3) -> bool:
        return self._ours.poll(seconds)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / ".lock"


@pytest.fixture
def locks(path: Path) -> Iterator[Locks]:
    with Locks(path) as held:
        yield held


@pytest.fixture
def other(path: Path) -> Iterator[Other]:
    process = Other(path)
    yield process
    process.kill()


def test_one_process_holds_a_lock_at_a_time(locks, other) -> None:
    assert locks.take("en-fr")
    assert locks.take("en-fr")  # it holds it already
    assert not other.do("take", "en-fr")
    assert other.do("take", "fr-en")
    assert not locks.take("fr-en")
    locks.release("en-fr")
    assert other.do("take", "en-fr")
    assert not locks.take("en-fr")


def test_a_shared_lock_is_exclusive_for_the_last_who_holds_it(locks, other) -> None:
    assert locks.take("at work", True)
    assert other.do("take", "at work", True)
    assert not locks.take("at work")
    other.do("release", "at work")
    assert locks.take("at work")
    assert not other.do("take", "at work", True)
    assert locks.take("at work", True)
    assert other.do("take", "at work", True)


def test_a_process_that_is_killed_frees_its_locks(locks, other) -> None:
    assert other.do("take", "en-fr")
    assert other.do("take", "fr-en")
    assert not locks.take("en-fr")
    other.kill()
    assert locks.take("en-fr")
    assert locks.take("fr-en")


def test_closing_frees_the_locks(path, other) -> None:
    with Locks(path) as locks:
        assert locks.take("en-fr")
        assert not other.do("take", "en-fr")
    assert other.do("take", "en-fr")


def test_a_process_waits_until_a_lock_is_free(locks, other) -> None:
    with locks.held("scores"):
        other.ask("wait", "scores")
        assert not other.has_answered()
    assert other.answer() == "waited"
    with pytest.raises(ZeroDivisionError), locks.held("scores"):
        raise ZeroDivisionError
    assert other.do("wait", "scores") == "waited"


def test_many_locks_need_one_file_and_no_two_of_them_are_one(locks, other, path) -> None:
    files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    names = [f"{number:02}-en" for number in range(100)] + [f"en-{number:02}" for number in range(100)]
    assert all(locks.take(name) for name in names[::2])
    assert len(os.listdir("/proc/self/fd")) == files  # noqa: PTH208
    assert path.stat().st_size == 0
    assert all(other.do("take", name) for name in names[1::2])
    assert not any(other.do("take", name) for name in names[::2])


def test_other_files_of_a_process_do_not_free_its_locks(locks, other, path) -> None:
    assert locks.take("en-fr")
    (path.parent / "en-fr.hyp.txt").write_text("")
    list(path.parent.iterdir())
    assert not other.do("take", "en-fr")


@contextmanager
def refused(monkeypatch: pytest.MonkeyPatch, number: int) -> Iterator[None]:
    def lockf(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "lockf", lockf)
        yield


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_where_the_file_system_has_no_locks_each_is_free(path, other, monkeypatch, number) -> None:
    assert other.do("take", "en-fr")
    with refused(monkeypatch, number), Locks(path) as locks:
        assert not locks.supported
        assert locks.take("en-fr")
        with locks.held("en-fr"):
            pass
        locks.release("en-fr")


def test_another_failure_is_no_lack_of_locks(path, monkeypatch) -> None:
    with refused(monkeypatch, errno.EIO), pytest.raises(OSError, match="Input/output"):
        Locks(path)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EAGAIN])
def test_a_lock_that_another_holds_is_said_to_be_held_in_two_ways(locks, monkeypatch, number) -> None:
    assert locks.supported
    with refused(monkeypatch, number):
        assert not locks.take("en-fr")


def test_a_file_that_cannot_be_made_is_one_sentence(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/\.lock cannot be written: .*; choose a writable location"):
        Locks(tmp_path / "file" / ".lock")
