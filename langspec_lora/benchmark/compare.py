"""The comparisons of the benchmark, what they must reach, and the table of them."""

from __future__ import annotations

import gc
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from langspec_lora.benchmark.contenders import TRANSLATIONS, UPDATES, Setting
from langspec_lora.benchmark.measure import Timing, peak_memory, time_in_turns
from langspec_lora.benchmark.workload import SHAPES, Ranks

LANGUAGES = (2, 12, 30, 100, 200)
RANKS = (Ranks(2, 2, 8), Ranks(8, 8, 32), Ranks(16, 16, 16))
PAPER = (12, RANKS[0])
PACKAGES = ("torch", "fairseq", "transformers", "peft")
SWEPT = ("one shared pair", "ours, mixed", "loop over languages")


@dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes:
        shape: name of the shape.
        device: ``cpu`` or ``cuda``.
        amp: autocast.
        rounds: repetitions.
        threads: of the CPU.
        languages: numbers of languages of the sweep.
        ranks: ranks of the sweep.
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
        """One comparison, as plain data."""
        plain = {"shape": self.shape, "device": self.device, "amp": self.amp, "threads": self.threads}
        return {**plain, "languages": languages, "ranks": [ranks.high, ranks.med, ranks.low]}


def setting_from(settings: Mapping[str, Any]) -> Setting:
    """Reads what :meth:`Plan.settings` gives."""
    device, ranks = torch.device(settings["device"]), Ranks(*settings["ranks"])
    return Setting(SHAPES[settings["shape"]], settings["languages"], ranks, device, settings["amp"])


@dataclass
class Results:
    """What was measured.

    Attributes:
        machine: names and versions.
        plan: what was run.
        update, translation: by contender: seconds of each round, tokens of a batch, peak bytes.
        sweep: rows of languages, ranks, and the seconds of each contender.
    """

    machine: dict[str, Any]
    plan: dict[str, Any]
    update: dict[str, dict[str, Any]] = field(default_factory=dict)
    translation: dict[str, dict[str, Any]] = field(default_factory=dict)
    sweep: list[dict[str, Any]] = field(default_factory=list)


