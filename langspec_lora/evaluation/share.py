"""One evaluation by several processes, as ``torchrun`` starts them: on several GPUs, cores or machines.

Each process decodes its part of the directions into the results folder, which all of them share. Besides that they only
exchange what the first one found out and what each one scored, through torchrun's key-value store.
"""

# Imports in functions: torch takes seconds, and only several processes need it here.

from __future__ import annotations

import itertools
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from langspec_lora.errors import UserError

Value = TypeVar("Value")

_PATIENCE = timedelta(days=30)
"""How long a process waits for the others, whose directions may take much longer than its own."""

_PIECE = 2**20
"""Bytes of one entry of a store; torch's stores take no more than 8 MiB."""


@dataclass(frozen=True)
class Share:
    """This process among those that evaluate together; all of them call the same methods in the same order.

    Attributes:
        rank: its number, from 0.
        count: how many processes there are.
        store: a store of :mod:`torch.distributed`, through which they exchange values; None for a single process.
    """

    rank: int = 0
    count: int = 1
    store: Any = None
    _rounds: Iterator[int] = field(default_factory=itertools.count, compare=False, repr=False)

    @classmethod
    @contextmanager
    def together(cls) -> Iterator[Share]:
        """Meets the other processes that torchrun started, if any, and takes this process's GPU."""
        if int(os.environ.get("WORLD_SIZE", 1)) == 1:
            yield cls()
            return
        import torch  # a single process without a model to load needs none
        from torch import distributed

        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
        # A process group would do more than is needed, and Gloo's deadlocks in torch 2.0 when it ends while its threads
        # release the last tensors.
        store, rank, count = next(distributed.rendezvous("env://", timeout=_PATIENCE))
        store.set_timeout(_PATIENCE)
        share = cls(rank, count, distributed.PrefixStore("langspec_lora", store))
        yield share
        share._wait_for_others()

    def in_first(self, compute: Callable[[], Value]) -> Value:
        """What the first process computes, in all of them.

        Args:
            compute: called in the first process only; what it returns must be picklable.

        Raises:
            SystemExit: in the other processes, where it fails in the first one.
        """
        (value,) = self.in_each(lambda: [compute()] if self.rank == 0 else [])[0]
        return value

    def in_each(self, compute: Callable[[], Value]) -> list[Value]:
        """What each process computes, by rank, in all of them; where it fails in one, none goes on.

        Args:
            compute: called in all processes; what it returns must be picklable.

        Raises:
            UserError: in the first process, as it was raised in any of them.
            SystemExit: in the other processes then.
        """
        if self.store is None:
            return [compute()]
        value, error = None, None
        try:
            value = compute()
        except (Exception, SystemExit) as raised:
            error = raised
        mistake = error if isinstance(error, UserError) else None
        key = f"{next(self._rounds)}"
        self._put(f"{key}/{self.rank}", (value, error is None, mistake))
        outcomes = [self._take(f"{key}/{rank}") for rank in range(self.count)]
        if all(succeeded for _, succeeded, _ in outcomes):
            return [value for value, _, _ in outcomes]
        self._wait_for_others()
        if error is not None and mistake is None:
            raise error
        mistakes = [mistake for _, _, mistake in outcomes if mistake]
        if mistakes and self.rank == 0:
            raise mistakes[0]
        raise SystemExit(1)

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

    def _wait_for_others(self) -> None:
        """Lets the first process, in which the store lives, end last."""
        key = f"{next(self._rounds)}"
        self._put(f"{key}/{self.rank}", None)
        if self.rank == 0:
            for rank in range(self.count):
                self._take(f"{key}/{rank}")

    def _put(self, key: str, value: object) -> None:
        content = pickle.dumps(value)
        pieces = [content[start : start + _PIECE] for start in range(0, len(content), _PIECE)]
        for number, piece in enumerate(pieces):
            self.store.set(f"{key}/{number}", piece)
        self.store.set(key, str(len(pieces)))

    def _take(self, key: str) -> Any:
        """Waits for a value."""
        pieces = int(self.store.get(key))
        return pickle.loads(b"".join(self.store.get(f"{key}/{number}") for number in range(pieces)))
