"""One training at a time writes to a ``--save-dir``; it removes the unfinished files of one that was killed."""

from __future__ import annotations

import logging
import re
import weakref
from argparse import Namespace
from contextlib import suppress
from pathlib import Path

from fairseq.distributed import utils as distributed

from langspec_lora.errors import UserError
from langspec_lora.locks import Locks

logger = logging.getLogger(__name__)

_UNFINISHED = r"(checkpoint(\d+|_\d+_\d+|_best|_last|\.best_\w+_-?\d+\.\d+)|crash){suffix}\.pt\.tmp"
"""The names of files to which fairseq, or our copying, writes a checkpoint before it is renamed."""


class SaveFolder:
    """The right to write checkpoints to a folder, which this process keeps until the object is deleted."""

    def __init__(self, locks: Locks) -> None:
        weakref.finalize(self, locks.__exit__)


_held: weakref.WeakValueDictionary[tuple[int, int, str], SaveFolder] = weakref.WeakValueDictionary()
"""By folder and suffix. A second set of locks on a file would, when it is closed, free those of the first."""


def hold_save_folder(args: Namespace) -> SaveFolder | None:
    """Makes sure that no other training writes to ``--save-dir``, before a model is built.

    The lock is a file ``.lock`` in the folder, which stays empty; a process that ends, however it ends, frees it.
    Trainings with different ``--checkpoint-suffix`` write different files, and do not exclude each other.

    Args:
        args: the arguments of the training command.

    Returns:
        Keep it as long as the training lasts. None if this process writes no checkpoints: because of ``--no-save``,
        because it is not the first process of its training, or because fairseq has not made the folder.

    Raises:
        UserError: another training writes to the folder, or the lock's file cannot be created.
    """
    folder, suffix = Path(args.save_dir), getattr(args, "checkpoint_suffix", "") or ""
    if args.no_save or "://" in args.save_dir or not folder.is_dir() or distributed.get_global_rank() != 0:
        return None
    place = folder.stat()
    key = (place.st_dev, place.st_ino, suffix)
    held = _held.get(key)
    if held is not None:
        return held
    locks = Locks(folder / f".lock{suffix}")
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
    for path in folder.iterdir():
        if pattern.fullmatch(path.name) and path.is_file():
            with suppress(OSError):
                path.unlink()
                logger.info("removed %s, which an interrupted training had not finished writing", path)
