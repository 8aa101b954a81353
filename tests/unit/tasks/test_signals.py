"""Signals are noted by the process that trains, and leave the processes that load its data alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable

import pytest
from torch.utils.data import DataLoader

from langspec_lora.tasks import signals
from langspec_lora.tasks.signals import NotedSignals


@pytest.fixture(autouse=True)
def _no_training_waits() -> None:
    """Ends what trainings that other tests ran in this process have left until they are collected."""
    for noted in list(signals._waiting):
        noted.end()


def in_child(run: Callable[[], int]) -> int:
    """The exit code of a forked process, negative if a signal ended it."""
    child = os.fork()
    if child == 0:
        code = 99
        for number in signals.STOPPING:
            signal.signal(number, signal.SIG_DFL)
        try:
            code = run()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def send(number: signal.Signals, process: int) -> None:
    """From another process: the sender matters."""
    subprocess.run(["kill", f"-{number.value}", str(process)], check=True)


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 15), (signal.SIGUSR1, 10)])
def test_signal_is_noted_and_does_not_end_the_process(number, expected) -> None:
    def run() -> int:
        noted = NotedSignals()
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGUSR1)  # a later one changes nothing
        return int(noted.received or 0)

    assert in_child(run) == expected


@pytest.mark.parametrize(
    ("pause", "numbers", "expected"),
    [
        (0, [signal.SIGTERM, signal.SIGTERM], 0),  # from Slurm and from torchrun
        (2, [signal.SIGTERM, signal.SIGTERM], 0),
        (6, [signal.SIGTERM, signal.SIGTERM], -signal.SIGTERM),
        (6, [signal.SIGUSR1, signal.SIGTERM], 0),  # Slurm's warning and then its time limit
        (6, [signal.SIGUSR1, signal.SIGUSR1], 0),
    ],
)
def test_second_sigterm_ends_at_once_unless_it_is_the_first_once_more(pause, numbers, expected, monkeypatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def run() -> int:
        NotedSignals()
        for number in numbers:
            os.kill(os.getpid(), number)
            clock[0] += pause
        return 0

    assert in_child(run) == expected


def test_signals_do_again_what_they_did_before() -> None:
    before = [signal.getsignal(number) for number in signals.STOPPING]
    noted = NotedSignals()
    assert [signal.getsignal(number) for number in signals.STOPPING] != before
    noted.end()
    assert [signal.getsignal(number) for number in signals.STOPPING] == before
    assert not signals._waiting


@pytest.mark.parametrize("number", signals.STOPPING)
def test_process_that_loads_data_survives_the_signals_of_its_group_but_not_those_of_the_training(number) -> None:
    noted = NotedSignals()
    try:
        batches = iter(DataLoader(list(range(40)), batch_size=2, num_workers=1))
        first = next(batches).tolist()
        (worker,) = batches._workers
        send(number, worker.pid)
        time.sleep(0.2)
        assert worker.is_alive()
        assert first + [value for batch in batches for value in batch.tolist()] == list(range(40))
        assert noted.received is None
        other = iter(DataLoader(list(range(40)), batch_size=2, num_workers=1))
        next(other)
        other._workers[0].terminate()
        other._workers[0].join(5)
        assert other._workers[0].exitcode == 0
    finally:
        noted.end()


@pytest.mark.parametrize("number", signals.STOPPING)
def test_process_that_waits_for_those_it_has_started_passes_signals_on_and_survives(number) -> None:
    def child(ready) -> None:
        noted = NotedSignals()
        ready.set()
        for _ in range(500):
            if noted.received is not None:
                os._exit(20 + noted.received)
            time.sleep(0.01)
        os._exit(1)

    def run() -> int:
        signals.pass_signals_on()
        ready = [multiprocessing.get_context("fork").Event() for _ in range(2)]
        started = [multiprocessing.get_context("fork").Process(target=child, args=(event,)) for event in ready]
        for process, event in zip(started, ready, strict=True):
            process.start()
            event.wait(10)
        send(number, os.getpid())
        for process in started:
            process.join(10)
        return 0 if [process.exitcode for process in started] == [20 + number] * 2 else 1

    assert in_child(run) == 0


def test_it_ends_as_usual_before_it_has_started_any() -> None:
    def run() -> int:
        signals.pass_signals_on()
        os.kill(os.getpid(), signal.SIGTERM)
        return 0

    assert in_child(run) == -signal.SIGTERM
