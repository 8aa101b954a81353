"""Adapters together with where they came from: a checkpoint with its base, or an adapter folder without."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from langspec_lora.checkpoints.adapter_file import read_adapter_file
from langspec_lora.checkpoints.adapters import Adapters, adapters_of, base_of
from langspec_lora.checkpoints.assembly import adapted_checkpoint, model_settings
from langspec_lora.checkpoints.fingerprint import base_fingerprint
from langspec_lora.checkpoints.loading import arguments, entries, load_checkpoint
from langspec_lora.checkpoints.writing import write_checkpoint
from langspec_lora.errors import UserError


@dataclass(frozen=True)
class AdapterSource:
    """Adapters and what they stand on.

    Attributes:
        path: the checkpoint or the adapter folder.
        adapters: its adapters.
        settings: flags of the training that the model depends on beside its pairs.
        base: entries of the base model, or None for an adapter folder.
        args: the arguments of the training, or None for an adapter folder.
        stated: the base's fingerprint, where the file states it.
    """

    path: Path
    adapters: Adapters
    settings: Mapping[str, Any]
    base: Mapping[str, Tensor] | None = None
    args: Namespace | None = None
    stated: str | None = None

    @classmethod
    def read(cls, path: Path) -> AdapterSource:
        """Reads a checkpoint with adapters, or an adapter folder.

        Raises:
            UserError: it is missing, damaged, hostile, or holds no adapters.
        """
        if path.is_dir() or path.suffix == ".safetensors":
            content = read_adapter_file(path)
            return cls(path, content.adapters, content.settings, stated=content.base)
        state = load_checkpoint(path)
        args = arguments(state, path)
        tensors = entries(state)
        adapters = adapters_of(tensors, args, f"checkpoint {path}")
        return cls(path, adapters, model_settings(args), base_of(tensors), args)

    @cached_property
    def fingerprint(self) -> str:
        """The fingerprint of the base model."""
        return self.stated or base_fingerprint(self.base)

    def write(self, adapters: Adapters, out: Path) -> None:
        """Writes a checkpoint of other adapters on the same base.

        Raises:
            UserError: this is an adapter folder, or the file cannot be written.
        """
        if self.base is None:
            raise UserError(
                f"{self.path} holds no base model; make a checkpoint of it with 'langspec-lora import --from adapter'"
            )
        write_checkpoint(adapted_checkpoint(self.base, self.args, adapters, self.settings), out)
