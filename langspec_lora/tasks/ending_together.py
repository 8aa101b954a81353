"""A training whose processes cannot all begin ends in each with the reason; fairseq leaves the others waiting.

Some mistakes are found by one process only, such as a ``--save-dir`` in use or data that one machine lacks. torchrun
ends the other processes then. Slurm's tasks, without torchrun, would wait for it until their communication times out.
"""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from fairseq.distributed import utils as distributed_utils
from torch.multiprocessing import ProcessExitedException

from langspec_lora.errors import exit_message


@contextmanager
def all_or_none() -> Iterator[None]:
    """Ends this process if the block fails in any process of its training; all have to run the same blocks.

    Raises:
        SystemExit: another process has failed; the message says which, and why.
    """
    try:
        yield
    except (Exception, SystemExit) as failure:
        _tell_others(failure)
        raise
    try:
        reasons = _exchange(None)
    except RuntimeError as error:  # the communication has broken
        raise SystemExit(exit_message("another process of this training has ended; its output says why")) from error
    failed = {rank: reason for rank, reason in enumerate(reasons) if reason is not None}
    if failed:
        _wait_for_others()
        rank, reason = next(iter(failed.items()))
        raise SystemExit(exit_message(f"process {rank} of this training has ended: {reason}"))


def _tell_others(failure: BaseException) -> None:
    reason = str(failure) or type(failure).__name__
    with suppress(RuntimeError):  # they have ended too
        _exchange(reason.removeprefix(exit_message("")))
        _wait_for_others()


def _exchange(reason: str | None) -> list[str | None]:
    """What each process says, by rank."""
    if not _several():
        return [reason]
    reasons: list[str | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(reasons, reason)
    return reasons


def _wait_for_others() -> None:
    """Until all have heard the reasons: when the first has ended, torchrun and fairseq end the others."""
    with suppress(RuntimeError):
        if _several():
            torch.distributed.barrier()


def _several() -> bool:
    distributed = torch.distributed
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def without_traceback(call_main: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps fairseq's ``call_main``, which starts a process for each GPU, for the end of one of them.

    That process has said why it ended, as far as it could. The one that started it ends with the same exit code, and
    not in a traceback.
    """

    @functools.wraps(call_main)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return call_main(*args, **kwargs)
        except ProcessExitedException as error:
            if error.exit_code >= 0:
                raise SystemExit(error.exit_code) from None
            name = signal.Signals(-error.exit_code).name
            reason = f"{name} ended process {error.error_index} of this training"
            if name == "SIGKILL":
                reason += "; the system does that if the memory is full"
            raise SystemExit(exit_message(f"{reason}; run the same command to continue")) from None

    return wrapped


distributed_utils.call_main = without_traceback(distributed_utils.call_main)
