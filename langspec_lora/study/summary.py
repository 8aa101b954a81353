"""What a study found, in one table: parameters, chosen rates, scores, time and memory of each variant."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, median
from typing import Any

from langspec_lora.evaluation.results import read_run
from langspec_lora.files import write_json, write_whole
from langspec_lora.naming import some_of
from langspec_lora.report.table import Table
from langspec_lora.study.recipe import BASE, Variant
from langspec_lora.study.state import Study
from langspec_lora.study.steps import Step, command_text

PAGE, NUMBERS = "study.md", "results.json"

_PARAMETERS = re.compile(r"num\. shared model params: ([\d,]+) \(num\. trained: ([\d,]+)\)")
_UPDATES = re.compile(r"train \| epoch .*\| ups ([\d.]+) \|.*num_updates (\d+) \|.*train_wall (\d+) ")


def summary(study: Study, metric: str) -> list[dict[str, Any]]:
    """What is known of the base and of each variant.

    Args:
        study: a study that has run.
        metric: the score of held-out text.
    """
    plan = study.plan
    rows: list[dict[str, Any]] = [
        {"name": BASE, "scores": {BASE: _score(plan.test_folder(BASE), metric)}, "bytes": plan.base.stat().st_size}
    ]
    for variant in study.recipe.variants:
        scores = {seed: _score(plan.test_folder(variant.name, seed), metric) for seed in study.recipe.seeds}
        rows.append({"name": variant.name, "scores": scores, **_of_training(study, variant)})
    for row in rows:
        row["mean"] = fmean(row["scores"].values())
    return rows


def _of_training(study: Study, variant: Variant) -> dict[str, Any]:
    """Parameters, time and memory of a variant's first training with the chosen rate."""
    choice, step = study.choices.get(variant.name), _training_step(study, variant)
    output, record = study.records.output(step), study.records.read(step)
    found = _PARAMETERS.search(output)
    return {
        "rate": step.rate,
        "rates": dict(choice.scores) if choice else {},
        "end": choice.at_an_end if choice else "",
        "parameters": _number(found[1]) if found else None,
        "trained": _number(found[2]) if found else None,
        "seconds": record.get("seconds") if record.get("attempts") == 1 else None,
        "update": seconds_of_an_update(output),
        "memory": record.get("memory"),
        "bytes": step.result.stat().st_size,
    }


def seconds_of_an_update(output: str) -> float | None:
    """The median over epochs, from fairseq's log, which rounds updates per second to two digits, times to seconds."""
    found, before = [], 0
    for ups, updates, seconds in _UPDATES.findall(output):
        if float(ups) >= 1:
            found.append(1 / float(ups))
        elif int(updates) > before:
            found.append(int(seconds) / (int(updates) - before))
        before = int(updates)
    return median(found) if found else None


def _number(text: str) -> int:
    return int(text.replace(",", ""))


def _score(folder: Path, metric: str) -> float:
    return fmean(read_run(folder, folder.name).metric(metric).values())


def table(study: Study, rows: list[dict[str, Any]], metric: str) -> Table:
    """The table, as a person reads it."""
    against = {name: _differences(study.plan.report_folder(name), name) for name in study.recipe.compare_with}
    header = ["", "trained", "share", "rate", metric, "seeds"]
    header += [f"against {name}" for name in against]
    header += ["s/update", "memory", "checkpoint"]
    cells = []
    for row in rows:
        trained, total = row.get("trained"), row.get("parameters")
        scores = list(row["scores"].values())
        cells.append(
            [
                row["name"],
                "" if trained is None else f"{trained:,}",
                "" if not trained or not total else f"{trained / (total - trained or total):.2%}",
                row.get("rate", ""),
                f"{row['mean']:.2f}",
                " ".join(f"{score:.2f}" for score in scores) if len(scores) > 1 else "",
                *(found.get(row["name"], "") for found in against.values()),
                "" if not row.get("update") else f"{row['update']:.3f}",
                _size(row.get("memory")),
                _size(row["bytes"]),
            ]
        )
    return Table(header, cells)


def _size(count: int | None) -> str:
    if count is None:
        return ""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count / 1e3:.0f} kB"


def _differences(report: Path, first: str) -> Mapping[str, str]:
    """The difference of each row to the first over all directions, with its interval, from a report."""
    with (report / "report.csv").open(encoding="utf-8", newline="") as file:
        line = next(row for row in csv.DictReader(file) if row["group"] == "all")
    found = {}
    for column, value in line.items():
        name, minus, other = column.partition(" − ")
        if minus and other == first and value:
            low, high = (line.get(f"{column}: {word}", "") for word in ("low", "high"))
            interval = f" ({float(low):+.2f}, {float(high):+.2f})" if low and high else ""
            found[name] = f"{float(value):+.2f}{interval}".replace("-", "−")
    return found


def notes(study: Study, rows: list[dict[str, Any]]) -> list[str]:
    """What a reader of the table must know."""
    found = []
    recipe = study.recipe
    ends = [f"{row['name']} ({row['rate']})" for row in rows if row.get("end")]
    if ends:
        found.append(
            f"the best learning rate of {some_of(ends)} is the smallest or largest that was tried: try others beyond it"
        )
    tied = []
    for row in rows:
        scores = row.get("rates", {})
        if list(scores.values()).count(scores.get(row.get("rate"))) > 1:
            tied.append(row["name"])
    if tied:
        found.append(
            f"several learning rates of {some_of(tied)} were equally good, so that the first of them was taken"
        )
    numbers = {len(variant.rates) for variant in recipe.variants}
    if len(numbers) > 1:
        counts = some_of(f"{variant.name} {len(variant.rates)}" for variant in recipe.variants)
        found.append(
            f"the variants chose among different numbers of learning rates ({counts}), which favours those with more"
        )
    if len(recipe.seeds) == 1:
        found.append("one seed: what another seed changes is not known")
    versions = {
        str(study.records.read(step).get("versions")) for step in study.plan.steps.values() if step.name in study.done
    }
    if len(versions) > 1:
        found.append(f"steps ran with different versions: {some_of(sorted(versions), between=' and ')}")
    return found


def write(study: Study, metric: str) -> str:
    """Writes ``study.md`` and ``results.json``, and returns the text for a terminal."""
    rows = summary(study, metric)
    own = table(study, rows, metric).markdown()
    remarks = notes(study, rows)
    text = "\n".join([own, "", *(f"* {note}" for note in remarks)]) if remarks else own
    folders = [study.plan.report_folder(name) for name in study.recipe.compare_with]
    reports = [f"{folder.relative_to(study.out)}/report.html" for folder in folders]
    page = [f"# {study.recipe.title}", "", text, "", *(f"[{path}]({path})" for path in reports), ""]
    for variant in study.recipe.variants:
        step = _training_step(study, variant)
        page += [f"## {variant.name}", "", "```bash", command_text(step.command), "```", ""]
    write_whole(study.out / PAGE, "\n".join(page))
    write_json(study.out / NUMBERS, {"metric": metric, "rows": rows, "notes": remarks})
    return text


def _training_step(study: Study, variant: Variant) -> Step:
    choice = study.choices.get(variant.name)
    rate, seed = choice.rate if choice else variant.rates[0], study.recipe.seeds[0]
    return next(
        step
        for step in study.plan.steps.values()
        if (step.kind, step.variant, step.rate, step.seed) == ("train", variant.name, rate, seed)
    )
