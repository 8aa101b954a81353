"""What a checkpoint file holds, read without running anything in it and without reading its tensors.

torch's checkpoints are pickles, and a pickle can name any function to run. fairseq loads them with whatever protection
its own version and torch's offer: none at all in torch before 2.6 or fairseq's main. So every file is first read by
:func:`read_layout`, whose unpickler knows tensors, containers and fairseq's arguments and refuses all else.
"""

from __future__ import annotations

import pickle
import zipfile
from argparse import Namespace
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from langspec_lora.errors import UserError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # torch/serialization.py, files written before torch 1.6


class TensorStub:
    """Stands for a tensor of the file.

    Attributes:
        shape: its shape.
    """

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self.shape = tuple(shape)

    def __repr__(self) -> str:
        return f"TensorStub{self.shape}"


class _Opaque:
    """Stands for an object that is harmless and of no interest: a dtype, a storage type, an omegaconf node."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _rebuild_tensor(storage: Any, offset: int, size: tuple[int, ...], *rest: Any) -> TensorStub:
    return TensorStub(size)


def _rebuild_parameter(data: TensorStub, *rest: Any) -> TensorStub:
    return data


def _opaque(*args: Any, **kwargs: Any) -> _Opaque:
    return _Opaque()


_HARMLESS: Mapping[tuple[str, str], Any] = {
    ("argparse", "Namespace"): Namespace,
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): defaultdict,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch", "Size"): tuple,
    ("torch", "device"): _opaque,
    ("torch.serialization", "_get_layout"): _opaque,
    ("numpy.core.multiarray", "scalar"): _opaque,
    ("numpy._core.multiarray", "scalar"): _opaque,
    ("numpy", "dtype"): _opaque,
    ("typing", "Any"): _Opaque,
    ("_codecs", "encode"): _opaque,
    **{("builtins", kind.__name__): kind for kind in (dict, list, tuple, set, int, float, complex, bytearray)},
    **{("__builtin__", kind.__name__): kind for kind in (dict, list, set, int, float)},
}


class _LayoutUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _HARMLESS:
            return _HARMLESS[module, name]
        if module == "torch" and (
            name.endswith("Storage") or name.startswith(("float", "int", "uint", "bfloat", "bool"))
        ):
            return _opaque
        if module in ("torch.storage", "torch.cuda") and name.endswith("Storage"):
            return _opaque
        if module.startswith("omegaconf.") and name.isidentifier():
            return _Opaque  # fairseq's settings; nothing of omegaconf is imported or run
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no checkpoint needs")

    def persistent_load(self, pid: Any) -> _Opaque:
        return _Opaque()


@dataclass(frozen=True)
class CheckpointLayout:
    """The outline of a fairseq checkpoint.

    Attributes:
        path: the file.
        shapes: shape of every entry of the model's state, by its name.
        model_args: the arguments the model was built from, or None where the file holds no legacy arguments.
        epoch: the training epoch that the file was saved in, or None where it tells none.
    """

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    model_args: Namespace | None
    epoch: int | None


def read_layout(path: str | Path) -> CheckpointLayout:
    """Reads the outline of a checkpoint.

    Args:
        path: a file written by ``torch.save``, in its present or its old (before torch 1.6) format.

    Returns:
        Names and shapes of the model's state and the arguments it was built from.

    Raises:
        UserError: the file is missing, damaged, no fairseq checkpoint, or names functions that no checkpoint needs.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            # Told apart by the first bytes, as torch does: a file that is both would else be checked as one and loaded
            # as the other.
            state = _read_zip(file) if file.read(4) == b"PK\x03\x04" else _read_legacy(file)
    except FileNotFoundError:
        raise UserError(f"checkpoint {path} does not exist; check the path") from None
    except OSError as error:
        raise UserError(f"checkpoint {path} cannot be read: {error.strerror}") from error
    except pickle.UnpicklingError as error:
        raise UserError(
            f"checkpoint {path} was refused: {error}; it is damaged or hostile, take it from its source again"
        ) from error
    except Exception as error:  # a damaged pickle can raise anything
        raise UserError(
            f"checkpoint {path} is damaged or no checkpoint ({type(error).__name__}); take it from its source again"
        ) from error
    if not isinstance(state, dict) or not isinstance(state.get("model"), dict):
        raise UserError(f"checkpoint {path} is not fairseq's: it holds no model; give a file written by fairseq-train")
    shapes = {name: value.shape for name, value in state["model"].items() if isinstance(value, TensorStub)}
    return CheckpointLayout(path, shapes, _model_args(state), _epoch(state))


def _read_zip(file: BinaryIO) -> Any:
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if name.endswith("data.pkl") and name.count("/") == 1]
        if len(names) != 1:
            raise ValueError("no data.pkl")
        with archive.open(names[0]) as pickled:
            return _LayoutUnpickler(pickled).load()


def _read_legacy(file: BinaryIO) -> Any:
    file.seek(0)
    if _LayoutUnpickler(file).load() != _LEGACY_MAGIC:
        raise ValueError("no magic number")
    _LayoutUnpickler(file).load()  # protocol version
    _LayoutUnpickler(file).load()  # byte order and sizes of the system that wrote it
    return _LayoutUnpickler(file).load()


def _model_args(state: dict) -> Namespace | None:
    if isinstance(state.get("args"), Namespace):
        return state["args"]
    settings = state.get("cfg")
    model = settings.get("model") if isinstance(settings, dict) else None
    return model if isinstance(model, Namespace) else None


def _epoch(state: dict) -> int | None:
    extra = state.get("extra_state")
    iterator = extra.get("train_iterator") if isinstance(extra, dict) else None
    epoch = iterator.get("epoch") if isinstance(iterator, dict) else None
    return epoch if isinstance(epoch, int) else None
