"""Files written whole or not at all, and never over what is there unless told to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from langspec_lora.errors import UserError


def check_free(path: Path, overwrite: bool) -> None:
    """Makes sure that a file may be written, before the work that leads to it begins.

    Raises:
        UserError: it is there already, and ``overwrite`` was not given, or it cannot be there.
    """
    if os.path.exists(path) and not overwrite:  # noqa: PTH110  Path.exists raises for names that are too long
        raise UserError(f"{path} is there already; give another --out, or --overwrite to replace it")
    if os.path.isdir(path):  # noqa: PTH112
        raise UserError(f"{path} is a folder; give the name of a file")
    check_folder(path.parent)


def check_folder(folder: Path) -> None:
    """Makes sure that a folder is there or can be.

    Raises:
        UserError: there is a file in its place.
    """
    for place in (folder, *folder.parents):
        if os.path.isfile(place):  # noqa: PTH113
            raise UserError(f"--out lies in {place}, which is a file; give another")


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
            with suppress(OSError):
                written.unlink()


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


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file, readable for whom other new files are.

    Raises:
        OSError: it cannot be written.
    """
    path.touch()
    mode = path.stat().st_mode  # safetensors would leave the file to its owner alone
    content = {name: value.contiguous() for name, value in tensors.items()}
    try:
        save_file(content, str(path), {"format": "pt", **(metadata or {})})
    except SafetensorError as error:  # which wraps the system's error in its own text
        raise OSError(None, str(error)) from error
    path.chmod(mode)
