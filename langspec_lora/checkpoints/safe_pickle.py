"""Reads pickles without running code, and defines which classes and functions a checkpoint may name.

Checkpoints are pickles, and a pickle can name any function to run. How far fairseq is protected depends on its version
and on torch's: not at all before torch 2.6, or on fairseq's main branch. So :func:`read_pickle` reads each file first;
its unpickler accepts tensors, containers and fairseq's arguments, and refuses everything else. A tensor must lie within
its storage, and a storage within its record, so that a small file cannot ask for much memory, or for that of others.
"""

from __future__ import annotations

import io
import math
import pickle
import tarfile
from argparse import Namespace
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from langspec_lora.checkpoints.zip_records import ZipRecords
from langspec_lora.compat.repairs import NumberType
from langspec_lora.errors import UserError

_LEGACY_HEADER = (0x1950A86A20F9469CFC6C, 1001)  # torch/serialization.py, files written before torch 1.6


class TensorStub:
    """Replaces a tensor of the file.

    Attributes:
        shape: the tensor's shape.
        dtype: the name of torch's dtype, such as ``float32``.
        storage: the key of its storage, which names a record of the file; empty if it is not known.
    """

    def __init__(self, shape: tuple[int, ...] = (), dtype: str = "", storage: str = "") -> None:
        self.shape = tuple(shape)
        self.dtype = dtype
        self.storage = storage

    def __repr__(self) -> str:
        return f"TensorStub{self.shape}"


class _Sealed(type):
    """Makes classes that a file cannot change: pickle sets attributes on classes as well as on instances."""

    def __setattr__(cls, name: str, value: Any) -> None:
        raise pickle.UnpicklingError(f"it changes the class {cls.__name__}")


class _Arguments(Namespace, metaclass=_Sealed):
    """Replaces ``argparse.Namespace``."""


class _Opaque(metaclass=_Sealed):
    """Replaces objects that are harmless and not needed: a dtype, a node of omegaconf."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _NumberType(NumberType, metaclass=_Sealed):
    """Replaces a numeric NumPy dtype."""


class _Elements(NamedTuple):
    """The type of a storage's elements: the name of torch's dtype, and the size of one in bytes."""

    name: str
    size: int


class _Storage(metaclass=_Sealed):
    """Replaces a storage."""

    def __init__(self, elements: _Elements, key: str, count: int) -> None:
        self.elements, self.key, self.count = elements, key, count


def _rebuild_tensor(
    storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *rest: Any
) -> TensorStub:
    numbers = (offset, *size, *stride)
    if not all(type(number) is int and number >= 0 for number in numbers) or len(size) != len(stride):
        raise pickle.UnpicklingError("a tensor has no valid shape")
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    count = math.prod(size)
    if count > storage.count or (count and last >= storage.count):
        raise pickle.UnpicklingError("a tensor is larger than what is stored of it")
    return TensorStub(size, storage.elements.name, storage.key)


def _rebuild_parameter(data: TensorStub, *rest: Any) -> TensorStub:
    return data


_STORAGES: Mapping[str, _Elements] = {
    "Byte": _Elements("uint8", 1),
    "Char": _Elements("int8", 1),
    "Bool": _Elements("bool", 1),
    "Short": _Elements("int16", 2),
    "Half": _Elements("float16", 2),
    "BFloat16": _Elements("bfloat16", 2),
    "Int": _Elements("int32", 4),
    "Float": _Elements("float32", 4),
    "Long": _Elements("int64", 8),
    "Double": _Elements("float64", 8),
    "ComplexFloat": _Elements("complex64", 8),
    "ComplexDouble": _Elements("complex128", 16),
}


_DTYPES = ("uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64", "bool")


_OMEGACONF = {
    "omegaconf.dictconfig": ("DictConfig",),
    "omegaconf.listconfig": ("ListConfig",),
    "omegaconf.base": ("ContainerMetadata", "Metadata"),
    "omegaconf.nodes": ("AnyNode", "StringNode", "IntegerNode", "FloatNode", "BooleanNode"),
}


_PLAIN = (dict, list, tuple, set, bool, int, float, complex, str, bytearray)


# By full name. A name may have dots, through which a pickle reaches anything: torch's "float.__class__.__base__".
# What torch itself reads (fairseq's own loading) is allowed in ``compat/repairs.py``.
_ALLOWED: Mapping[tuple[str, str], Any] = {
    ("argparse", "Namespace"): _Arguments,
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): defaultdict,
    ("collections", "Counter"): dict,  # of n-grams, if validation reports BLEU
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch", "Size"): tuple,
    ("torch", "device"): _Opaque,
    ("torch.serialization", "_get_layout"): _Opaque,
    **{
        (f"numpy.{core}.multiarray", name): _Opaque for core in ("core", "_core") for name in ("scalar", "_reconstruct")
    },
    ("numpy", "dtype"): _NumberType,
    ("numpy", "ndarray"): None,  # named to _reconstruct, never called
    ("typing", "Any"): _Opaque,
    ("_codecs", "encode"): _Opaque,
    **{("torch", f"{name}Storage"): elements for name, elements in _STORAGES.items()},
    **{("torch", name): _Opaque for name in _DTYPES},
    **{(module, name): _Opaque for module, names in _OMEGACONF.items() for name in names},
    **{(module, plain.__name__): plain for module in ("builtins", "__builtin__") for plain in _PLAIN},
    ("__builtin__", "long"): int,
    ("__builtin__", "unicode"): str,
}


class _OutlineUnpickler(pickle.Unpickler):
    """Reads one pickle of a checkpoint.

    Attributes:
        storages: size in bytes of each storage that the pickle names, by its key.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="utf-8")  # as torch.load does
        self.storages: dict[str, int] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        raise pickle.UnpicklingError(f"it names {f'{module}.{name}'[:80]!r}, which no checkpoint needs")

    def persistent_load(self, pid: Any) -> _Storage:
        # Old files can also refer to a "module", whose source code torch compares and may write to disk.
        referent, elements, key, _, count = pid[:5]
        if referent != "storage":
            raise pickle.UnpicklingError("it refers to something other than a tensor's storage")
        if not isinstance(elements, _Elements) or type(key) is not str or type(count) is not int or count < 0:
            raise pickle.UnpicklingError("a tensor has no valid storage")
        size = elements.size * count
        if self.storages.setdefault(key, size) != size:
            raise pickle.UnpicklingError("it gives one storage two sizes")
        return _Storage(elements, key, count)


