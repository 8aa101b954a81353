"""Torch and safetensors files, written so that the system's errors are seen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from langspec_lora.files import whole_files


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
