"""Times contenders in turns, and measures the peak memory of each, on a CPU in a process of its own."""

from __future__ import annotations

import gc
import logging
import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from operator import truediv
from pathlib import Path

import torch
from torch.utils.benchmark import timer  # waits for the GPU

from langspec_lora.benchmark.contenders import Contender, Setting


def time_in_turns(
    contenders: Mapping[str, Callable[[], None]], rounds: int, show: Callable[[str], None] = lambda name: None
) -> dict[str, list[float]]:
    """Runs all contenders once to warm up, and then in every round one after the other.

    This way, other work on the machine affects all of them equally. Every second round is in reverse order.

    Args:
        contenders: what to run.
        rounds: how often.
        show: called with the contender's name before each run.

    Returns:
        The seconds of each contender in each round.
    """
    for name, run in contenders.items():
        show(name)
        run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        order = list(contenders.items())
        for name, run in reversed(order) if number % 2 else order:
            show(name)
            start = timer()
            run()
            seconds[name].append(timer() - start)
    return seconds


def ratio(seconds: Sequence[float], other: Sequence[float]) -> float:
    """Median over the rounds of one contender's time as a multiple of another's in the same round."""
    return statistics.median(map(truediv, seconds, other))


def peak_memory(contender: Contender, setting: Setting) -> int:
    """Bytes that a contender holds at most in two runs, model included.

    Args:
        contender: builds what runs; a function of a module, so that another process can find it.
        setting: the comparison.
    """
    if setting.device.type == "cpu":
        # An initializer runs before the imports, during which fairseq logs.
        with ProcessPoolExecutor(1, get_context("spawn"), logging.disable, (logging.INFO,)) as process:
            return process.submit(_peak_cpu_memory, contender, setting, torch.get_num_threads()).result()
    before = torch.cuda.memory_allocated(setting.device)
    torch.cuda.reset_peak_memory_stats(setting.device)
    _run_twice(contender, setting)
    peak = torch.cuda.max_memory_allocated(setting.device) - before
    free_memory()
    return peak


def _peak_cpu_memory(contender: Contender, setting: Setting, threads: int) -> int:
    """The bytes beyond what the imports hold."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    imported = _high_water_mark()
    _run_twice(contender, setting)
    return _high_water_mark() - imported


def _run_twice(contender: Contender, setting: Setting) -> None:
    run = contender(setting)
    for _ in range(2):
        run()


def _high_water_mark() -> int:
    """Bytes that this process has held at most (Linux); in getrusage's figure, its parent takes part."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def free_memory() -> None:
    """Gives back what contenders held that are gone."""
    gc.collect()
    torch.cuda.empty_cache()
