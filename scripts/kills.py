"""Kills a command at random moments until it has run to its end, and compares all it wrote with an undisturbed run.

Usage: python scripts/kills.py train FOLDER [--kills 50] [--seed 1] [--json FILE]
(evaluate, report, export, make-example and prepare-flores likewise; the last reads FLORES-101 from the folder in the
environment variable FLORES101)

After each kill the same command is started again. Half of the moments are drawn uniformly over the duration of the
undisturbed run, the others shortly after a random event of its log, such as the start of a validation, of a save or of
a copy. Everything is compared bit for bit: of checkpoints weights, masks, optimizer state and position; of a training
also each loss that any of its runs has logged. The programs are forked from this one, which has imported what they
need.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path

import fairseq_cli.train
import torch
from growth import write_data
from safetensors import safe_open

import langspec_lora.cli.main as langspec_lora_main
from langspec_lora.tasks import translation  # noqa: F401  (registers task, model and architectures)

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
LANGUAGES = ["aa", "ab", "ac", "ad"]
LINES = 100  # of each direction
LOST_TIME = ("metrics", "previous_training_time")  # in a checkpoint's extra state
EVENTS = {
    "start-up": r"task:|loaded|Loaded checkpoint",
    "epoch edge": r"Start iterating over samples|end of epoch|begin_epoch|per epoch batch_sampler",
    "pruning": r"pruning \|",
    "update": r"train_inner",
    "validation": r"begin validation on",
    "saving": r"Preparing to save|Saving checkpoint to",
    "copying": r"Finished saving",
}
"""What a training is doing after a line of its log."""


@dataclass
class Job:
    """A command to kill.

    Attributes:
        command: makes its arguments from the folder it writes to.
        main: runs the arguments in ``sys.argv``.
        events: patterns of its log, by what it is doing then.
    """

    command: Callable[[Path], list[str]]
    main: Callable[[], int | None]
    events: dict[str, str] = field(default_factory=dict)


@dataclass
class Tally:
    """What happened.

    Attributes:
        kills: by signal.
        moments: by what the program was doing, as its log says.
        clean: SIGTERMs after which a training said that it had saved.
        rounds: complete runs, each compared with the undisturbed one.
        losses: what was lost or differs, in words.
    """

    kills: Counter = field(default_factory=Counter)
    moments: Counter = field(default_factory=Counter)
    clean: int = 0
    rounds: int = 0
    losses: list[str] = field(default_factory=list)


def start(job: Job, out: Path, log: Path) -> int:
    """Forks a process that runs the command, and returns its id."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        sys.stdin, sys.stdout, sys.stderr = open(os.devnull), open(1, "w", buffering=1), open(2, "w", buffering=1)  # noqa: PTH123, SIM115
        import logging

        for handler in logging.getLogger().handlers:
            handler.stream = sys.stdout
        sys.argv = job.command(out)
        code = job.main() or 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(child: int, block: bool = False) -> int | None:
    """The exit code of a process, negative if a signal ended it; None while it runs."""
    done, status = os.waitpid(child, 0 if block else os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def doing(job: Job, log: Path) -> str:
    """What the log's last lines say about the moment."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    for line in reversed(lines):
        for name, pattern in job.events.items():
            if re.search(pattern, line):
                return name
    return "start-up" if job.events else "running"


def wait_for_moment(job: Job, child: int, log: Path, draw: random.Random, seconds: float) -> int | None:
    """Waits until a random moment; returns the exit code if the process has ended before."""
    begun, event = time.monotonic(), None
    delay = draw.uniform(0, seconds)
    if job.events and draw.random() < 0.5:
        event, delay = draw.choice(list(job.events.values())), draw.choice((0, 0, draw.uniform(0, 0.05)))
        wanted = draw.randint(1, 3)
    while True:
        code = ended(child)
        if code is not None:
            return code
        if event is None and time.monotonic() - begun >= delay:
            return None
        if event is not None and log.exists() and len(re.findall(event, log.read_text(errors="replace"))) >= wanted:
            time.sleep(delay)
            return ended(child)
        time.sleep(0.002)


def attack(job: Job, folder: Path, expected: Path, seconds: float, kills: int, draw: random.Random) -> Tally:
    """Kills the command that often, in as many complete runs as that takes."""
    tally = Tally()
    while sum(tally.kills.values()) < kills:
        out, logs = folder / f"round{tally.rounds}", folder / f"logs{tally.rounds}"
        logs.mkdir()
        attempt = 0
        while True:
            attempt += 1
            log = logs / f"{attempt:03}.log"
            child = start(job, out, log)
            quiet = sum(tally.kills.values()) >= kills
            code = ended(child, block=True) if quiet else wait_for_moment(job, child, log, draw, seconds)
            if code is None:
                number = draw.choice(SIGNALS)
                moment = doing(job, log)
                os.kill(child, number)
                code = ended(child, block=True)
                tally.kills[number.name] += 1
                tally.moments[moment] += 1
                _check_end(tally, number, code, log)
            elif code != 0:
                tally.losses.append(f"the command failed with {code}; see {log}")
                return tally
            if code == 0:
                break
        tally.rounds += 1
        tally.losses += [f"round {tally.rounds}: {text}" for text in differences(expected, out)]
        tally.losses += logged_differences(folder / "undisturbed.log", sorted(logs.iterdir()))
        if not tally.losses:
            shutil.rmtree(out)
    return tally


def _check_end(tally: Tally, number: signal.Signals, code: int | None, log: Path) -> None:
    text = log.read_text(errors="replace")
    if f"{number.name} received: saved" in text:
        tally.clean += 1
    if code not in (0, -number, 128 + number):
        tally.losses.append(f"exit code {code} after {number.name}; see {log}")


def files(folder: Path) -> dict[str, Path]:
    """All files but locks, which stay empty."""
    return {
        str(path.relative_to(folder)): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".lock")
    }


def differences(expected: Path, actual: Path) -> list[str]:
    """What differs between two folders, in words."""
    one, two = files(expected), files(actual)
    found = [f"{name} is missing" for name in one.keys() - two.keys()]
    found += [f"{name} is left over" for name in two.keys() - one.keys()]
    for name in one.keys() & two.keys():
        if name.endswith(".pt"):
            found += [f"{name}: {place} differs" for place in unequal(state(one[name]), state(two[name]), "")][:5]
        elif name.endswith(".safetensors"):  # which writes its metadata in any order
            found += [f"{name}: {place} differs" for place in unequal(tensors(one[name]), tensors(two[name]), "")]
        elif name.endswith(".json"):  # in a cache the order depends on which process was the first
            found += [f"{name} differs"] * (json.loads(one[name].read_text()) != json.loads(two[name].read_text()))
        elif one[name].read_bytes() != two[name].read_bytes():
            found.append(f"{name} differs")
    return found


def state(path: Path) -> dict:
    """What a checkpoint holds, without what differs between two undisturbed runs."""
    content = torch.load(path, map_location="cpu", weights_only=False)  # written by this script
    meters = [meter for name in ("train", "train_inner") for meter in content["extra_state"]["metrics"].get(name, [])]
    content["extra_state"] = {key: value for key, value in content["extra_state"].items() if key not in LOST_TIME}
    content["losses"] = [meter[1:] for meter in meters if meter[1] in ("loss", "nll_loss")]
    content["optimizer_history"] = content["optimizer_history"][-1]  # one entry for each time that it was resumed
    content["cfg"]["checkpoint"]["save_dir"] = content["cfg"]["common"]["log_file"] = None
    for part in content["cfg"].values():
        if isinstance(part, argparse.Namespace):
            part.save_dir = None
    rested = content["last_optimizer_state"]["state"][0]
    rested["rested"] = rested["rested"].long()  # a whole number, as what torch loads it until the next update
    # fairseq saves one element of uninitialised memory with each sinusoidal embedding.
    content["model"] = {key: value for key, value in content["model"].items() if not key.endswith("_float_tensor")}
    return content


def tensors(path: Path) -> dict:
    """What a safetensors file holds."""
    with safe_open(path, "pt") as file:
        return {"metadata": file.metadata(), **{key: file.get_tensor(key) for key in file.keys()}}  # noqa: SIM118


def unequal(one: object, two: object, place: str) -> list[str]:
    """The places at which two nested values differ."""
    if isinstance(one, argparse.Namespace) and isinstance(two, argparse.Namespace):
        one, two = vars(one), vars(two)
    if isinstance(one, dict) and isinstance(two, dict):
        found = [f"{place}/{key}" for key in one.keys() ^ two.keys()]
        return found + [
            text for key in one.keys() & two.keys() for text in unequal(one[key], two[key], f"{place}/{key}")
        ]
    if isinstance(one, (list, tuple)) and isinstance(two, (list, tuple)) and len(one) == len(two):
        return [text for n, pair in enumerate(zip(one, two, strict=True)) for text in unequal(*pair, f"{place}/{n}")]
    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        return [] if one.dtype == two.dtype and torch.equal(one, two) else [place]
    return [] if one == two else [f"{place} ({one!r:.60}, {two!r:.60})"]


def logged_losses(logs: list[Path]) -> dict[tuple, set]:
    """By kind of line and update, the losses that were logged."""
    found: dict[tuple, set] = {}
    for log in logs:
        for kind, line in re.findall(r"\| (train_inner|train|valid) \| (\{\".*\})", log.read_text(errors="replace")):
            numbers = json.loads(line)
            prefix = "" if kind == "train_inner" else f"{kind}_"
            key = (kind, numbers["epoch"], numbers[f"{prefix}num_updates"])
            found.setdefault(key, set()).add((numbers[f"{prefix}loss"], numbers[f"{prefix}nll_loss"]))
    return found


def logged_differences(expected: Path, logs: list[Path]) -> list[str]:
    """Losses that the disturbed runs have logged otherwise, or not at all.

    The line of an update may be missing if the program was killed before the line was written and after the save.
    """
    one, two = logged_losses([expected]), logged_losses(logs)
    found = [f"{key}: logged {two[key]}, expected {one.get(key)}" for key in two if two[key] != one.get(key)]
    return found + [f"{key}: not logged" for key in one.keys() - two.keys() if key[0] != "train_inner"]


def training(data: Path, epochs: int) -> Job:
    """A small training with pruning, validation and saving within its epochs, and removal of old checkpoints."""
    pairs = ",".join(f"{a}-{b}" for a, b in permutations(LANGUAGES, 2))
    flags = f"""
        --user-dir langspec_lora --task translation_multi_simple_epoch_lora --arch langspec_m2m100_lora_tiny
        --langs {",".join(LANGUAGES)} --lang-pairs {pairs} --encoder-langtok src --decoder-langtok
        --lang-resources {data.parent / "levels.yaml"} --high-rank 2 --med-rank 3 --low-rank 4
        --fixed-dictionary {data.parent / "dict.txt"} --share-all-embeddings --share-decoder-input-output-embed
        --encoder-embed-dim 32 --decoder-embed-dim 32 --encoder-ffn-embed-dim 64 --decoder-ffn-embed-dim 64
        --encoder-attention-heads 2 --decoder-attention-heads 2 --encoder-layers 2 --decoder-layers 2
        --criterion label_smoothed_cross_entropy --label-smoothing 0.2 --dropout 0.1 --clip-norm 1.0
        --optimizer adam --lr-scheduler inverse_sqrt --lr 3e-3 --warmup-updates 4 --seed 2 --update-freq 2
        --max-tokens 800 --required-batch-size-multiple 1 --num-workers 0 --cpu --max-epoch {epochs}
        --pruning True --pruning-t1 1 --pruning-t2 2 --target-pruning-ratio 0.8
        --sampling-method temperature --sampling-temperature 5.0
        --save-interval-updates 5 --keep-interval-updates 2 --validate-interval-updates 4 --keep-last-epochs 2
        --log-format json --log-interval 1
    """

    def command(out: Path) -> list[str]:
        return ["fairseq-train", str(data), *flags.split(), "--save-dir", str(out)]

    return Job(command, fairseq_cli.train.cli_main, EVENTS)


def commands(data: Path, work: Path) -> dict[str, Callable[[Path], list[str]]]:
    """The commands of langspec-lora that can be attacked; they read what an undisturbed training left in ``work``."""
    checkpoint, results = str(work / "trained" / "checkpoint_last.pt"), str(work / "evaluated")
    common = ["--tokenize", "13a", "--references", str(data.parent / "mono"), "--beam", "2", "--cpu"]
    flores = os.environ.get("FLORES101", "")
    languages = str(Path(__file__).resolve().parents[1] / "configs/languages/twelve.yaml")
    return {
        "evaluate": lambda out: ["evaluate", str(data), "--checkpoint", checkpoint, "--out", str(out), *common],
        "report": lambda out: ["report", results, "--out", str(out), "--samples", "2000", "--lang-resources",
                               str(data.parent / "levels.yaml")],
        "export": lambda out: ["export", checkpoint, "--format", "adapter", "--out", str(out), "--overwrite"],
        "make-example": lambda out: ["make-example", str(out)],
        "prepare-flores": lambda out: ["prepare-flores", "--from", flores, "--languages", languages, "--out", str(out),
                                       "--vocab-size", "4000"],
    }  # fmt: skip


def langspec_lora(make: Callable[[Path], list[str]]) -> Job:
    return Job(lambda out: ["langspec-lora", *make(out)], langspec_lora_main.main)


def undisturbed(job: Job, out: Path, log: Path) -> float:
    """Runs a command to its end and returns the seconds it took."""
    begun = time.monotonic()
    if code := ended(start(job, out, log), block=True):
        raise SystemExit(f"the undisturbed command failed with {code}; see {log}")
    return time.monotonic() - begun


def prepare(command: str, folder: Path, epochs: int) -> Job:
    """Writes the data of a command, and runs the undisturbed commands whose output it reads."""
    data = write_data(folder / "data", LANGUAGES, LINES)
    train = training(data, epochs)
    if command == "train":
        return train
    makes = commands(data, folder)
    if command in ("evaluate", "report", "export"):
        undisturbed(train, folder / "trained", folder / "trained.log")
    if command == "report":
        undisturbed(langspec_lora(makes["evaluate"]), folder / "evaluated", folder / "evaluated.log")
    return langspec_lora(makes[command])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("command", choices=("train", "evaluate", "report", "export", "make-example", "prepare-flores"))
    parser.add_argument("folder", type=Path, help="new folder to work in")
    parser.add_argument("--kills", type=int, default=50, metavar="N", help="default: 50")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of signals and moments (default: 1)")
    parser.add_argument("--epochs", type=int, default=3, metavar="N", help="of the training (default: 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    args = parser.parse_args(argv)
    folder = args.folder.resolve()
    folder.mkdir(parents=True)
    torch.set_num_threads(1)  # sums depend on the number of threads
    job = prepare(args.command, folder, args.epochs)
    seconds = undisturbed(job, folder / "expected", folder / "undisturbed.log")
    tally = attack(job, folder, folder / "expected", seconds, args.kills, random.Random(args.seed))
    figures = {
        "command": args.command, "seed": args.seed, "seconds": round(seconds, 1), "kills": dict(tally.kills),
        "moments": dict(tally.moments), "saved_on_signal": tally.clean, "rounds": tally.rounds, "losses": tally.losses,
    }  # fmt: skip
    kills = ", ".join(f"{count} {name}" for name, count in sorted(tally.kills.items()))
    moments = ", ".join(f"{count} {name}" for name, count in sorted(tally.moments.items()))
    print("| command | kills | while | saved and left | complete runs | losses |\n|---|---|---|---|---|---|")
    print(f"| {args.command} | {kills} | {moments} | {tally.clean} | {tally.rounds} | {len(tally.losses)} |")
    print(*tally.losses, sep="\n", end="\n" if tally.losses else "")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 1 if tally.losses else 0


if __name__ == "__main__":
    sys.exit(main())
