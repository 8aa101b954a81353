"""Copies of checkpoints that a kill leaves either as they were or complete."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from fairseq.file_io import PathManager


def copy_checkpoints_whole() -> None:
    """Replaces the copying of ``fairseq.checkpoint_utils.save_checkpoint`` for the rest of the process.

    Fairseq writes ``checkpoint15.pt`` under another name and renames it, but then copies it byte by byte over
    ``checkpoint_last.pt`` and ``checkpoint_best.pt``: a run that is killed meanwhile would resume from half a file.
    Files that are not on a local disk are copied as before.
    """
    if not isinstance(PathManager.copy, _CopyWhole):
        PathManager.copy = staticmethod(_CopyWhole(PathManager.copy))


class _CopyWhole:
    """Fairseq's ``PathManager.copy``, with :func:`copy_whole` for local files."""

    def __init__(self, stock: Callable[..., bool]) -> None:
        self._stock = stock

    def __call__(self, src_path: str, dst_path: str, overwrite: bool = False) -> bool:
        copies = self._stock if "://" in src_path + dst_path else copy_whole
        return copies(src_path, dst_path, overwrite=overwrite)


def copy_whole(original: str, target: str, overwrite: bool = False) -> bool:
    """Copies a file so that a kill leaves the target either as it was or complete.

    Args:
        original: the file to copy.
        target: path of the copy.
        overwrite: whether the copy may replace a file.

    Raises:
        FileExistsError: ``target`` exists, and ``overwrite`` is False.
        OSError: the copy cannot be written.
    """
    if not overwrite and Path(target).exists():
        raise FileExistsError(target)
    partial = Path(f"{target}.tmp")  # fairseq's name for an unfinished file
    try:
        shutil.copyfile(original, partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return True
