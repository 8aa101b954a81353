"""One evaluation by several processes, as ``torchrun`` starts them: on several GPUs, cores or machines."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

Value = TypeVar("Value")

_PATIENCE = timedelta(days=30)
"""How long a process waits for the others, whose directions may take much longer than its own."""


@dataclass(frozen=True)
class Share:
    """This process among those that evaluate together.

    Attributes:
        rank: its number, from 0.
        count: how many there are.
        local_rank: its number on this machine, and so the GPU that is its own.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> Share:
        """Reads what torchrun tells its processes (``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``); alone without it."""
        return cls(*(int(os.environ.get(name, default)) for name, default in _TORCHRUN.items()))

    def start(self) -> None:
        """Meets the other processes, and takes the GPU that is its own."""
        if self.count == 1:
            return
        import torch
        from torch import distributed

        if torch.cuda.is_available():
            torch.cuda.set_device(self.local_rank % torch.cuda.device_count())
        if not distributed.is_initialized():
            distributed.init_process_group("gloo", timeout=_PATIENCE)

    def first(self, compute: Callable[[], Value]) -> Value:
        """What the first process computes, for all; where that fails there, the others end quietly.

        Args:
            compute: called in the first process only; what it returns must be picklable.

        Raises:
            SystemExit: in the other processes, where the first one failed.
        """
        if self.count == 1:
            return compute()
        from torch import distributed

        carrier: list[Any] = [None]
        if self.rank == 0:
            try:
                carrier[0] = (compute(),)
            finally:
                distributed.broadcast_object_list(carrier)
        else:
            distributed.broadcast_object_list(carrier)
        if carrier[0] is None:
            raise SystemExit(1)
        return carrier[0][0]

    def gather(self, value: Value) -> list[Value]:
        """The values of all processes in the first one, and nothing in the others."""
        if self.count == 1:
            return [value]
        from torch import distributed

        values = [None] * self.count if self.rank == 0 else None
        distributed.gather_object(value, values)
        return values or []

    def part(self, items: Sequence[Value], weights: Sequence[float]) -> list[Value]:
        """This process's part of a list: neighbours stay together, and all parts weigh about the same.

        Args:
            items: what there is to do.
            weights: how long each takes.
        """
        total, before, part = sum(weights), 0.0, []
        for item, weight in zip(items, weights, strict=True):
            if int((before + weight / 2) / total * self.count) == self.rank:
                part.append(item)
            before += weight
        return part


_TORCHRUN = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0}
