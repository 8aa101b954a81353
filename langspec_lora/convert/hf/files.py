"""Files of Hugging Face's folders: read without running anything in them, written whole or not at all."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from langspec_lora.checkpoints.outline import read_pickle
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


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        UserError: the file is missing, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path.parent} has no {path.name}; give a folder that transformers or PEFT wrote") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # ValueError: neither UTF-8 nor JSON
        raise UserError(f"{path} is damaged: it is no JSON; take it from its source again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: expected a JSON object; take it from its source again")
    return content


def read_tensors(folder: Path, *stems: str) -> dict[str, Tensor]:
    """Reads the weights of a folder: safetensors first, then torch's files; whole, or in several parts.

    Args:
        folder: the folder.
        stems: names of the files before ``.safetensors`` and ``.bin``, in the order in which they are looked for.

    Returns:
        The tensors by Hugging Face's names, on the CPU.

    Raises:
        UserError: there are none, or a file is damaged or hostile.
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
    files = read_json(index).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise UserError(f"{index} is damaged: it has no weight_map; take it from its source again")
    tensors: dict[str, Tensor] = {}
    for file in dict.fromkeys(files.values()):
        if Path(file).name != file:
            raise UserError(f"{index} was refused: it names a file outside of its folder, {file[:80]!r}")
        tensors.update(_read_file(index.parent / file))
    missing = sorted(set(files) - set(tensors))
    if missing:
        raise UserError(f"{index} names {missing[0]}, which its files lack; take them from their source again")
    return tensors


def _read_file(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except FileNotFoundError:
            raise UserError(f"{path} is missing; take it from its source again") from None
        except Exception as error:  # SafetensorError, and whatever else a cut-off file leads to
            raise UserError(f"{path} is damaged ({type(error).__name__}); take it from its source again") from error
    read_pickle(path)  # refuses whatever is more than tensors, on any torch
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a cut-off file can raise anything
        raise UserError(f"{path} is damaged ({type(error).__name__}); take it from its source again") from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path} holds more than weights; give the file that transformers or PEFT wrote")
    return dict(content)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file, for reading by people too."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
