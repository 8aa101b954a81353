"""Temporary names for files that are being written; they tell whether their writer still runs, so that none is left."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import socket
from contextlib import suppress
from pathlib import Path

_LONGEST_NAME = 120  # characters of the final name in a temporary one; file systems allow 255 bytes
_PARTIAL = re.compile(r"\..+\.([0-9a-f]{8})-(\d+)-(\d+)-[0-9a-f]{4}\.partial", re.DOTALL)
_clean: set[str] = set()


def partial_path(path: Path) -> Path:
    """A temporary path beside ``path``: unique among processes and machines, and hidden from patterns such as ``*.pt``.

    It names the machine, the process and the time at which the process started.
    """
    name = path.name.encode()[:_LONGEST_NAME].decode(errors="ignore")
    process = os.getpid()
    writer = f"{_machine()}-{process}-{_started(process) or 0}"
    return path.with_name(f".{name}.{writer}-{secrets.token_hex(2)}.partial")


def remove_leftovers(folder: Path) -> None:
    """Removes what killed processes of this machine have left unfinished in a folder, once for each folder.

    What a process of another machine writes is left alone, because nothing says whether it still runs.
    """
    if str(folder) in _clean:
        return
    _clean.add(str(folder))
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = _PARTIAL.fullmatch(entry.name)
            if found is None or not _has_ended(found[1], int(found[2]), int(found[3])):
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                with suppress(OSError):
                    Path(entry.path).unlink()


def _has_ended(machine: str, process: int, started: int) -> bool:
    """Whether a writer is known to run no more; a number that another process has got since is told by its start."""
    if machine != _machine():
        return False
    now = _started(process)
    if now is not None:
        return now != started
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:  # it belongs to somebody else
        return False
    return False


def _machine() -> str:
    """A short name of the machine, and of the container where its processes have numbers of their own."""
    with suppress(OSError):
        return _hash(f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}")  # noqa: PTH115  no path
    return _hash(socket.gethostname())


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _started(process: int) -> int | None:
    """When a process started, in clock ticks; None if it has ended, or if the system does not say."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return int(text.rpartition(")")[2].split()[19])  # man 5 proc; the program's name may contain anything
