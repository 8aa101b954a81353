"""The targets of the benchmark, and the tables of its results."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from langspec_lora.benchmark.compare import MOVE, PAPER, SWEPT, Results
from langspec_lora.benchmark.measure import Timing
from langspec_lora.benchmark.workload import SHAPES


@dataclass(frozen=True)
class Target:
    """A target for a measured ratio.

    Attributes:
        text: what is compared.
        limit: the bound.
        at_most: whether it is an upper bound; otherwise it is a lower bound.
        value: the measured ratio; None if it was not measured.
    """

    text: str
    limit: float
    at_most: bool
    value: float | None

    @property
    def reached(self) -> bool:
        """Whether the measured ratio is within the bound."""
        return self.value is not None and (self.value <= self.limit if self.at_most else self.value >= self.limit)


def targets(results: Results) -> list[Target]:
    """The targets of the benchmark, with the measured ratios."""
    gpu = results.machine["gpu"] is not None
    sweep = {(row["languages"], row["ranks"]): row for row in results.sweep}
    twelve, hundred, most = (sweep.get((count, str(PAPER[1]))) for count in (12, 100, 200))
    update, translation = results.update, results.translation
    shared = "one shared adapter"

    def ratio(table: Mapping | None, name: str, other: str) -> float | None:
        return _timing(table, name).over(_timing(table, other)) if table and {name, other} <= table.keys() else None

    memory = None
    if "peak_bytes" in update.get("full fine-tuning", {}):
        memory = update["ours, mixed"]["peak_bytes"] / update["full fine-tuning"]["peak_bytes"]
    at_most, at_twelve = ratio(most, "ours, mixed", shared), ratio(twelve, "ours, mixed", shared)
    growth = at_most / at_twelve if at_most and at_twelve else None
    ours, loop = "ours, mixed", "loop over languages"
    return [
        Target("update: ours mixed / one shared adapter", 1.10, True, ratio(update, ours, shared)),
        Target("update: ours mixed, 200 languages / 12", 1.10, True, growth),
        Target("update: absent languages rest / move, 12 languages", 1.02, True, ratio(update, ours, MOVE)),
        Target("update: absent languages rest / move, 200 languages", 1.02, True, ratio(most, ours, MOVE)),
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
    """The results as Markdown tables."""
    machine, plan, shape = results.machine, results.plan, SHAPES[results.plan["shape"]]
    size = shape.size
    where = machine["gpu"] or f"{machine['cpu']}, {plan['threads']} threads"
    versions = ", ".join(
        f"{name} {machine[name]}" for name in ("torch", "fairseq", "transformers", "peft") if name in machine
    )
    lines = [
        f"{where}; {versions}; {'amp' if plan['amp'] else 'fp32'}; load {machine['load']:.1f} at the start.",
        f"Model: {size.layers}+{size.layers} layers, {size.width}, {size.ffn}, vocabulary {shape.vocabulary:,}; "
        f"{shape.tokens:,} tokens per batch; {PAPER[0]} languages, ranks {PAPER[1]}; {plan['rounds']} rounds.",
    ]
    for title, table, reference in (
        ("Training update", results.update, "one shared adapter"),
        ("Translation, beam 5", results.translation, "base model"),
    ):
        if table:
            lines += ["", f"| {title} | seconds | over {reference} | tokens/s | peak memory |", "|---|---|---|---|---|"]
            lines += [_row(table, name, reference) for name in table]
    if results.sweep:
        lines += [
            "",
            "| Languages | Ranks | one shared adapter, s | ours / shared | loop / ours |",
            "|---|---|---|---|---|",
        ]
        for row in results.sweep:
            shared, ours, loop = (_timing(row, name) for name in SWEPT)
            cells = row["languages"], row["ranks"], f"{shared.median:.3f}", f"{ours.over(shared):.2f}"
            lines.append(f"| {' | '.join(map(str, cells))} | {loop.over(ours):.2f} |")
    lines += ["", "| Target | | measured | reached |", "|---|---|---|---|"]
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
