"""What fairseq-train does when it saves, made safe against a kill."""

from __future__ import annotations

import shutil
from pathlib import Path

from fairseq.file_io import PathManager


def copy_checkpoints_whole() -> None:
    """Replaces the copying of ``fairseq.checkpoint_utils.save_checkpoint`` for the rest of the process.

    fairseq writes ``checkpoint15.pt`` under another name and renames it, but then copies it byte by byte over
    ``checkpoint_last.pt`` and ``checkpoint_best.pt``: whoever is killed then resumes from half a file. Files that are
    not on a local disk are copied as before.
    """
    if getattr(PathManager.copy, "is_whole", False):
        return
    stock = PathManager.copy

    def copy(src_path: str, dst_path: str, overwrite: bool = False) -> bool:
        copies = stock if "://" in src_path + dst_path else copy_whole
        return copies(src_path, dst_path, overwrite=overwrite)

    copy.is_whole = True
    PathManager.copy = staticmethod(copy)


def copy_whole(source: str, target: str, overwrite: bool = False) -> bool:
    """Copies a file so that a kill leaves the target as it was, or whole.

    Args:
        source: the file.
        target: where the copy goes.
        overwrite: whether it may replace a file there.

    Raises:
        FileExistsError: there is one, and ``overwrite`` was not given.
        OSError: it cannot be written.
    """
    if not overwrite and Path(target).exists():
        raise FileExistsError(target)
    partial = Path(f"{target}.tmp")  # as fairseq calls what it is writing
    shutil.copyfile(source, partial)
    partial.replace(target)
    return True
