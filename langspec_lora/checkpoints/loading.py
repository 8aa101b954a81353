"""Loads checkpoints with torch, after their outline has shown that they can run no code."""

from __future__ import annotations

import inspect
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from langspec_lora.checkpoints.outline import read_outline
from langspec_lora.checkpoints.zip_records import check_sums
from langspec_lora.errors import UserError

_CAN_MAP = "mmap" in inspect.signature(torch.load).parameters  # from torch 2.1 on


def is_mapped(path: str | Path) -> bool:
    """Whether :func:`load_checkpoint` reads a file only as far as it is used: one in torch's current format."""
    with Path(path).open("rb") as file:
        return _CAN_MAP and file.read(4) == b"PK\x03\x04"


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Loads a fairseq checkpoint on the CPU; a file in torch's current format is read only as far as it is used.

    Whoever uses more of it than arguments and adapters calls :func:`~langspec_lora.checkpoints.zip_records.check_sums`.

    Args:
        path: the file.

    Returns:
        What fairseq saved: ``model``, ``args`` or ``cfg``, and the state of the training.

    Raises:
        UserError: the file is missing, damaged or hostile, or is not a fairseq checkpoint.
    """
    read_outline(path)
    options = {"mmap": True} if is_mapped(path) else {}
    try:
        # read_outline has refused every name that torch.load could run, which torch itself does only from 2.6 on.
        return torch.load(path, map_location="cpu", weights_only=False, **options)
    except Exception as error:  # a damaged file can raise anything
        raise UserError(f"checkpoint {path} is damaged ({type(error).__name__}); download it again") from error


def model_arguments(state: dict[str, Any], path: str | Path) -> Namespace:
    """A copy of the arguments that a checkpoint's model was built from.

    Args:
        state: what :func:`load_checkpoint` returned.
        path: the file, for messages.

    Raises:
        UserError: the checkpoint holds no arguments.
    """
    settings = state.get("cfg")
    for found in (state.get("args"), settings.get("model") if isinstance(settings, dict) else None):
        if isinstance(found, Namespace):
            return Namespace(**vars(found))
    raise UserError(f"checkpoint {path} holds no training arguments; give a file written by fairseq-train")


def load_entries(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint's model, by name, after the checksums of the whole file were compared.

    Raises:
        UserError: the file is missing, damaged or hostile, or is not a fairseq checkpoint.
    """
    state = load_checkpoint(path)
    check_sums(path)
    return model_entries(state)


def model_entries(state: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of a checkpoint's model, by name."""
    return {name: value for name, value in state["model"].items() if isinstance(value, Tensor)}
