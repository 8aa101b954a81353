"""Times contenders in turns, and measures the peak memory of each in a separate process."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Timing:
    """How long one contender took in each round.

    Attributes:
        seconds: the seconds of each round, in order.
    """

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median seconds."""
        return statistics.median(self.seconds)

    def over(self, other: Timing) -> float:
        """The median, over the rounds, of this contender's time divided by another's time in the same round."""
        return statistics.median(mine / theirs for mine, theirs in zip(self.seconds, other.seconds, strict=True))


def time_in_turns(
    contenders: Mapping[str, Callable[[], None]],
    rounds: int,
    device: torch.device,
    progress: Callable[[str], None] = lambda name: None,
) -> dict[str, Timing]:
    """Runs all contenders once to warm up, and then one after the other in every round.

    This way, other work on the machine affects all of them equally. Every second round is in reverse order.

    Args:
        contenders: the contenders by name.
        rounds: the number of rounds.
        device: the GPU to wait for, or a CPU.
        progress: called with the contender's name before each run.
    """
    for name, run in contenders.items():
        progress(name)
        run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        order = list(contenders.items())
        for name, run in reversed(order) if number % 2 else order:
            progress(name)
            _wait(device)
            start = time.perf_counter()
            run()
            _wait(device)
            seconds[name].append(time.perf_counter() - start)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_gpu_memory(prepare: Callable[[], Callable[[], None]], device: torch.device) -> int:
    """A contender's peak memory in two runs, in bytes, including the model, on a GPU that nothing else here uses.

    Args:
        prepare: builds the contender.
        device: the GPU.
    """
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run = prepare()
    for _ in range(2):
        run()
    return torch.cuda.max_memory_allocated(device) - before


def peak_cpu_memory(job: str, name: str, settings: Mapping[str, object]) -> int:
    """A contender's peak memory in two runs, in bytes, including the model, measured in a new process.

    Args:
        job: ``update`` or ``translation``.
        name: the contender.
        settings: the settings that :func:`langspec_lora.benchmark.compare.setting_from` reads.

    Raises:
        RuntimeError: the process failed.
    """
    command = [sys.executable, "-m", "langspec_lora.benchmark.memory", job, name, json.dumps(settings)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"measuring the memory of {name} failed:\n{done.stderr[-2000:]}")
    return int(done.stdout.split()[-1])


def high_water_mark() -> int:
    """The peak memory of this process since it started, in bytes (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
