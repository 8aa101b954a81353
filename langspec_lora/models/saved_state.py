"""Makes a checkpoint's state fit a model, and decides whether the model is saved with its base."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from langspec_lora.adapters.checks import check_entries, check_languages, check_shapes, check_values
from langspec_lora.adapters.entries import MANIFEST, MATRIX_ENTRY, is_adapter_entry, language_manifest, read_manifest
from langspec_lora.checkpoints.base import BaseFile, fill_base, stated_base, without_base
from langspec_lora.checkpoints.fingerprint import base_fingerprint
from langspec_lora.languages import LanguageTable

logger = logging.getLogger(__name__)


def complete_state(state: dict[str, Tensor], model: Mapping[str, Tensor], languages: LanguageTable | None) -> None:
    """Makes a checkpoint's state fit the model's adapters, in place.

    Args:
        state: the checkpoint's entries; a base checkpoint gets the model's fresh adapters.
        model: the model's entries.
        languages: the model's languages, or None for a model without adapters.

    Raises:
        UserError: the checkpoint holds only part of the adapters, other adapters than the model, or invalid numbers.
    """
    check_values(state)
    fresh = {name: value for name, value in model.items() if is_adapter_entry(name)}
    shapes = {name: tuple(value.shape) for name, value in state.items() if is_adapter_entry(name)}
    if not check_entries(shapes, {name: tuple(value.shape) for name, value in fresh.items()}):
        state.update({name: value.detach().clone() for name, value in fresh.items()})
        return
    assert languages is not None  # a model without adapters takes none
    _sort_by_language(state, languages)
    check_shapes(
        {name: tuple(value.shape) for name, value in state.items()},
        {name: tuple(value.shape) for name, value in fresh.items()},
    )


def _sort_by_language(state: dict[str, Tensor], wanted: LanguageTable) -> None:
    held = read_manifest(state[MANIFEST])
    check_languages(held, wanted)
    state[MANIFEST] = language_manifest(wanted)
    if held.names == wanted.names:
        return
    starts = dict(zip(held.names, torch.tensor((0, *held.ranks)).cumsum(0).tolist(), strict=False))
    rows = [
        row
        for name, rank in zip(wanted.names, wanted.ranks, strict=True)
        for row in range(starts[name], starts[name] + rank)
    ]
    for name in [name for name in state if MATRIX_ENTRY.search(name)]:
        state[name] = state[name][rows]


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
