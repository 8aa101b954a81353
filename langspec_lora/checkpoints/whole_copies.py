"""Checkpoints, and copies of them, that a kill or a power loss leaves either as they were or complete."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from fairseq.file_io import PathManager

from langspec_lora.files import flush


def write_checkpoints_whole() -> None:
    """Replaces how ``fairseq.checkpoint_utils`` renames and copies files, for the rest of the process.

    Fairseq writes ``checkpoint15.pt`` under another name and renames it, perhaps before its content is on the disk, so
    that a power loss can leave an empty file. Then it copies it byte by byte over ``checkpoint_last.pt`` and
    ``checkpoint_best.pt``: a run that is killed meanwhile would resume from half a file. Files that are not on a local
    disk are copied as before.
    """
    if not isinstance(PathManager.copy, _CopyWhole):
        PathManager.copy = staticmethod(_CopyWhole(PathManager.copy))
        PathManager.rename = staticmethod(rename_whole)


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
        rename_whole(str(partial), target)
    finally:
        partial.unlink(missing_ok=True)
    return True


def rename_whole(original: str, target: str) -> None:
    """Renames a file once its content is on the disk; fairseq does so only with files on a local disk.

    Raises:
        OSError: it cannot be renamed.
    """
    flush(Path(original))
    Path(original).replace(target)
    flush(Path(target).absolute().parent)
