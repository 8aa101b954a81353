"""One training at a time writes to a ``--save-dir``; it removes the unfinished files of one that was killed."""

from __future__ import annotations

import functools
import logging
import re
import tempfile
import weakref
from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from fairseq import checkpoint_utils, tasks
from fairseq.distributed import utils as distributed

from langspec_lora.errors import UserError, exit_on_user_error
from langspec_lora.locks import Locks
from langspec_lora.tasks.hydra import NAME

logger = logging.getLogger(__name__)

_UNFINISHED = r"checkpoint(\d+|_\d+_\d+|_best|_last|\.best_\w+_-?\d+\.\d+){suffix}\.pt\.tmp"
"""The names of files to which fairseq, or our copying, writes a checkpoint before it is renamed."""
_CRASH = "crash.pt.tmp"
"""The same for what fairseq saves after an error, whatever the suffix."""
_LOCK = ".lock"

_mistakes: list[str] = []
"""At most one: why files cannot be written to ``--save-dir``."""


class SaveFolder:
    """The right to write checkpoints to a folder, which this process keeps until the object is deleted."""

    def __init__(self, locks: Locks) -> None:
        weakref.finalize(self, locks.__exit__)


_held: weakref.WeakValueDictionary[tuple[int, int, str], SaveFolder] = weakref.WeakValueDictionary()
"""By folder and suffix. A second set of locks on a file would, when it is closed, free those of the first."""


def hold_save_folder(args: Namespace) -> SaveFolder | None:
    """Makes sure that no other training writes to ``--save-dir``, before a model is built.

    The lock is a file ``.lock`` in the folder, which stays empty; a process that ends, however it ends, frees it.
    Trainings with different ``--checkpoint-suffix`` write different files, and do not exclude each other, except where
    the suffix begins with a digit: ``checkpoint11.pt`` can be of the eleventh epoch or have the suffix 1.

    Args:
        args: the arguments of the training command.

    Returns:
        Keep it as long as the training lasts. None if this process writes no checkpoints: because of ``--no-save``,
        because it is not the first process of its training, or because fairseq has not made the folder.

    Raises:
        UserError: another training writes to the folder, the lock's file cannot be created, or the suffix is none.
    """
    folder, suffix = Path(args.save_dir), getattr(args, "checkpoint_suffix", "") or ""
    if "/" in suffix:
        raise UserError(f"--checkpoint-suffix {suffix} contains a slash; expected text that can end a file's name")
    if args.no_save or "://" in args.save_dir or not folder.is_dir() or distributed.get_global_rank() != 0:
        return None
    place = folder.stat()
    key = (place.st_dev, place.st_ino, suffix)
    held = _held.get(key)
    if held is not None:
        return held
    locks = Locks(folder / (_LOCK if suffix[:1].isdigit() else f"{_LOCK}{suffix}"))
    if not locks.supported:
        logger.warning("the file system of --save-dir %s has no locks; start no second training there", folder)
    elif not locks.take("training"):
        locks.__exit__()
        raise UserError(
            f"another training is writing to --save-dir {folder}; wait until it has ended, or give another --save-dir"
        )
    else:
        remove_unfinished(folder, suffix)
    held = _held[key] = SaveFolder(locks)
    return held


def remove_unfinished(folder: Path, suffix: str = "") -> None:
    """Removes the checkpoints that a killed training left unfinished; no training may be writing to the folder."""
    pattern = re.compile(_UNFINISHED.format(suffix=re.escape(suffix)))
    paths = list(folder.iterdir())
    alone = not any(path.name.startswith(_LOCK) and path.name not in (_LOCK, f"{_LOCK}{suffix}") for path in paths)
    for path in paths:
        unfinished = pattern.fullmatch(path.name) or (path.name == _CRASH and alone)
        if unfinished and path.is_file():
            with suppress(OSError):
                path.unlink()
                logger.info("removed %s, which an interrupted training had not finished writing", path)


def ready_to_write(folder: str) -> None:
    """Makes ``--save-dir``, and finds out whether files can be written there; takes the place of fairseq's function.

    fairseq's ends in a traceback, removes a file named ``dummy``, and can fail if two trainings start at once. Only the
    first process of a training calls it, before the task is made. That is when the mistake is raised, because other
    processes hear of it there.
    """
    _mistakes.clear()
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        _mistakes.append(f"--save-dir {folder} cannot be written to: {error.strerror}; give a folder that can be")


def check_ready_to_write() -> None:
    """Raises what :func:`ready_to_write` has found.

    Raises:
        UserError: no file can be written to ``--save-dir``.
    """
    if _mistakes:
        raise UserError(_mistakes.pop())


def _refused_for_other_tasks(setup_task: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(setup_task)
    def setup(cfg: Any, **kwargs: Any) -> Any:
        if NAME not in (getattr(cfg, "_name", None), getattr(cfg, "task", None)):
            with exit_on_user_error():
                check_ready_to_write()
        return setup_task(cfg, **kwargs)

    return setup


checkpoint_utils.verify_checkpoint_directory = ready_to_write
tasks.setup_task = _refused_for_other_tasks(tasks.setup_task)
