"""Checkpoints saved without their base: what is left out, what they hold instead, and how the base is added again.

With ``--save-adapters-only``, training leaves the frozen base out of every checkpoint. Instead, a checkpoint holds the
fingerprint of the base, as an entry of the model's state, and its path, as the argument ``base_checkpoint``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from langspec_lora.adapters.entries import BASE, base_of, is_adapter_entry
from langspec_lora.checkpoints.base_location import found_base, stored_base_path
from langspec_lora.checkpoints.fingerprint import base_fingerprint, check_same_base
from langspec_lora.checkpoints.loading import load_entries
from langspec_lora.checkpoints.outline import Outline, read_outline
from langspec_lora.errors import UserError

logger = logging.getLogger(__name__)


def stated_base(state: Mapping[str, Tensor]) -> str | None:
    """The fingerprint of the base that a checkpoint was saved without; None if it holds its base.

    Args:
        state: the model's entries.

    Raises:
        UserError: the fingerprint is damaged.
    """
    if BASE not in state:
        return None
    try:
        fingerprint = bytes(state[BASE].flatten().tolist()).decode("ascii")
        if not fingerprint.startswith("sha256:"):
            raise ValueError("not a fingerprint")
        return fingerprint
    except (TypeError, ValueError) as error:
        raise UserError(f"the checkpoint's {BASE} is damaged ({error}); download the file again") from error


def base_entry(fingerprint: str) -> dict[str, Tensor]:
    """The entry that a state without its base has instead of the base."""
    # Integers, which averaging of checkpoints does not change.
    return {BASE: torch.tensor(list(fingerprint.encode("ascii")))}


def without_base(state: Mapping[str, Tensor], fingerprint: str) -> dict[str, Tensor]:
    """The adapters' entries of a model's state, and the fingerprint of the base instead of the base."""
    return {**{name: value for name, value in state.items() if is_adapter_entry(name)}, **base_entry(fingerprint)}


class BaseFile:
    """The file of a base that is not saved with checkpoints; notices if the file changes during training.

    Args:
        path: the file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._seen = self._look()

    def has_changed(self) -> bool:
        """Whether the file has been removed or written to since this object was made."""
        return self._look() != self._seen

    def _look(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self.path)  # noqa: PTH116  Path hides some errors
        except OSError:
            return None
        return found.st_size, found.st_mtime_ns


def fill_base(state: dict[str, Any], base_checkpoint: str | None, label: str = "the checkpoint") -> None:
    """Adds the base to the state of a checkpoint that was saved without it, in place.

    Args:
        state: the model's entries.
        base_checkpoint: path of the base.
        label: the checkpoint, for messages.

    Raises:
        UserError: the base is not found, is damaged or hostile, or is not the one the adapters were trained on.
    """
    stated = stated_base(state)
    if stated is None:
        return
    path = found_base(base_checkpoint, label)
    base = load_entries(path)
    if BASE in base:
        raise UserError(f"{path} holds adapters only and cannot be the base of {label}; give the base model")
    check_same_base(base_fingerprint(base), stated, f"checkpoint {path}", label)
    del state[BASE]
    state.update(base_of(base))


def outline_with_base(outline: Outline, base_checkpoint: str | None = None) -> Outline:
    """The outline of a checkpoint, completed with that of its base if it was saved without it.

    Args:
        outline: the checkpoint's outline.
        base_checkpoint: path of the base; None for the path that the checkpoint stores.

    Raises:
        UserError: the base is not found, or is damaged or hostile.
    """
    if BASE not in outline.shapes:
        return outline
    path = found_base(base_checkpoint or stored_base_path(outline.model_args), f"checkpoint {outline.path}")
    base = read_outline(path)
    return replace(outline, shapes={**base_of(base.shapes), **outline.shapes})


class SavedBase:
    """Whether a model is saved with its frozen base, or with the fingerprint of the base instead.

    Args:
        path: the file of the base, for checkpoints that are saved without it; None if it is not known.
        left_out: whether the model is saved without the base as long as that file does not change.
    """

    def __init__(self, path: str | None, left_out: bool) -> None:
        self._path = path
        self._file = BaseFile(path) if left_out and path else None
        self._fingerprint: str | None = None

    def fill_in(self, state: dict[str, Any]) -> None:
        """Adds the base to a state that was saved without it, in place, and stores its fingerprint.

        Raises:
            UserError: the base is not found, is damaged or hostile, or is another one.
        """
        stated = stated_base(state)
        fill_base(state, self._path)
        if self._file is not None:
            self._fingerprint = stated or base_fingerprint(state)

    def leave_out(self, state: dict[str, Any]) -> dict[str, Any]:
        """The state to save: without the base, if checkpoints are saved without it."""
        if self._file is None or self._fingerprint is None:
            return state
        if self._file.has_changed():  # a checkpoint without the base could not be completed later
            logger.warning("%s has changed; from now on, checkpoints include the base", self._file.path)
            self._file = None
            return state
        return without_base(state, self._fingerprint)
