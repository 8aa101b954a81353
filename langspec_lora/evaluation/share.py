"""One evaluation by several processes, as ``torchrun`` starts them: on several GPUs, cores or machines."""

from __future__ import annotations

import itertools
import os
import pickle
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from langspec_lora.errors import UserError

Value = TypeVar("Value")

_PATIENCE = timedelta(days=30)
"""How long a process waits for the others, whose directions may take much longer than its own."""


@dataclass(frozen=True)
class Share:
    """This process among those that evaluate together.

    Attributes:
        rank: its number, from 0.
        count: how many there are.
        board: where they leave values for each other; None for a single process.
    """

    rank: int = 0
    count: int = 1
    board: Board | None = None

    @classmethod
    @contextmanager
    def together(cls) -> Iterator[Share]:
        """Meets the other processes that torchrun started, if any, and takes the GPU that is its own."""
        if int(os.environ.get("WORLD_SIZE", 1)) == 1:
            yield cls()
            return
        import torch
        from torch import distributed

        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
        # A key-value store is all that is needed. A process group would be more: that of Gloo deadlocks in torch 2.0
        # when it ends while its threads release the last tensors.
        store, rank, processes = next(distributed.rendezvous("env://", timeout=_PATIENCE))
        store.set_timeout(_PATIENCE)
        share = cls(rank, processes, Board(distributed.PrefixStore("langspec_lora", store)))
        yield share
        share.gather(None)  # the store lives in the first process, which must not end before the others

    def first(self, compute: Callable[[], Value]) -> Value:
        """What the first process computes, for all; where that fails there, the others end quietly.

        Args:
            compute: called in the first process only; what it returns must be picklable.

        Raises:
            SystemExit: in the other processes, where the first one failed.
        """
        if self.board is None:
            return compute()
        carrier = None
        if self.rank == 0:
            try:
                carrier = (compute(),)
            finally:
                self.board.put("first", carrier)
                self.gather(None)
        else:
            carrier = self.board.take("first")
            self.gather(None)
        if carrier is None:
            raise SystemExit(1)
        (value,) = carrier
        return value

    def everywhere(self, compute: Callable[[], Value]) -> Value:
        """What each process computes for itself; none goes on where that fails in one.

        Args:
            compute: called in all processes.

        Raises:
            UserError: in the first process, as it was raised in any of them.
            SystemExit: in the other processes then.
        """
        value = problem = None
        try:
            value = compute()
        except UserError as error:
            problem = error
        problems = [found for found in self.gather(problem) if found]
        self.first(lambda: _raise(problems))
        return value

    def gather(self, value: Value) -> list[Value]:
        """The values of all processes in the first one, and nothing in the others."""
        if self.board is None:
            return [value]
        if self.rank:
            self.board.put(f"gather/{self.rank}", value)
            return []
        return [value, *(self.board.take(f"gather/{rank}") for rank in range(1, self.count))]

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


def _raise(problems: Sequence[Exception]) -> None:
    if problems:
        raise problems[0]


class Board:
    """Values that processes leave for each other in a store of torch's, under names that may be used again.

    Args:
        store: any store of :mod:`torch.distributed`.
    """

    PIECE = 2**20
    """Bytes of one entry; torch's stores take no more than 8 MiB."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._uses: dict[str, Iterator[int]] = defaultdict(itertools.count)

    def put(self, name: str, value: object) -> None:
        """Leaves a picklable value for those that take it."""
        key, content = self._next(name), pickle.dumps(value)
        pieces = [content[start : start + self.PIECE] for start in range(0, len(content), self.PIECE)]
        for number, piece in enumerate(pieces):
            self._store.set(f"{key}/{number}", piece)
        self._store.set(key, str(len(pieces)))

    def take(self, name: str) -> Any:
        """Waits for the value that another process leaves under this name."""
        key = self._next(name)
        pieces = int(self._store.get(key))
        return pickle.loads(b"".join(self._store.get(f"{key}/{number}") for number in range(pieces)))

    def _next(self, name: str) -> str:
        """A key for each use of a name: all processes put and take under it in one order."""
        return f"{name}/{next(self._uses[name])}"
