"""A device that has no values, in place of a GPU: who asks it for one, and who copies to it and waits, is recorded."""

from __future__ import annotations

import linecache
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

PLUGIN = f"{Path('langspec_lora')}/"
ATEN = torch.ops.aten


class Wait(NamedTuple):
    """What would make the CPU wait for a GPU.

    Attributes:
        file: the file that asks, below its package.
        line: its source line.
        kind: ``value``, ``download``, ``upload`` or ``shape``.
    """

    file: str
    line: str
    kind: str

    @property
    def is_ours(self) -> bool:
        """Whether the plugin's own code asks."""
        return self.file.startswith(PLUGIN)


class Waits(TorchDispatchMode):
    """Records what would wait for a GPU, on the device ``meta``, and answers as a training without trouble would.

    Attributes:
        found: all of it, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Wait] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func is ATEN._local_scalar_dense.default and args[0].is_meta:
            wait = self._record("value")
            if args[0].dtype == torch.bool:
                return "dynamic_loss_scaler" not in wait.file  # all is finite and equal, but no overflow
            return 1.0 if args[0].is_floating_point() else 1
        if func is ATEN._to_copy.default and kwargs.get("device") is not None:
            device = torch.device(kwargs["device"]).type
            if args[0].is_meta and device == "cpu":
                self._record("download")
                return torch.ones(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
            if args[0].device.type == "cpu" and device == "meta" and not kwargs.get("non_blocking"):
                self._record("upload")
        if func is ATEN.copy_.default and args[0].is_meta != args[1].is_meta:
            self._record("download" if args[1].is_meta else "upload")
            return args[0]
        if func in (ATEN.nonzero.default, ATEN.masked_select.default, ATEN._unique2.default, ATEN.equal.default):
            self._record("shape")
        return func(*args, **kwargs)

    def _record(self, kind: str) -> Wait:
        frame: Any = sys._getframe(1)
        while "/torch/" in frame.f_code.co_filename or frame.f_code.co_filename == __file__:
            frame = frame.f_back
        file, line = frame.f_code.co_filename, linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        for package in ("fairseq/", PLUGIN):
            if f"/{package}" in file:
                file = package + file.rpartition(f"/{package}")[2]
        self.found.append(Wait(file, line, kind))
        return self.found[-1]


def on_device(value: Any) -> Any:
    """A batch, or anything else that fairseq collates, on the device ``meta``."""
    if isinstance(value, Tensor):
        return value.to("meta")
    if isinstance(value, dict):
        return {key: on_device(part) for key, part in value.items()}
    return value
