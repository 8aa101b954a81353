"""What torchrun tells the processes that it starts, and which of them says what all have found."""

# Imports in functions: torch takes seconds, and the command line starts without it.

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from langspec_lora.errors import UserError

_PATIENCE = 15.0
"""Seconds in which torchrun ends all processes once one has failed: it looks every 0.1 s, in torch 2.0 every 5 s."""


def rank() -> int:
    """The number of this process among those that torchrun started, from 0; 0 without torchrun."""
    return int(os.environ.get("RANK", 0)) if count() > 1 else 0


def count() -> int:
    """How many processes torchrun started; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", 1))


def take_gpu() -> None:
    """Makes a GPU of its own the default of each process on a machine."""
    import torch

    if count() > 1 and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())


@contextmanager
def one_message() -> Iterator[None]:
    """Lets the first process say a mistake that all find: then torchrun ends the others, which wait for that.

    A mistake that only another process finds, such as a full disk of its machine, is said after the wait.
    """
    try:
        yield
    except (UserError, SystemExit):
        if rank():
            time.sleep(_PATIENCE)
        raise
