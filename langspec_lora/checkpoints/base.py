"""Checkpoints without their base: what stands in its place, and how the base is found again.

Training with ``--save-adapters-only`` leaves the frozen base out of every checkpoint. In its place stands its
fingerprint, an entry of the model's state, and where it lay, the argument ``base_checkpoint``.
"""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from langspec_lora.adapters.entries import BASE, base_of, is_adapter_entry
from langspec_lora.checkpoints.fingerprint import base_fingerprint, check_same_base
from langspec_lora.checkpoints.loading import load_entries
from langspec_lora.checkpoints.outline import Outline, read_outline
from langspec_lora.errors import UserError


def stated_base(state: Mapping[str, Tensor]) -> str | None:
    """The fingerprint of the base that a checkpoint was saved without, or None where it holds its base.

    Raises:
        UserError: it is damaged.
    """
    if BASE not in state:
        return None
    try:
        fingerprint = bytes(state[BASE].flatten().tolist()).decode("ascii")
        if not fingerprint.startswith("sha256:"):
            raise ValueError("it is no fingerprint")
        return fingerprint
    except (TypeError, ValueError) as error:
        raise UserError(f"the checkpoint's {BASE} is damaged ({error}); take the file from its source again") from error


def base_entry(fingerprint: str) -> dict[str, Tensor]:
    """What stands in place of the base."""
    # Whole numbers, so that averaging checkpoints leaves them as they are.
    return {BASE: torch.tensor(list(fingerprint.encode("ascii")))}


def without_base(state: Mapping[str, Tensor], fingerprint: str) -> dict[str, Tensor]:
    """The adapters' entries of a model's state, and its base's fingerprint in place of the base."""
    return {**{name: value for name, value in state.items() if is_adapter_entry(name)}, **base_entry(fingerprint)}


class BaseFile:
    """A file of the base that checkpoints are saved without.

    Args:
        path: the file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._seen = self._look()

    def has_changed(self) -> bool:
        """Whether it has been removed or written to since."""
        return self._look() != self._seen

    def _look(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self.path)  # noqa: PTH116  not Path, to which some errors are none
        except OSError:
            return None
        return found.st_size, found.st_mtime_ns


def fill_base(state: dict[str, Any], base_checkpoint: str | None, source: str = "the checkpoint") -> None:
    """Adds the base to the state of a checkpoint that was saved without it, in place.

    Args:
        state: the model's entries.
        base_checkpoint: where the base lies.
        source: how to call the checkpoint in a message.

    Raises:
        UserError: the base is not there, damaged, hostile, or another one.
    """
    stated = stated_base(state)
    if stated is None:
        return
    path = _existing(base_checkpoint, source)
    base = load_entries(path)
    if BASE in base:
        raise UserError(f"{path} holds adapters only, and so cannot be the base of {source}; give the base model")
    check_same_base(base_fingerprint(base), stated, f"checkpoint {path}", source)
    del state[BASE]
    state.update(base_of(base))


def outline_with_base(outline: Outline, base_checkpoint: str | None = None) -> Outline:
    """The outline of a checkpoint together with that of its base, where it was saved without.

    Args:
        outline: of the checkpoint.
        base_checkpoint: where the base lies, in place of what the checkpoint says.

    Raises:
        UserError: the base is not there, damaged or hostile.
    """
    if BASE not in outline.shapes:
        return outline
    path = _existing(base_checkpoint or stored_base_path(outline.model_args), f"checkpoint {outline.path}")
    base = read_outline(path)
    return replace(outline, shapes={**base_of(base.shapes), **outline.shapes})


def stored_base_path(args: Namespace | None) -> str | None:
    """Where the base lay when a checkpoint was saved without it."""
    path = getattr(args, "base_checkpoint", None)
    return path if isinstance(path, str) else None


def _existing(path: str | None, source: str) -> Path:
    if not path or not os.path.isfile(path):  # noqa: PTH113  Path.is_file raises where a folder may not be entered
        raise UserError(
            f"{source} holds adapters only, and its base{f' {path}' if path else ''} is not there; give the model that "
            "the training started from as --base-checkpoint"
        )
    return Path(path)
