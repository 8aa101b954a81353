"""The targets of the benchmark, and the tables of its results."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from langspec_lora.benchmark.compare import MOVE, SWEPT, Results
from langspec_lora.benchmark.contenders import Setting
from langspec_lora.benchmark.measure import ratio
from langspec_lora.benchmark.workload import PAPER, SHAPES
from langspec_lora.files import write_json, write_whole
from langspec_lora.naming import some_of
from langspec_lora.report.table import Table


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
    sweep = {row["languages"]: row for row in results.sweep if row["ranks"] == str(PAPER)}
    twelve, hundred, most = (sweep.get(languages, {}) for languages in (12, 100, 200))
    update, translation = results.update, results.translation
    shared, ours, loop = SWEPT
    full = "full fine-tuning"

    def over(table: Mapping, name: str, other: str) -> float | None:
        return ratio(table[name]["seconds"], table[other]["seconds"]) if {name, other} <= table.keys() else None

    at_most, at_twelve = over(most, ours, shared), over(twelve, ours, shared)
    growth = at_most / at_twelve if at_most and at_twelve else None
    memory = None
    if "peak_bytes" in update.get(full, {}):
        memory = update[ours]["peak_bytes"] / update[full]["peak_bytes"]
    return [
        Target("update: ours mixed / one shared adapter", 1.10, True, over(update, ours, shared)),
        Target("update: ours mixed, 200 languages / 12", 1.10, True, growth),
        Target("update: absent languages rest / move, 12 languages", 1.02, True, over(update, ours, MOVE)),
        Target("update: absent languages rest / move, 200 languages", 1.02, True, over(most, ours, MOVE)),
        Target("update: loop / ours, 12 languages", 3 if gpu else 1.3, False, over(update, loop, ours)),
        Target("update: loop / ours, 100 languages", 10 if gpu else 2, False, over(hundred, loop, ours)),
        Target("update: full fine-tuning / ours", 1.4, False, over(update, full, ours)),
        Target("peak training memory: ours / full fine-tuning", 0.5, True, memory),
        Target("decoding: ours merged / base", 1.02, True, over(translation, "ours, merged", "base model")),
        Target("update: HF + PEFT / ours", 1.0, False, over(update, "Hugging Face + PEFT", ours)),
    ]


def to_markdown(results: Results) -> str:
    """The results as Markdown tables."""
    machine, plan, shape = results.machine, results.plan, SHAPES[results.plan["shape"]]
    where = machine["gpu"] or f"{machine['cpu']}, {plan['threads']} threads"
    packages = [name for name in ("torch", "fairseq", "transformers", "peft") if name in machine]
    versions = some_of(f"{name} {machine[name]}" for name in packages)
    blocks = [
        f"{where}; {versions}; {'amp' if plan['amp'] else 'fp32'}; load {machine['load']:.1f} at the start.\n"
        f"Model: {shape.size.layers}+{shape.size.layers} layers, {shape.size.width}, {shape.size.ffn}, vocabulary "
        f"{shape.vocabulary:,}; {shape.tokens:,} tokens a batch; {Setting.languages} languages, ranks {PAPER}; "
        f"{plan['rounds']} rounds."
    ]
    for title, table, reference in (
        ("Training update", results.update, "one shared adapter"),
        ("Translation, beam 5", results.translation, "base model"),
    ):
        if table:
            header = [title, "seconds", f"over {reference}", "tokens/s", "peak memory"]
            blocks.append(_table(header, (_contender_row(table, name, reference) for name in table)))
    if results.sweep:
        header = ["Languages", "Ranks", "one shared adapter, s", "ours / shared", "loop / ours"]
        blocks.append(_table(header, map(_sweep_row, results.sweep)))
    blocks.append(_table(["Must reach", "", "measured", ""], map(_target_row, targets(results))))
    return "\n\n".join(blocks)


def _table(header: Sequence[str], cells: Iterable[Sequence[str]]) -> str:
    return Table(header, list(cells)).markdown()


def _contender_row(table: Mapping[str, Mapping], name: str, reference: str) -> list[str]:
    row, seconds = table[name], statistics.median(table[name]["seconds"])
    memory = f"{row['peak_bytes'] / 2**30:.2f} GiB" if "peak_bytes" in row else ""
    over = ratio(row["seconds"], table[reference]["seconds"])
    return [name, f"{seconds:.3f}", f"{over:.2f}", f"{row['tokens'] / seconds:.0f}", memory]


def _sweep_row(row: Mapping) -> list[str]:
    shared, ours, loop = (row[name]["seconds"] for name in SWEPT)
    figures = [f"{statistics.median(shared):.3f}", f"{ratio(ours, shared):.2f}", f"{ratio(loop, ours):.2f}"]
    return [str(row["languages"]), row["ranks"], *figures]


def _target_row(target: Target) -> list[str]:
    bound = f"{'≤' if target.at_most else '≥'} {target.limit:g}"
    if target.value is None:
        return [target.text, bound, "not measured", ""]
    return [target.text, bound, f"{target.value:.2f}", "yes" if target.reached else "**no**"]


def write(results: Results, folder: Path) -> tuple[Path, Path]:
    """Writes ``bench.json`` and ``bench.md``."""
    stamp = time.strftime("%Y-%m-%d %H:%M:%S")
    found = [asdict(target) for target in targets(results)]
    write_json(folder / "bench.json", {"written": stamp, **asdict(results), "targets": found})
    write_whole(folder / "bench.md", to_markdown(results) + "\n")
    return folder / "bench.json", folder / "bench.md"
