"""What stands between stock fairseq and today's Python and torch, one function per repair.

Each repair says what it repairs and under which condition it acts; on Python 3.10 with torch before 2.6 none does but
that of the warnings. This file imports nothing of the package, because ``startup.py`` loads it by its path.
"""

from __future__ import annotations

import dataclasses
import functools
import pickle
import re
import sys
import warnings
from typing import Any

REPAIRED_NAMESPACES = frozenset({"fairseq", "hydra"})
"""Top-level packages whose dataclasses have instances of dataclasses as defaults (hydra's only up to 1.0)."""


def before_import() -> None:
    """Applies what must stand before fairseq's modules run."""
    silence_deprecations()
    if sys.version_info >= (3, 11):
        hash_fairseq_dataclasses()


def after_import() -> None:
    """Applies what fairseq needs later, when it reads checkpoints."""
    if torch_checks_pickles():
        allow_checkpoint_types()
        allow_numpy_arrays()
        allow_broadcast_types()


def hash_fairseq_dataclasses() -> None:
    """Makes fairseq's dataclasses hashable as they are created.

    Repairs: "ValueError: mutable default … is not allowed: use default_factory", with which Python 3.11 and later
    refuse fairseq's configuration classes, in fairseq itself and in plugins that derive from them. The check takes
    every unhashable default for mutable. Rewriting the defaults to factories would break fairseq's ``hydra_init``,
    which reads ``field.default``. All other dataclasses pass through as they are.

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
    """Keeps quiet what hydra and torch say about interfaces that fairseq still uses.

    Repairs: some twenty lines of warnings in front of every command's output, which a user cannot act on.

    Condition: none but the messages themselves, which hydra 1.1 and torch 2.4 and their successors give.
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
    """Whether ``torch.load`` refuses, by default, classes that were not declared safe (torch 2.6 and later)."""
    import torch

    major, minor = (int(part) for part in torch.__version__.split(".")[:2])
    return (major, minor) >= (2, 6)


def allow_checkpoint_types() -> None:
    """Declares safe what fairseq's checkpoints hold beside tensors and plain values.

    Repairs: "Weights only load failed … Unsupported global: argparse.Namespace" on every checkpoint. The check itself
    stays on: a pickle that calls anything else is refused.

    Condition: torch 2.6 and later.
    """
    import argparse

    import torch

    torch.serialization.add_safe_globals([argparse.Namespace])


def allow_numpy_arrays() -> None:
    """Declares safe the NumPy arrays of numbers that some of fairseq's scores leave in a checkpoint.

    Repairs: the same refusal, of ``numpy…_reconstruct``, for a checkpoint written with ``--eval-bleu``, whose n-gram
    counts are arrays. Arrays of Python objects stay refused.

    Condition: torch 2.6 and later.
    """
    import numpy
    import torch

    # NumPy trusts a pickle: the array type takes bytes for the addresses of objects when it is called, and so does a
    # type of numbers whose state says that it has a part of objects. So a checkpoint gets stand-ins under these names.
    class Numbers(numpy.ndarray):
        """An array that takes numbers only; saved again, it is a plain array."""

        def __setstate__(self, state: tuple) -> None:
            version, shape, kind, fortran, content = state
            if type(kind) is not _NumberType or type(content) is not bytes or any(size < 0 for size in shape):
                raise pickle.UnpicklingError("a NumPy array does not hold numbers")
            super().__setstate__((version, shape, numpy.dtype(kind.order + kind.code), fortran, content))

        def __reduce__(self) -> Any:
            return self.view(numpy.ndarray).__reduce__()

    def empty_array(kind: type, shape: tuple[int, ...], code: object) -> Numbers:
        return numpy.empty(0).view(Numbers)

    torch.serialization.add_safe_globals(
        [
            # NumPy 1 and NumPy 2 write different names for the function that makes an array to be filled afterwards.
            (empty_array, "numpy.core.multiarray._reconstruct"),
            (empty_array, "numpy._core.multiarray._reconstruct"),
            (_ArrayType, "numpy.ndarray"),
            (_NumberType, "numpy.dtype"),
            (Numbers, "Numbers"),  # may be filled; a name without a module cannot be asked for by a pickle
        ]
    )


class _ArrayType:
    """What a checkpoint gets as ``numpy.ndarray``: a name to pass on, and nothing to call."""


class _NumberType:
    """What a checkpoint gets as ``numpy.dtype``."""

    def __init__(self, code: str, *rest: object) -> None:
        if not re.fullmatch(r"[biufc][0-9]{1,2}", code):
            raise pickle.UnpicklingError(f"a NumPy array of type {code[:20]!r} does not hold numbers")
        self.code = code
        self.order = "="

    def __setstate__(self, state: tuple) -> None:
        # The version, the byte order, and then no parts, no names, the type's own size and no flags.
        if state[1] not in ("<", ">", "|") or state[2:] != (None, None, None, -1, -1, 0):
            raise pickle.UnpicklingError("the type of a NumPy array does not hold numbers")
        self.order = state[1]


def allow_broadcast_types() -> None:
    """Declares safe what fairseq sends from process to process when a checkpoint is loaded.

    Repairs: the same refusal when training with several processes resumes. There the first process reads the checkpoint
    and broadcasts it, its configuration as omegaconf objects and its tensors as placeholders, through ``torch.load``.

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
