"""Locks by name in one file, between processes and machines; a process that ends, however it ends, frees its own."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from langspec_lora.files import unwritable

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}


class Locks:
    """The locks that this process holds in a file.

    They are POSIX record locks (``man 2 fcntl``), which the kernel keeps, also over NFSv4. Each name stands for one
    byte of the file, by its hash, so that any number of locks needs one descriptor. They belong to the process: its
    threads do not exclude each other, and closing any other descriptor of the file frees them all.

    Args:
        path: the file; it is created, with missing folders, and stays empty.

    Attributes:
        supported: whether the file system has locks; where it has none, every lock is always free.

    Raises:
        UserError: the file cannot be created.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise unwritable(path, error) from error
        self.supported = True
        try:
            if self.take("whether the file system has locks"):
                self.release("whether the file system has locks")
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            self.supported = False

    def __enter__(self) -> Locks:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)  # which frees all locks

    def take(self, name: str, shared: bool = False) -> bool:
        """Takes a lock, unless another process holds it; one that this process holds becomes shared or exclusive.

        Args:
            name: what it locks.
            shared: whether other processes may hold it at the same time, if they share it too.

        Returns:
            Whether this process holds it now.
        """
        try:
            self._lock(name, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # POSIX allows both
            return False
        return True

    @contextmanager
    def held(self, name: str) -> Iterator[None]:
        """Waits for a lock, and holds it in a ``with`` block."""
        self._lock(name, fcntl.LOCK_EX)
        try:
            yield
        finally:
            self.release(name)

    def release(self, name: str) -> None:
        """Frees a lock."""
        self._lock(name, fcntl.LOCK_UN)

    def _lock(self, name: str, operation: int) -> None:
        if self.supported:
            byte = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
            fcntl.lockf(self._file, operation, 1, byte)
