"""Notes SIGTERM and SIGUSR1 for a training, which stops when it can; a second SIGTERM ends the process at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import Any

STOPPING = (signal.SIGTERM, signal.SIGUSR1)
"""The signals that stop a training; Slurm sends the second as it is told to, long before its time limit."""

_REPEATED = 5.0
"""Seconds within which a second SIGTERM is the same request: Slurm and torchrun both signal the same process."""

_waiting: set[NotedSignals] = set()


class NotedSignals:
    """The first stopping signal that this process has received since this object was made.

    The processes that load data are forked from this one and get the signals of its process group too. They leave it
    to this process to end them; otherwise the training would die of their end.

    Attributes:
        received: the signal, or None.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._process = os.getpid()
        self._terminated: float | None = None
        self._before: dict[signal.Signals, Any] = {}
        with suppress(ValueError):  # not in the main thread, which alone can handle signals
            for number in STOPPING:
                self._before[number] = signal.signal(number, self._note)
            _waiting.add(self)

    def end(self) -> None:
        """Restores what the signals did before."""
        _waiting.discard(self)
        with suppress(ValueError):
            for number, before in self._before.items():
                if signal.getsignal(number) == self._note:
                    signal.signal(number, before)
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return
        if number == signal.SIGTERM:
            if self._terminated is not None and time.monotonic() - self._terminated > _REPEATED:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            self._terminated = self._terminated or time.monotonic()
        self.received = self.received or signal.Signals(number)


def pass_signals_on() -> None:
    """Makes stopping signals reach the processes that fairseq starts, one for each GPU, if torchrun does not.

    Otherwise they would end this process, which only waits for the others, and the others with it. Until it has started
    them, the signals end it as before.
    """
    with suppress(ValueError):  # not in the main thread
        for number in STOPPING:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _pass_on)


def _pass_on(number: int, frame: FrameType | None) -> None:
    processes = multiprocessing.active_children() if multiprocessing.parent_process() is None else []
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process.ident or 0, number)
    if not processes:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _before_fork() -> None:
    if _waiting:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _after_fork_in_parent() -> None:
    if _waiting:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _after_fork_in_child() -> None:
    if _waiting:
        threading.Thread(target=_end_on_request_of, args=(os.getppid(),), daemon=True).start()


def _end_on_request_of(parent: int) -> None:
    """Ends this process on a SIGTERM of its parent, or on any once the parent has ended; SIGTERM must be blocked."""
    while True:
        sender = signal.sigwaitinfo({signal.SIGTERM}).si_pid
        if sender == parent or os.getppid() != parent:
            os._exit(0)  # as torch's own handler in these processes does


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