def run(plan: Plan, say: Callable[[str], None]) -> Results:
    """Runs the plan.

    Args:
        plan: what to run.
        say: called with a line of what is going on.
    """
    torch.set_num_threads(plan.threads)
    results = Results(machine(plan), {**asdict(plan), "ranks": [str(ranks) for ranks in plan.ranks]})
    hugging_face = all(find_spec(name) for name in ("transformers", "peft"))
    for kind, table in (("update", UPDATES), ("translation", TRANSLATIONS)):
        if kind not in plan.parts:
            continue
        names = [name for name in table if hugging_face or not name.startswith("Hugging Face")]
        settings = plan.settings()
        measured = _time(plan, {name: table[name] for name in names}, settings, plan.rounds, f"{kind}: ", say)
        for name in names:
            if "memory" in plan.parts:
                say(f"{kind}: memory of {name}")
                measured[name]["peak_bytes"] = peak_memory(kind, name, settings)
        setattr(results, kind, measured)
    if "sweep" in plan.parts:
        for ranks in plan.ranks:
            for languages in plan.languages:
                settings = plan.settings(languages, ranks)
                prefix = f"{languages} languages, ranks {ranks}: "
                contenders = {name: UPDATES[name] for name in SWEPT}
                measured = _time(plan, contenders, settings, max(2, plan.rounds // 2), prefix, say)
                results.sweep.append({"languages": languages, "ranks": str(ranks), **measured})
    return results


def _time(
    plan: Plan,
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
    gc.collect()
    if setting.device.type == "cuda":
        torch.cuda.empty_cache()
    return measured


def machine(plan: Plan) -> dict[str, Any]:
    """Names the machine and the versions of what ran on it."""
    versions = {name: version(name) for name in PACKAGES if find_spec(name)}
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(encoding="utf-8").splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    gpu = torch.cuda.get_device_name() if plan.device == "cuda" else None
    python = platform.python_version()
    return {"cpu": cpu, "cores": os.cpu_count(), "gpu": gpu, "python": python, **versions, "load": os.getloadavg()[0]}


@dataclass(frozen=True)
class Target:
    """A ratio that must be reached.

    Attributes:
        text: what it compares.
        limit: its bound.
        at_most: whether the bound is an upper one.
        value: what was measured, or None where it was not.
    """

    text: str
    limit: float
    at_most: bool
    value: float | None

    @property
    def reached(self) -> bool:
        """Whether the measured value keeps the bound."""
        return self.value is not None and (self.value <= self.limit if self.at_most else self.value >= self.limit)


def targets(results: Results) -> list[Target]:
    """What the benchmark must reach, and what it did."""
    gpu = results.machine["gpu"] is not None
    sweep = {(row["languages"], row["ranks"]): row for row in results.sweep}
    twelve, hundred, most = (sweep.get((count, str(PAPER[1]))) for count in (12, 100, 200))
    update, translation = results.update, results.translation
    shared = "one shared pair"

    def ratio(table: Mapping | None, name: str, other: str) -> float | None:
        return _timing(table, name).over(_timing(table, other)) if table and {name, other} <= table.keys() else None

    memory = None
    if "peak_bytes" in update.get("full fine-tuning", {}):
        memory = update["ours, mixed"]["peak_bytes"] / update["full fine-tuning"]["peak_bytes"]
    growth = None
    if twelve and most:
        growth = ratio(most, "ours, mixed", shared) / ratio(twelve, "ours, mixed", shared)
    ours, loop = "ours, mixed", "loop over languages"
    return [
        Target("update: ours mixed / one shared pair", 1.10, True, ratio(update, ours, shared)),
        Target("update: ours mixed, 200 languages / 12", 1.10, True, growth),
        Target("update: loop / ours, 12 languages", 3 if gpu else 1.3, False, ratio(update, loop, ours)),
        Target("update: loop / ours, 100 languages", 10 if gpu else 2, False, ratio(hundred, loop, ours)),
        Target("update: full fine-tuning / ours", 1.4, False, ratio(update, "full fine-tuning", ours)),
        Target("peak training memory: ours / full fine-tuning", 0.5, True, memory),
        Target("decoding: ours merged / base", 1.02, True, ratio(translation, "ours, merged", "base model")),
        Target("update: HF + PEFT / ours", 1.0, False, ratio(update, "Hugging Face + PEFT", ours)),
    ]


def _timing(table: Mapping, name: str) -> Timing:
    return Timing(tuple(table[name]["seconds"]))


def to_markdown(results: Results) -> str:
    """The readable tables."""
    machine, plan, shape = results.machine, results.plan, SHAPES[results.plan["shape"]]
    where = machine["gpu"] or f"{machine['cpu']}, {plan['threads']} threads"
    versions = ", ".join(
        f"{name} {machine[name]}" for name in ("torch", "fairseq", "transformers", "peft") if name in machine
    )
    lines = [
        f"{where}; {versions}; {'amp' if plan['amp'] else 'fp32'}; load {machine['load']:.1f} at the start.",
        f"Model: {shape.layers}+{shape.layers} layers, {shape.width}, {shape.ffn}, vocabulary {shape.vocabulary:,}; "
        f"{shape.tokens:,} tokens a batch; {PAPER[0]} languages, ranks {PAPER[1]}; {plan['rounds']} rounds.",
    ]
    for title, table, reference in (
        ("Training update", results.update, "one shared pair"),
        ("Translation, beam 5", results.translation, "base model"),
    ):
        if table:
            lines += ["", f"| {title} | seconds | over {reference} | tokens/s | peak memory |", "|---|---|---|---|---|"]
            lines += [_row(table, name, reference) for name in table]
    if results.sweep:
        lines += [
            "",
            "| Languages | Ranks | one shared pair, s | ours / shared | loop / ours |",
            "|---|---|---|---|---|",
        ]
        for row in results.sweep:
            shared, ours, loop = (_timing(row, name) for name in SWEPT)
            cells = row["languages"], row["ranks"], f"{shared.median:.3f}", f"{ours.over(shared):.2f}"
            lines.append(f"| {' | '.join(map(str, cells))} | {loop.over(ours):.2f} |")
    lines += ["", "| Must reach | | measured | |", "|---|---|---|---|"]
    for target in targets(results):
        value = "not measured" if target.value is None else f"{target.value:.2f}"
        verdict = "" if target.value is None else "yes" if target.reached else "**no**"
        lines.append(f"| {target.text} | {'≤' if target.at_most else '≥'} {target.limit:g} | {value} | {verdict} |")
    return "\n".join(lines)


def _row(table: Mapping[str, Mapping], name: str, reference: str) -> str:
    timing = _timing(table, name)
    memory = f"{table[name]['peak_bytes'] / 2**30:.2f} GiB" if "peak_bytes" in table[name] else ""
    speed = table[name]["tokens"] / timing.median
    return f"| {name} | {timing.median:.3f} | {timing.over(_timing(table, reference)):.2f} | {speed:.0f} | {memory} |"


def write(results: Results, folder: Path) -> tuple[Path, Path]:
    """Writes ``bench.json`` and ``bench.md``."""
    folder.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y-%m-%d %H:%M:%S")
    data = {"written": stamp, **asdict(results), "targets": [asdict(target) for target in targets(results)]}
    (folder / "bench.json").write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "bench.md").write_text(to_markdown(results) + "\n", encoding="utf-8")
    return folder / "bench.json", folder / "bench.md"
