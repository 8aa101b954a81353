"""Large files written whole or not at all, and never over what is there unless told to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from langspec_lora.errors import UserError


def check_free(path: Path, overwrite: bool) -> None:
    """Makes sure that a file may be written, before the work that leads to it begins.

    Raises:
        UserError: it is there already, and ``overwrite`` was not given.
    """
    if path.exists() and not overwrite:
        raise UserError(f"{path} is there already; give another --out, or --overwrite to replace it")
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the name of a file")


@contextmanager
def whole_files(*paths: Path) -> Iterator[tuple[Path, ...]]:
    """Gives other names to write under; the files take their own when all are whole and on the disk.

    Args:
        *paths: the files; their folders are made where they are missing.

    Raises:
        UserError: they cannot be written, for example because the disk is full; then nothing of them stays.
    """
    partial = [path.with_name(f".{path.name}.{os.getpid()}.partial") for path in paths]
    try:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
        yield tuple(partial)
        for written in partial:
            with written.open("rb+") as file:
                os.fsync(file.fileno())
        for written, path in zip(partial, paths, strict=True):
            written.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{paths[0]}: {reason}; give an --out that can be written and has room") from error
    finally:
        for written in partial:
            written.unlink(missing_ok=True)


def write_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Writes a torch file whole.

    Raises:
        UserError: it cannot be written.
    """
    with whole_files(path) as (partial,):
        try:
            torch.save(state, partial)
        except RuntimeError as error:  # torch's own writer hides the system's error
            raise OSError(None, " ".join(str(error).split())[:200]) from error
