"""The checks: each gives whether it passed, what was measured and what it had to be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from importlib.util import find_spec

import torch
from checkpoints import different_entries, logits_of, pruned_entries
from machine import EPOCHS, LENGTH, START, TARGET, Machine

from langspec_lora.evaluation.results import read_run
from langspec_lora.example.small_training import finetune_flags, pretrain_flags
from langspec_lora.pruning.schedule import PruningSchedule

UPDATES = 10
"""How many updates are compared with the CPU's; after more, rounding has grown."""
DIRECTIONS = 6


class Skipped(Exception):
    """A check that this machine cannot make; its text is the reason."""


def largest_difference(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The largest relative difference of the first updates."""
    ours, theirs = ours[:UPDATES], theirs[:UPDATES]
    if len(ours) != len(theirs) or not ours:
        raise RuntimeError(f"{len(ours)} and {len(theirs)} updates cannot be compared")
    return max(abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True))


def make_example(machine: Machine) -> tuple[bool, str, str]:
    """Text, binarised data, and a base model that stock fairseq trains on the device."""
    machine.run("example", "-m", "langspec_lora.cli.main", "make-example", machine.out / "example")
    flags = pretrain_flags(machine.out / "example" / "pretrain", machine.out / "base")
    if machine.cuda:
        size = ["--max-epoch", 6]
        flags.remove("--cpu")
    else:
        size = ["--max-epoch", 1, "--virtual-data-size", 1500]
    report = machine.fairseq("base", "train", [*flags, *size])
    return report["losses"][-1] < report["losses"][0], f"loss {report['losses'][-1]:.2f}", "below its start"


def losses(precision: str, limit: float) -> Callable[[Machine], tuple[bool, str, str]]:
    """Compares the first updates with those on the CPU in single precision."""

    def check(machine: Machine) -> tuple[bool, str, str]:
        expected = machine.train("cpu", "cpu", "--max-update", UPDATES)["losses"]
        found = largest_difference(machine.whole(precision)["losses"], expected)
        return found <= limit, f"{found:.1e}", f"≤ {limit:.0e} relative, {UPDATES} updates"

    return check


def logits(machine: Machine) -> tuple[bool, str, str]:
    """Logits of the trained model for one batch, on the device and on the CPU, in single and in half precision."""
    machine.whole("amp")
    path = machine.out / "amp" / "checkpoint_last.pt"
    expected = logits_of(path, machine.data, "cpu", torch.float32)
    device, half = ("cuda", torch.float16) if machine.cuda else ("cpu", torch.bfloat16)
    found = {dtype: logits_of(path, machine.data, device, dtype) for dtype in (torch.float32, half)}
    size = float(expected.abs().max())
    errors = [float((value - expected).abs().max()) / size for value in found.values()]
    limits = (1e-4, 1e-2 if machine.cuda else 5e-2)
    passed = all(error <= limit for error, limit in zip(errors, limits, strict=True))
    return passed, f"{errors[0]:.1e}, half {errors[1]:.1e}", f"≤ {limits[0]:.0e}, half {limits[1]:.0e} of the largest"


def masks(precision: str) -> Callable[[Machine], tuple[bool, str, str]]:
    """In each epoch's checkpoint, each language has as many pruned entries as the schedule says, and all are zero."""

    def check(machine: Machine) -> tuple[bool, str, str]:
        machine.whole(precision)
        schedule = PruningSchedule(START, LENGTH, TARGET)
        wrong = pruned = 0
        for epoch in range(1, EPOCHS + 1):
            path = machine.out / precision / f"checkpoint{epoch}.pt"
            for count, total, nonzero in pruned_entries(path):
                wrong += abs(count - round(schedule.ratio(epoch) * total)) + nonzero
                pruned += count
        return wrong == 0 and pruned > 0, f"{wrong} wrong of {pruned:,}", "0 wrong"

    return check


def resume(precision: str) -> Callable[[Machine], tuple[bool, str, str]]:
    """A training that was stopped within an epoch and continued ends as one that was not, bit for bit."""

    def check(machine: Machine) -> tuple[bool, str, str]:
        updates = len(machine.whole(precision)["losses"])
        name = f"{precision}-resumed"
        machine.train(name, precision, "--max-update", updates // 2)
        (machine.out / "reports" / f"{name}.json").unlink()
        machine.train(name, precision)
        paths = [machine.out / folder / "checkpoint_last.pt" for folder in (precision, name)]
        different = different_entries(*paths)
        figure = f"{len(different)} entries differ" + (f", first {different[0]}" if different else "")
        if different:  # is it the resuming, or does the device itself not repeat?
            machine.train(f"{precision}-again", precision)
            again = different_entries(paths[0], machine.out / f"{precision}-again" / "checkpoint_last.pt")
            figure += "; an undisturbed second run " + (f"differs in {len(again)}" if again else "is equal")
        return not different, figure, "0 entries differ"

    return check


def scores(machine: Machine) -> tuple[bool, str, str]:
    """``langspec-lora evaluate`` in half precision, against single precision."""
    machine.whole("amp")
    half = "--fp16" if machine.cuda else "--bf16"
    pairs = (machine.out / "example" / "finetune.pairs").read_text(encoding="utf-8").strip().split(",")[:DIRECTIONS]
    found = []
    for name, flags in (("single", ()), ("half", (half,))):
        folder = machine.out / "results" / name
        command = ["-m", "langspec_lora.cli.main", "evaluate", machine.data, "--out", folder, "--overwrite"]
        command += ["--checkpoint", machine.out / "amp" / "checkpoint_last.pt", "--lang-pairs", ",".join(pairs)]
        command += ["--tokenize", "13a", "--batching", "direction", *([] if machine.cuda else ["--cpu"]), *flags]
        machine.run(f"evaluate-{name}", *command)
        found.append(read_run(folder, name))
    single, other = (run.metric("bleu") for run in found)
    worst = max(abs(single[direction] - other[direction]) for direction in single)
    lines = [[line for d in single for line in run.hypotheses(d).read_text("utf-8").splitlines()] for run in found]
    same = sum(a == b for a, b in zip(*lines, strict=True)) / len(lines[0])
    figure = f"{worst:.2f} BLEU in the worst of {len(single)}; {same:.1%} of {len(lines[0])} sentences equal"
    return worst <= 0.5 if machine.cuda else worst <= 3, figure, f"≤ {0.5 if machine.cuda else 3} BLEU"


def published_loop(machine: Machine) -> tuple[bool, str, str]:
    """The published ``fairseq-generate … --fp16`` for one direction, against ``langspec-lora evaluate``."""
    evaluated = machine.out / "results" / ("half" if machine.cuda else "single")
    if not evaluated.is_dir():
        scores(machine)
    run = read_run(evaluated, "evaluated")
    direction = next(iter(run.metric("bleu")))
    source, target = direction
    pairs = (machine.out / "example" / "finetune.pairs").read_text(encoding="utf-8").strip()
    trained = finetune_flags(machine.data, machine.base, machine.out, True)
    langs = trained[trained.index("--langs") + 1]
    flags = [machine.data, "--user-dir", "langspec_lora", "--path", machine.out / "amp" / "checkpoint_last.pt"]
    flags += ["--fixed-dictionary", machine.out / "example" / "dict.txt", "--required-batch-size-multiple", 1]
    flags += ["--langs", langs, "--lang-pairs", pairs, "-s", source, "-t", target, "--beam", 5]
    flags += ["--remove-bpe", "sentencepiece", "--task", "translation_multi_simple_epoch_lora", "--decoder-langtok"]
    flags += ["--encoder-langtok", "src", "--gen-subset", "test", "--dataset-impl", "mmap"]
    flags += ["--distributed-world-size", 1, "--distributed-no-spawn", "--fp16" if machine.cuda else "--cpu"]
    machine.fairseq("generate", "generate", flags)
    output = (machine.out / "logs" / "generate.log").read_text(encoding="utf-8").splitlines()
    found = {int(line.split("\t")[0][2:]): line.split("\t")[-1] for line in output if line.startswith("H-")}
    expected = run.hypotheses(direction).read_text(encoding="utf-8").splitlines()
    same = sum(found.get(number) == line for number, line in enumerate(expected)) / len(expected)
    return same >= 0.95, f"{same:.1%} of {len(expected)} sentences equal ({direction})", "≥ 95 %"


def wrapper(machine: Machine) -> tuple[bool, str, str]:
    """torch's DistributedDataParallel around the model, in one process."""
    backend = ["--distributed-backend", "nccl" if machine.cuda else "gloo"]
    flags = ["--ddp-backend", "pytorch_ddp", "--max-update", UPDATES, *backend]
    wrapped = machine.train("wrapped", "amp", *flags, watch=["--wrapped"])["losses"]
    found = largest_difference(wrapped, machine.whole("amp")["losses"])
    return found <= 1e-6, f"{found:.1e}", "≤ 1e-06 relative"


def apex(machine: Machine) -> tuple[bool, str, str]:
    """With apex, fairseq takes its fused Adam and layer norm; without its Adam the losses must stay the same."""
    if find_spec("apex") is None or not machine.cuda:
        raise Skipped("apex is not installed" if machine.cuda else "apex needs a GPU")
    plain = machine.train("old-adam", "amp", "--use-old-adam", "--max-update", UPDATES)["losses"]
    found = largest_difference(machine.whole("amp")["losses"], plain)
    return found <= 1e-3, f"{found:.1e}", "≤ 1e-03 relative"


def waits(machine: Machine) -> tuple[bool, str, str]:
    """The lines of this package at which an update waits for the GPU, as torch reports them."""
    if not machine.cuda:
        raise Skipped("only a GPU is waited for")
    found = machine.train("waits", "amp", "--max-update", UPDATES, watch=["--waits"])
    lines = [line for line in found["waits"] if "/langspec_lora/" in line]
    often = {line: lines.count(line) for line in lines if lines.count(line) >= UPDATES}
    return not often, f"{len(often)} lines in every update {list(often)[:2] or ''}", "0 lines"


def memory(machine: Machine) -> tuple[bool, str, str]:
    """The most memory that torch held on the GPU while it trained."""
    peak = machine.whole("amp")["peak_bytes"]
    if peak is None:
        raise Skipped("only a GPU's memory is measured")
    return peak <= 2**31, f"{peak / 2**20:.0f} MiB", "≤ 2048 MiB"


def bench(machine: Machine) -> tuple[bool, str, str]:
    """``langspec-lora bench`` at the 615M shape: our update against one shared adapter."""
    folder = machine.out / "bench"
    shutil.rmtree(folder, ignore_errors=True)
    shape = ["--shape", "615m"] if machine.cuda else ["--shape", "tiny", "--cpu"]
    command = ["bench", *shape, "--parts", "update", "memory", "--rounds", 3, "--out", folder]
    machine.run("bench", "-m", "langspec_lora.cli.main", *command)
    update = json.loads((folder / "bench.json").read_text(encoding="utf-8"))["update"]
    ours, shared = (sorted(update[name]["seconds"])[1] for name in ("ours, mixed", "one shared adapter"))
    peak = update["ours, mixed"].get("peak_bytes", 0) / 2**30
    speed = update["ours, mixed"]["tokens"] / ours
    limit = 1.15 if machine.cuda else 3
    return ours / shared <= limit, f"{ours / shared:.2f}; {speed:,.0f} tokens/s, {peak:.2f} GiB", f"≤ {limit} of shared"


CHECKS: dict[str, Callable[[Machine], tuple[bool, str, str]]] = {
    "example": make_example,
    "losses-fp32": losses("fp32", 1e-4),
    "losses-amp": losses("amp", 1e-2),
    "losses-fp16": losses("fp16", 1e-2),
    "logits": logits,
    "masks-amp": masks("amp"),
    "masks-fp16": masks("fp16"),
    "resume-amp": resume("amp"),
    "resume-fp16": resume("fp16"),
    "evaluate-half": scores,
    "generate-half": published_loop,
    "pytorch-ddp": wrapper,
    "memory": memory,
    "waits": waits,
    "apex": apex,
    "bench": bench,
}
