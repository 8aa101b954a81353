"""Runs the comparisons of the benchmark and collects their results."""

# Imports in functions: transformers and peft are an extra.

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from langspec_lora.benchmark.contenders import TRANSLATIONS, UPDATES, Contender, Setting
from langspec_lora.benchmark.measure import free_memory, peak_memory, time_in_turns
from langspec_lora.benchmark.workload import PAPER, Ranks

PARTS = ("update", "translation", "sweep", "memory")
LANGUAGES = (2, 12, 30, 100, 200)
RANKS = (PAPER, Ranks(8, 8, 32), Ranks(16, 16, 16))
SWEEP_ROUNDS = 3
"""At most this many rounds for each setting of the sweep, because it has fifteen settings."""
SWEPT = ("one shared adapter", "ours, mixed", "loop over languages")
MOVE = "ours, absent languages move"
"""Part of the sweep only with the paper's ranks, because the cost of resting does not depend on ranks."""


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


def run(setting: Setting, rounds: int, parts: Collection[str], show: Callable[[str], None]) -> Results:
    """Runs the benchmark.

    Args:
        setting: the comparison, with the paper's languages and ranks; the sweep changes them.
        rounds: number of repetitions.
        parts: which of :data:`PARTS` to measure.
        show: called with a line of progress.
    """
    plan = {
        **{"shape": setting.shape.name, "device": setting.device.type, "amp": setting.amp, "rounds": rounds},
        **{"threads": torch.get_num_threads(), "languages": LANGUAGES, "ranks": list(map(str, RANKS)), "parts": parts},
    }
    results = Results(machine(setting.device), plan)
    for job, contenders in all_contenders().items():
        if job in parts:
            measured = _time(contenders, setting, rounds, f"{job}: ", show)
            setattr(results, job, measured)
            for name in contenders if "memory" in parts else ():
                show(f"{job}: memory of {name}")
                measured[name]["peak_bytes"] = peak_memory(contenders[name], setting)
    for ranks in RANKS if "sweep" in parts else ():
        for languages in LANGUAGES:
            contenders = {name: UPDATES[name] for name in (*SWEPT, *((MOVE,) if ranks == PAPER else ()))}
            swept = replace(setting, languages=languages, ranks=ranks)
            label = f"{languages} languages, ranks {ranks}: "
            measured = _time(contenders, swept, min(rounds, SWEEP_ROUNDS), label, show)
            results.sweep.append({"languages": languages, "ranks": str(ranks), **measured})
    return results


def all_contenders() -> dict[str, Mapping[str, Contender]]:
    """The contenders of each job, Hugging Face's among them where it can be used."""
    if not hugging_face_is_usable():
        return {"update": UPDATES, "translation": TRANSLATIONS}
    from langspec_lora.benchmark import huggingface

    name, update = "Hugging Face + PEFT", partial(huggingface.PeftUpdate, huggingface.build_model)
    return {
        "update": {**UPDATES, name: update},
        "translation": {**TRANSLATIONS, name: huggingface.PeftTranslation},
    }


def hugging_face_is_usable() -> bool:
    """Whether transformers and PEFT are installed, and this torch is new enough for them."""
    if not all(map(find_spec, ("transformers", "peft"))):
        return False
    from transformers import is_torch_available

    return is_torch_available()


def _time(
    contenders: Mapping[str, Contender], setting: Setting, rounds: int, label: str, show: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    built = {}
    for name, build in contenders.items():
        show(f"{label}building {name}")
        built[name] = build(setting)
    seconds = time_in_turns(built, rounds, lambda name: show(label + name))
    measured = {name: {"seconds": seconds[name], "tokens": built[name].tokens} for name in contenders}
    built.clear()
    free_memory()
    return measured


def machine(device: torch.device) -> dict[str, Any]:
    """The machine and the versions of the software."""
    # From the module, because a fork of fairseq is installed under another name.
    packages = ("torch", "fairseq", *(("transformers", "peft") if hugging_face_is_usable() else ()))
    info = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*: (.+)", info.read_text(encoding="utf-8"), re.M) if info.exists() else None
    return {
        "cpu": model[1] if model else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if device.type == "cuda" else None,
        "python": platform.python_version(),
        **{name: import_module(name).__version__ for name in packages},
        "load": os.getloadavg()[0],
    }
