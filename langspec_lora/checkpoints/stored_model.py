"""A file of adapters taken apart: a checkpoint, with its base in it or elsewhere, or an adapter folder."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from langspec_lora.adapters.checks import check_adapters_are_whole, check_shapes, check_values
from langspec_lora.adapters.entries import adapter_shapes, base_of, is_adapter_entry
from langspec_lora.adapters.file import AdapterFile, read_adapter_file
from langspec_lora.adapters.packed import Adapters, adapters_of
from langspec_lora.checkpoints.arguments import model_settings, stored_config
from langspec_lora.checkpoints.assembly import adapted_checkpoint
from langspec_lora.checkpoints.base import base_entry, fill_base, stated_base, stored_base_path
from langspec_lora.checkpoints.fingerprint import base_fingerprint
from langspec_lora.checkpoints.loading import arguments, entries, load_checkpoint
from langspec_lora.errors import UserError
from langspec_lora.tensor_files import write_checkpoint


class StoredModel:
    """What a checkpoint or an adapter folder holds; each part is taken out, and checked, when it is asked for.

    Args:
        path: a fairseq checkpoint, with adapters or without, or an ``adapter.safetensors`` or its folder.
        base_checkpoint: where the base lies of a checkpoint that was saved without; None for where it says.

    Raises:
        UserError: the file is missing, damaged or hostile.
    """

    def __init__(self, path: str | Path, base_checkpoint: str | Path | None = None) -> None:
        self.path = Path(path)
        self._base_checkpoint = base_checkpoint
        self._folder: AdapterFile | None = None
        self._state: dict[str, Any] = {"model": {}}
        # Not Path.is_dir, which raises where a folder may not be entered.
        if os.path.isdir(self.path) or self.path.suffix == ".safetensors":  # noqa: PTH112
            self._folder = read_adapter_file(path)
        else:
            self._state = load_checkpoint(path)

    def __str__(self) -> str:
        return f"{'adapter' if self._folder else 'checkpoint'} {self.path}"

    @cached_property
    def entries(self) -> dict[str, Tensor]:
        """The tensors of the checkpoint's model, as they lie in the file, by fairseq's names."""
        return entries(self._state)

    @cached_property
    def args(self) -> Namespace:
        """The arguments that the checkpoint's model was built from.

        Raises:
            UserError: there are none, as in an adapter folder.
        """
        if self._folder:
            raise self._lacks_base()
        return arguments(self._state, self.path)

    @property
    def has_adapters(self) -> bool:
        """Whether there are any."""
        return self._folder is not None or any(map(is_adapter_entry, self.entries))

    @cached_property
    def adapters(self) -> Adapters:
        """The adapters.

        Raises:
            UserError: there are none, or only part of them, or others than the checkpoint's arguments say.
        """
        return self._folder.adapters if self._folder else checked_adapters(self.entries, self.args, str(self))

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """Flags of the training that the model depends on beside its adapters; see :class:`.AdapterFile`."""
        return self._folder.settings if self._folder else model_settings(self.args)

    @property
    def is_checkpoint(self) -> bool:
        """Whether it is one, and no adapter folder."""
        return self._folder is None

    @property
    def holds_base(self) -> bool:
        """Whether the base model is in the file itself."""
        return self.is_checkpoint and stated_base(self.entries) is None

    @property
    def base_path(self) -> str | None:
        """Where the base lies that is not in the file, as far as that is known."""
        if self._base_checkpoint:
            return str(self._base_checkpoint)
        return None if self._folder else stored_base_path(self.args)

    @cached_property
    def base(self) -> dict[str, Tensor]:
        """Entries of the base model, without the copies of weights that fairseq 0.12.2's encoder layers keep.

        Raises:
            UserError: it is in no file that is known, or that file holds another one.
        """
        if self._folder:
            raise self._lacks_base()
        tensors = dict(self.entries)
        if not self.holds_base:
            fill_base(tensors, self.base_path, str(self))
        return base_of(tensors)

    @cached_property
    def fingerprint(self) -> str:
        """The fingerprint of the base model."""
        stated = self._folder.base if self._folder else stated_base(self.entries)
        return stated or base_fingerprint(self.base)

    def stands_on(self, fingerprint: str) -> bool:
        """Whether the base model has a fingerprint, or would have it in half precision.

        Training with ``--fp16`` rounds the base that it started from.
        """
        if self.fingerprint == fingerprint:
            return True
        at_hand = self.is_checkpoint and (self.holds_base or os.path.isfile(self.base_path or ""))  # noqa: PTH113
        halves = (torch.float16, torch.bfloat16)
        return at_hand and any(base_fingerprint(self.base, rounded) == fingerprint for rounded in halves)

    def write(self, adapters: Adapters, out: Path) -> None:
        """Writes a checkpoint of other adapters on the same base, with the base in it or without as this one.

        Raises:
            UserError: this is an adapter folder, or the file cannot be written.
        """
        if self._folder:
            raise self._lacks_base()
        args, base = self.args, self.base  # checked, even where it is not written
        if not self.holds_base:
            base = base_entry(self.fingerprint)
            args = Namespace(**{**vars(args), "base_checkpoint": str(Path(self.base_path).resolve())})
        write_checkpoint(adapted_checkpoint(base, args, adapters, self.settings), out)

    def _lacks_base(self) -> UserError:
        return UserError(
            f"{self} holds no base model; make a checkpoint of it with "
            f"'langspec-lora import {self.path} --from adapter --base …'"
        )


def checked_adapters(state: Mapping[str, Tensor], args: Namespace, source: str) -> Adapters:
    """Takes the adapters out of a model's state, and makes sure that they are what its arguments say.

    Args:
        state: the model's entries by name.
        args: the arguments that the model was built from.
        source: how to call the checkpoint in a message.

    Raises:
        UserError: there are no adapters, only part of them, or others than the arguments say, or wrong numbers.
    """
    found = {name: value for name, value in state.items() if is_adapter_entry(name)}
    if not found:
        raise UserError(f"{source} holds no adapters; give one that was trained with them")
    config = stored_config(args, source)
    shapes, expected = {name: tuple(value.shape) for name, value in found.items()}, adapter_shapes(args, config)
    check_adapters_are_whole(shapes, expected, source)
    check_shapes(shapes, expected, source)
    check_values(found, source)
    return adapters_of(found, config)