def read_pickle(path: Path) -> Any:
    """Reads a file of ``torch.save``, with a :class:`TensorStub` instead of each tensor.

    Raises:
        UserError: the file is missing, damaged, or names functions that no checkpoint needs.
    """
    try:
        with path.open("rb") as file:
            # Decided by the first bytes, as torch does: else a file in both formats would be checked as one and loaded
            # as the other.
            return _read_zip(file) if file.read(4) == b"PK\x03\x04" else _read_legacy(file)
    except FileNotFoundError:
        raise UserError(f"checkpoint {path} does not exist; check the path") from None
    except OSError as error:
        raise UserError(f"checkpoint {path} cannot be read: {error.strerror}") from error
    except pickle.UnpicklingError as error:
        raise UserError(
            f"checkpoint {path} was refused: {error}; it is damaged or hostile, so download it again"
        ) from error
    except Exception as error:  # a damaged pickle can raise anything
        raise UserError(
            f"checkpoint {path} is damaged or not a checkpoint ({type(error).__name__}); download it again"
        ) from error


def _read_zip(file: BinaryIO) -> Any:
    records = ZipRecords(file)
    if "constants.pkl" in records:
        raise pickle.UnpicklingError("it is a TorchScript program")
    unpickler = _OutlineUnpickler(io.BytesIO(records.read("data.pkl")))
    state = unpickler.load()
    for key, size in unpickler.storages.items():
        if records.size(f"data/{key}") < size:
            raise EOFError
    return state


def _read_legacy(file: BinaryIO) -> Any:
    file.seek(0)
    if _is_tar(file):
        raise pickle.UnpicklingError("it is a tar archive, the format of torch 0.1")
    file.seek(0)
    if tuple(_OutlineUnpickler(file).load() for _ in _LEGACY_HEADER) != _LEGACY_HEADER:
        raise ValueError("no magic number")
    _OutlineUnpickler(file).load()  # byte order and sizes of the system that wrote it
    unpickler = _OutlineUnpickler(file)
    state = unpickler.load()
    keys = _OutlineUnpickler(file).load()
    end = file.tell() + sum(8 + unpickler.storages[key] for key in keys)  # each after its number of elements, int64
    if file.seek(0, 2) < end:
        raise EOFError
    return state


def _is_tar(file: BinaryIO) -> bool:
    try:
        with tarfile.open(fileobj=file, mode="r:"):
            return True
    except tarfile.TarError:
        return False
