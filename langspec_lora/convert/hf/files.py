"""Files of Hugging Face's folders: JSON and weights, read without running anything in them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from langspec_lora import files
from langspec_lora.checkpoints.safe_pickle import read_pickle
from langspec_lora.checkpoints.zip_records import check_sums
from langspec_lora.errors import UserError


def optional_module(name: str) -> ModuleType:
    """Imports a module of the extra ``hf``.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = name.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise UserError(f'{package} is not installed; get it with pip install "langspec_lora[hf]"') from None


read_json = partial(files.read_json, writer="transformers or PEFT", again="download it again")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file into a folder that becomes visible only when it is complete."""
    path.write_text(f"{files.json_text(content)}\n", encoding="utf-8")


def read_tensors(folder: Path, *stems: str) -> dict[str, Tensor]:
    """Reads the weights of a folder: safetensors first, then torch's files; a single file, or several parts.

    Args:
        folder: the folder.
        stems: file names without ``.safetensors`` and ``.bin``, the preferred one first.

    Returns:
        The tensors by Hugging Face's names, on the CPU.

    Raises:
        UserError: there are no weights, or a file is damaged or hostile.
    """
    for ending in ("safetensors", "bin"):
        for stem in stems:
            whole, index = folder / f"{stem}.{ending}", folder / f"{stem}.{ending}.index.json"
            if whole.is_file():
                return _read_file(whole)
            if index.is_file():
                return _read_parts(index)
    names = " or ".join(f"{stem}.{ending}" for ending in ("safetensors", "bin") for stem in stems)
    raise UserError(f"{folder} has no {names}; give a folder that holds the weights")


def _read_parts(index: Path) -> dict[str, Tensor]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise UserError(f"{index} is damaged: it has no weight_map; download it again")
    tensors: dict[str, Tensor] = {}
    for file in dict.fromkeys(weight_map.values()):
        if "/" in file:
            raise UserError(f"{index} was refused: it names a file outside its folder, {file[:80]!r}")
        tensors.update(_read_file(files.below(index.parent, file)))
    missing = sorted(set(weight_map) - set(tensors))
    if missing:
        raise UserError(f"{index} names {missing[0]}, which is missing from its files; download them again")
    return tensors


def _read_file(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except FileNotFoundError:
            raise UserError(f"{path} is missing; download it again") from None
        except Exception as error:  # SafetensorError, or anything else for a truncated file
            raise UserError(f"{path} is damaged ({type(error).__name__}); download it again") from error
    read_pickle(path)  # refuses anything but tensors, with any torch
    check_sums(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a truncated file can raise anything
        raise UserError(f"{path} is damaged ({type(error).__name__}); download it again") from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path} holds more than weights; give the file that transformers or PEFT wrote")
    return dict(content)
