"""Writing torch and safetensors files, with the operating system's errors."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from langspec_lora.files import whole_files
from langspec_lora.partial_files import partial_path


def write_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Writes a torch file completely or not at all.

    Raises:
        UserError: it cannot be written.
    """
    with whole_files(path) as (partial,):
        try:
            torch.save(state, partial)
        except RuntimeError as error:  # torch hides the system's error
            raise OSError(None, " ".join(str(error).split())[:200]) from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file with the permissions of other new files.

    Raises:
        OSError: it cannot be written.
    """
    path.touch()
    mode = path.stat().st_mode  # safetensors would make it readable only to its owner
    content = {name: value.contiguous() for name, value in tensors.items()}
    folder = partial_path(path)  # safetensors writes a temporary file of its own, which a kill would leave
    folder.mkdir()
    try:
        save_file(content, str(folder / path.name), {"format": "pt", **(metadata or {})})
        (folder / path.name).replace(path)
    except SafetensorError as error:  # it wraps the system's error
        raise OSError(None, str(error)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    path.chmod(mode)
