"""The parts of a stored model: of a checkpoint, with its base or without it, or of an adapter folder."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from langspec_lora.adapters.adapter_folder import AdapterFile, read_adapter_file
from langspec_lora.adapters.checks import check_adapters_are_whole, check_agreement, check_shapes, check_values
from langspec_lora.adapters.entries import MANIFEST, adapter_shapes, base_of, is_adapter_entry, read_scaling
from langspec_lora.adapters.packed import Adapters, adapters_of
from langspec_lora.checkpoints.arguments import model_settings, stored_config
from langspec_lora.checkpoints.assembly import adapted_checkpoint
from langspec_lora.checkpoints.base_location import found_base, stored_base_path
from langspec_lora.checkpoints.fingerprint import base_fingerprint
from langspec_lora.checkpoints.left_out_base import base_entry, fill_base, stated_base
from langspec_lora.checkpoints.loading import load_checkpoint, model_arguments, model_entries
from langspec_lora.checkpoints.zip_records import check_sums
from langspec_lora.errors import UserError
from langspec_lora.tensor_files import write_checkpoint


class StoredModel:
    """What a checkpoint or an adapter folder holds; each part is read and checked when it is first used.

    Args:
        path: a fairseq checkpoint, with or without adapters, or an adapter folder or its ``adapter.safetensors``.
        base_checkpoint: path of the base of a checkpoint that was saved without it; None for the path it stores.

    Raises:
        UserError: the file is missing, damaged or hostile.
    """

    def __init__(self, path: str | Path, base_checkpoint: str | Path | None = None) -> None:
        self.path = Path(path)
        self._base_checkpoint = base_checkpoint
        self._folder: AdapterFile | None = None
        self._state: dict[str, Any] = {"model": {}}
        # Not Path.is_dir, which raises for folders that may not be entered.
        if os.path.isdir(self.path) or self.path.suffix == ".safetensors":  # noqa: PTH112
            self._folder = read_adapter_file(path)
        else:
            self._state = load_checkpoint(path)

    @classmethod
    def with_adapters(cls, path: str | Path, base_checkpoint: str | Path | None = None) -> StoredModel:
        """A stored model whose adapters are read and checked at once.

        Raises:
            UserError: as the constructor and :attr:`adapters`.
        """
        stored = cls(path, base_checkpoint)
        _ = stored.adapters
        return stored

    def __str__(self) -> str:
        return f"{'adapter' if self._folder else 'checkpoint'} {self.path}"

    @cached_property
    def entries(self) -> dict[str, Tensor]:
        """The tensors of the checkpoint's model, as stored, by fairseq's names."""
        return model_entries(self._state)

    @cached_property
    def args(self) -> Namespace:
        """The arguments that the checkpoint's model was built from.

        Raises:
            UserError: this is an adapter folder, or the checkpoint holds no arguments.
        """
        if self._folder:
            raise self._lacks_base()
        return model_arguments(self._state, self.path)

    @property
    def has_adapters(self) -> bool:
        """Whether there are adapters."""
        return self._folder is not None or any(map(is_adapter_entry, self.entries))

    @cached_property
    def adapters(self) -> Adapters:
        """The adapters.

        Raises:
            UserError: there are none, some are missing, or they are not those of the checkpoint's arguments.
        """
        return self._folder.adapters if self._folder else checked_adapters(self.entries, self.args, str(self))

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """The settings that the model depends on besides its adapters; see :class:`.AdapterFile`."""
        return self._folder.settings if self._folder else model_settings(self.args)

    @property
    def is_checkpoint(self) -> bool:
        """Whether this is a checkpoint rather than an adapter folder."""
        return self._folder is None

    @property
    def holds_base(self) -> bool:
        """Whether the base model is in the file itself."""
        return self.is_checkpoint and stated_base(self.entries) is None

    @property
    def base_path(self) -> str | None:
        """The path of a base that is not in the file; None if it is not known."""
        if self._base_checkpoint:
            return str(self._base_checkpoint)
        return None if self._folder else stored_base_path(self.args)

    def check_base_is_found(self) -> None:
        """Makes sure that there is a base to read, which takes long; it is not read.

        Raises:
            UserError: this is an adapter folder, or a base that is not in the file was not found.
        """
        if self._folder:
            raise self._lacks_base()
        if not self.holds_base:
            found_base(self.base_path, str(self))

    @cached_property
    def base(self) -> dict[str, Tensor]:
        """Entries of the base model, without the copies of weights that fairseq 0.12.2's encoder layers keep.

        Raises:
            UserError: the base is not found, is damaged, or is not the one the adapters were trained on.
        """
        if self._folder:
            raise self._lacks_base()
        tensors = dict(self.entries)
        if self.holds_base:
            check_sums(self.path)
        else:
            fill_base(tensors, self.base_path, str(self))
        return base_of(tensors)

    @cached_property
    def fingerprint(self) -> str:
        """The fingerprint of the base model."""
        stated = self._folder.base if self._folder else stated_base(self.entries)
        return stated or base_fingerprint(self.base)

    def has_fingerprint(self, fingerprint: str) -> bool:
        """Whether the base model has this fingerprint, or has it once rounded to half precision.

        Training with ``--fp16`` rounds the base that it starts from.
        """
        if self.fingerprint == fingerprint:
            return True
        readable = self.is_checkpoint and (self.holds_base or os.path.isfile(self.base_path or ""))  # noqa: PTH113
        halves = (torch.float16, torch.bfloat16)
        return readable and any(base_fingerprint(self.base, rounded) == fingerprint for rounded in halves)

    def write(self, adapters: Adapters, out: Path) -> None:
        """Writes a checkpoint of other adapters on the same base, with or without the base in it as in this one.

        Raises:
            UserError: this is an adapter folder, or the file cannot be written.
        """
        if self._folder:
            raise self._lacks_base()
        args, base, base_path = self.args, self.base, self.base_path  # the base is checked even if it is not written
        if not self.holds_base and base_path is not None:
            base = base_entry(self.fingerprint)
            args = Namespace(**{**vars(args), "base_checkpoint": str(Path(base_path).resolve())})
        write_checkpoint(adapted_checkpoint(base, args, adapters, self.settings), out)

    def _lacks_base(self) -> UserError:
        return UserError(
            f"{self} holds no base model; make it a checkpoint with "
            f"'langspec-lora import {self.path} --from adapter --base …'"
        )


def checked_adapters(state: Mapping[str, Tensor], args: Namespace, label: str) -> Adapters:
    """The adapters in a model's state, checked against its arguments.

    Args:
        state: the model's entries by name.
        args: the arguments that the model was built from.
        label: the checkpoint, for messages.

    Raises:
        UserError: there are no adapters, some are missing, they are not those of the arguments, or a number is wrong.
    """
    found = {name: value for name, value in state.items() if is_adapter_entry(name)}
    if not found:
        raise UserError(f"{label} holds no adapters; give one that was trained with them")
    config = stored_config(args, label)
    shapes, expected = {name: tuple(value.shape) for name, value in found.items()}, adapter_shapes(args, config)
    check_adapters_are_whole(shapes, expected, label)
    check_shapes(shapes, expected, label)
    check_values(found, label)
    check_agreement(found[MANIFEST], config.languages, label)
    if (held := read_scaling(found)) != config.scaling:
        raise UserError(
            f"{label} is damaged: its adapters were trained with {held or 'no scaling'}, but its training with "
            f"{config.scaling or 'none'}; download the file again"
        )
    return adapters_of(found, config)
