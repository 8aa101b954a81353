"""Repairs for stock fairseq on today's Python and torch, one function each.

Each docstring says what the function repairs and on which versions. On Python 3.10 with torch before 2.6, only the
warnings are silenced. This file imports nothing from the package, because ``startup.py`` loads it by its path.

What torch may read from a checkpoint is allowed here, and what this package may read in ``checkpoints/safe_pickle.py``.
"""

# Imports in functions: torch, NumPy and fairseq are only being loaded when this file is.

from __future__ import annotations

import dataclasses
import functools
import pickle
import re
import sys
import warnings
from typing import Any

REPAIRED_NAMESPACES = frozenset({"fairseq", "hydra"})
"""Top-level packages whose dataclasses use dataclass instances as defaults (hydra only up to 1.0)."""


def before_import() -> None:
    """Applies the repairs that fairseq needs before its modules run."""
    silence_deprecations()
    if sys.version_info >= (3, 11):
        hash_fairseq_dataclasses()


def after_import() -> None:
    """Applies the repairs that fairseq needs later, when it reads checkpoints."""
    if torch_checks_pickles():
        allow_checkpoint_types()
        allow_numpy_arrays()
        allow_broadcast_types()


def hash_fairseq_dataclasses() -> None:
    """Makes fairseq's dataclasses hashable when they are created.

    Repairs: "ValueError: mutable default … is not allowed: use default_factory", which Python 3.11 and later raise for
    fairseq's configuration classes, in fairseq and in plugins that derive from them. Python considers every unhashable
    default mutable. Turning the defaults into factories would break fairseq's ``hydra_init``, which reads
    ``field.default``. All other dataclasses stay unchanged.

    Condition: Python 3.11 and later.
    """
    original = dataclasses.dataclass
    if getattr(original, "repairs_fairseq", False):
        return

    @functools.wraps(original)
    def dataclass(cls: Any = None, /, **options: Any) -> Any:
        if cls is None:
            return lambda cls: _with_identity_hash(original(cls, **options))
        return _with_identity_hash(original(cls, **options))

    vars(dataclass)["repairs_fairseq"] = True
    vars(dataclasses)["dataclass"] = dataclass


def _with_identity_hash(cls: type) -> type:
    if cls.__hash__ is None and any(base.__module__.partition(".")[0] in REPAIRED_NAMESPACES for base in cls.__mro__):
        cls.__hash__ = object.__hash__
    return cls


def silence_deprecations() -> None:
    """Silences the warnings of hydra and torch about interfaces that fairseq still uses.

    Repairs: about twenty lines of warnings before the output of every command, which a user can do nothing about.

    Condition: always; hydra 1.1 and later and torch 2.4 and later give these warnings.
    """
    for message in (
        r"hydra\.experimental\.(initialize|compose)\(\) is no longer experimental",
        r"\s*The version_base parameter is not specified",
        r"In 'config': Usage of deprecated keyword in package header",
        r"\s*'config' is validated against ConfigStore schema",
        r"\s*The strict flag in the compose API is deprecated",
        r"`torch\.cuda\.amp\.\w+\(args\.\.\.\)` is deprecated",
    ):
        warnings.filterwarnings("ignore", message=message)


def torch_checks_pickles() -> bool:
    """Whether ``torch.load`` by default refuses classes that were not declared safe (torch 2.6 and later)."""
    import torch

    major, minor = (int(part) for part in torch.__version__.split(".")[:2])
    return (major, minor) >= (2, 6)


def allow_checkpoint_types() -> None:
    """Declares the one class safe that fairseq's checkpoints contain besides tensors and plain values.

    Repairs: "Weights only load failed … Unsupported global: argparse.Namespace" for every checkpoint. The check stays
    on: a pickle that calls anything else is refused.

    Condition: torch 2.6 and later.
    """
    import argparse

    import torch

    torch.serialization.add_safe_globals([argparse.Namespace])


def allow_numpy_arrays() -> None:
    """Declares NumPy arrays of numbers safe, which some of fairseq's scores leave in a checkpoint.

    Repairs: the same error for ``numpy…_reconstruct``, in a checkpoint written with ``--eval-bleu``, whose n-gram
    counts are arrays. Arrays of Python objects are still refused.

    Condition: torch 2.6 and later.
    """
    import numpy
    import torch

    # NumPy trusts pickles: when called, the array type can read bytes as addresses of objects, and so can a number type
    # whose state declares a field of objects. So a checkpoint gets safe substitutes under these names.
    class Numbers(numpy.ndarray):
        """An array that accepts only numbers; it is saved as a plain array."""

        def __setstate__(self, state: tuple) -> None:
            version, shape, dtype, fortran, content = state
            if type(dtype) is not NumberType or type(content) is not bytes or any(size < 0 for size in shape):
                raise pickle.UnpicklingError("a NumPy array does not hold numbers")
            super().__setstate__((version, shape, numpy.dtype(dtype.order + dtype.code), fortran, content))

        def __reduce__(self) -> Any:
            return self.view(numpy.ndarray).__reduce__()

    def empty_array(array_type: type, shape: tuple[int, ...], code: object) -> Numbers:
        return numpy.empty(0).view(Numbers)

    torch.serialization.add_safe_globals(
        [
            # The function that creates an array to be filled later has different names in NumPy 1 and NumPy 2.
            (empty_array, "numpy.core.multiarray._reconstruct"),
            (empty_array, "numpy._core.multiarray._reconstruct"),
            (_ArrayType, "numpy.ndarray"),
            (NumberType, "numpy.dtype"),
            (Numbers, "Numbers"),  # allows filling it; a pickle cannot request a name without a module
        ]
    )


class _ArrayType:
    """Replaces ``numpy.ndarray`` in a checkpoint: it can be passed on, but not called."""


class NumberType:
    """Replaces ``numpy.dtype`` in a checkpoint; a dtype of objects would take bytes of the file for their addresses."""

    def __init__(self, code: str, *rest: object) -> None:
        if not re.fullmatch(r"[biufc][0-9]{1,2}", code):
            raise pickle.UnpicklingError(f"a NumPy array of type {code[:20]!r} does not hold numbers")
        self.code = code
        self.order = "="

    def __setstate__(self, state: tuple) -> None:
        # The version, the byte order, then no fields, no names, the default size and alignment, and no flags.
        if state[1] not in ("<", ">", "|") or state[2:] != (None, None, None, -1, -1, 0):
            raise pickle.UnpicklingError("the type of a NumPy array does not hold numbers")
        self.order = state[1]


def allow_broadcast_types() -> None:
    """Declares the classes safe that fairseq sends between processes when a checkpoint is loaded.

    Repairs: the same error when a training with several processes resumes. The first process reads the checkpoint and
    broadcasts it through ``torch.load``, with the configuration as omegaconf objects and tensors as placeholders.

    Condition: torch 2.6 and later.
    """
    import collections
    import typing

    import torch
    from fairseq.distributed import utils as distributed_utils
    from omegaconf import DictConfig, ListConfig
    from omegaconf.base import ContainerMetadata, Metadata
    from omegaconf.nodes import AnyNode

    omegaconf_types = [DictConfig, ListConfig, ContainerMetadata, Metadata, AnyNode]
    plain_types = [typing.Any, collections.defaultdict, dict, list, int]
    torch.serialization.add_safe_globals([*omegaconf_types, *plain_types, distributed_utils._TensorPlaceholder])
