"""Runs the comparisons of the benchmark and collects their results."""

from __future__ import annotations

import gc
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from langspec_lora.benchmark import huggingface
from langspec_lora.benchmark.contenders import TRANSLATIONS, UPDATES, Setting
from langspec_lora.benchmark.measure import peak_cpu_memory, peak_gpu_memory, time_in_turns
from langspec_lora.benchmark.workload import SHAPES, Ranks

LANGUAGES = (2, 12, 30, 100, 200)
RANKS = (Ranks(2, 2, 8), Ranks(8, 8, 32), Ranks(16, 16, 16))
PAPER = (12, RANKS[0])
PACKAGES = ("torch", "fairseq", "transformers", "peft")
SWEEP_ROUNDS = 3
"""At most this many rounds for each setting of the sweep, because it has fifteen settings."""
SWEPT = ("one shared adapter", "ours, mixed", "loop over languages")
MOVE = "ours, absent languages move"
"""Part of the sweep only with the paper's ranks, because the cost of resting does not depend on ranks."""


@dataclass(frozen=True)
class Measurements:
    """What to measure.

    Attributes:
        shape: name of the shape.
        device: ``cpu`` or ``cuda``.
        amp: whether to use autocast.
        rounds: number of repetitions.
        threads: number of CPU threads.
        languages: numbers of languages in the sweep.
        ranks: ranks in the sweep.
        parts: which of ``update``, ``translation``, ``sweep`` and ``memory`` to measure.
    """

    shape: str
    device: str
    amp: bool
    rounds: int
    threads: int
    languages: Sequence[int] = LANGUAGES
    ranks: Sequence[Ranks] = RANKS
    parts: Sequence[str] = ("update", "translation", "sweep", "memory")

    def settings(self, languages: int = PAPER[0], ranks: Ranks = PAPER[1]) -> dict[str, Any]:
        """The settings of one comparison, as plain data."""
        plain = {"shape": self.shape, "device": self.device, "amp": self.amp, "threads": self.threads}
        return {**plain, "languages": languages, "ranks": [ranks.high, ranks.med, ranks.low]}


def setting_from(settings: Mapping[str, Any]) -> Setting:
    """Reads what :meth:`Measurements.settings` returned."""
    device, ranks = torch.device(settings["device"]), Ranks(*settings["ranks"])
    return Setting(SHAPES[settings["shape"]], settings["languages"], ranks, device, settings["amp"])


@dataclass
class Results:
    """The results of the benchmark.

    Attributes:
        machine: names of the hardware and versions of the software.
        plan: what was measured, as plain data.
        update, translation: for each contender, the seconds of each round, the tokens per batch and the peak bytes.
        sweep: rows of languages, ranks, and the seconds of each contender.
    """

    machine: dict[str, Any]
    plan: dict[str, Any]
    update: dict[str, dict[str, Any]] = field(default_factory=dict)
    translation: dict[str, dict[str, Any]] = field(default_factory=dict)
    sweep: list[dict[str, Any]] = field(default_factory=list)


def run(asked: Measurements, say: Callable[[str], None]) -> Results:
    """Runs the benchmark.

    Args:
        asked: what to measure.
        say: called with a line of progress.
    """
    torch.set_num_threads(asked.threads)
    results = Results(machine(asked), {**asdict(asked), "ranks": [str(ranks) for ranks in asked.ranks]})
    hugging_face = huggingface.is_usable()
    for job, table in (("update", UPDATES), ("translation", TRANSLATIONS)):
        if job not in asked.parts:
            continue
        names = [name for name in table if hugging_face or not name.startswith("Hugging Face")]
        settings = asked.settings()
        measured = _time(asked, {name: table[name] for name in names}, settings, asked.rounds, f"{job}: ", say)
        for name in names:
            if "memory" in asked.parts:
                say(f"{job}: memory of {name}")
                measured[name]["peak_bytes"] = _peak_memory(job, name, settings)
        setattr(results, job, measured)
    if "sweep" in asked.parts:
        for ranks in asked.ranks:
            for languages in asked.languages:
                settings = asked.settings(languages, ranks)
                prefix = f"{languages} languages, ranks {ranks}: "
                swept = (*SWEPT, MOVE) if ranks == PAPER[1] else SWEPT
                contenders = {name: UPDATES[name] for name in swept}
                measured = _time(asked, contenders, settings, min(asked.rounds, SWEEP_ROUNDS), prefix, say)
                results.sweep.append({"languages": languages, "ranks": str(ranks), **measured})
    return results


def _time(
    asked: Measurements,
    table: Mapping[str, Callable],
    settings: Mapping[str, Any],
    rounds: int,
    prefix: str,
    say: Callable[[str], None],
) -> dict[str, dict[str, Any]]:
    setting = setting_from(settings)
    contenders = {}
    for name, prepare in table.items():
        say(f"{prefix}building {name}")
        contenders[name] = prepare(setting)
    timings = time_in_turns(contenders, rounds, setting.device, lambda name: say(prefix + name))
    measured = {
        name: {"seconds": list(timing.seconds), "tokens": contenders[name].tokens} for name, timing in timings.items()
    }
    contenders.clear()
    _free(setting.device)
    return measured


def _peak_memory(job: str, name: str, settings: Mapping[str, Any]) -> int:
    setting = setting_from(settings)
    if setting.device.type == "cpu":
        return peak_cpu_memory(job, name, settings)
    peak = peak_gpu_memory(lambda: (UPDATES if job == "update" else TRANSLATIONS)[name](setting), setting.device)
    _free(setting.device)
    return peak


def _free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def machine(asked: Measurements) -> dict[str, Any]:
    """The machine and the versions of the software."""
    # From the module, because a fork of fairseq is installed under another name.
    packages = PACKAGES if huggingface.is_usable() else PACKAGES[:2]
    versions = {name: import_module(name).__version__ for name in packages}
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(encoding="utf-8").splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    gpu = torch.cuda.get_device_name() if asked.device == "cuda" else None
    python = platform.python_version()
    return {"cpu": cpu, "cores": os.cpu_count(), "gpu": gpu, "python": python, **versions, "load": os.getloadavg()[0]}
