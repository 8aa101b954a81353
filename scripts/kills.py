"""Kills a command at random moments until it has run to its end, and compares all it wrote with an undisturbed run.

Usage: python scripts/kills.py train FOLDER [--kills 50] [--seed 1] [--json FILE]
(evaluate, report, export, make-example, prepare, prepare-flores and study likewise; prepare and prepare-flores
read FLORES-101 from the folder in the environment variable FLORES101)

After each kill the same command is started again. Half of the moments are drawn uniformly over the duration of the
undisturbed run (of a study, over the first half), the others shortly after a random event of its log, such as
the start of a validation, of a save or of a copy. Everything is compared bit for bit: of checkpoints weights, masks,
optimizer state and position; of a training also each loss that any of its runs has logged. The programs are forked from
this one, which has imported what they need. A study, the quickstart with fewer updates, starts other programs: they
are killed with it, or, one time in four, left behind. Not compared are times, and in a study's records the hashes of
files that hold times.
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
from kills_compare import differences, logged_differences

import langspec_lora.cli.main as langspec_lora_main
from langspec_lora.tasks import translation  # noqa: F401  (registers task, model and architectures)

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
LANGUAGES = ["aa", "ab", "ac", "ad"]
LINES = 100  # of each direction
OUT = "out"  # all runs write to the same path, which some of them record
STILL_ENDING = "another run is using"
UNEXPECTED = 70  # the exit code after an exception
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

STEPS = {
    "data": r"^data-.*:$",
    "base": r"^base:$",
    "fine-tuning": r"^train-.*:$",
    "development": r"^development-.*:$",
    "test": r"^test-.*:$",
    "report": r"^report.*:$",
}
"""What a study is doing after a line of its output."""
RECIPE = f"""
extends: {Path(__file__).resolve().parents[1]}/configs/recipes/quickstart.yaml
variables:
  model: >-
    --encoder-layers 2 --encoder-embed-dim 64 --encoder-ffn-embed-dim 128 --encoder-attention-heads 4
    --decoder-layers 2 --decoder-embed-dim 64 --decoder-ffn-embed-dim 128 --decoder-attention-heads 4
    --encoder-normalize-before --decoder-normalize-before --share-all-embeddings --dropout 0.0
  dim: --dim 64
  base-size: --virtual-data-size 600 --max-epoch 3
  size: --virtual-data-size 200 --max-epoch 3
  pruning: --pruning True --pruning-t1 1 --pruning-t2 2 --target-pruning-ratio 0.9
  beam: --beam 2 --lang-pairs {",".join(f"{one}-{two}" for one, two in permutations(("du", "ni", "zi", "po", "ye"), 2))}
"""
"""The quickstart with fewer updates."""


@dataclass
class Job:
    """A command to kill.

    Attributes:
        command: makes its arguments from the folder it writes to.
        main: runs the arguments in ``sys.argv``.
        events: patterns of its log, by what it is doing then.
        repeats: a kill comes after an event that has happened at most so often.
        lingers: it comes at most so many seconds after it.
        starts_others: whether the command starts other programs.
    """

    command: Callable[[Path], list[str]]
    main: Callable[[], int | None]
    events: dict[str, str] = field(default_factory=dict)
    repeats: int = 3
    lingers: float = 0.05
    starts_others: bool = False


@dataclass
class Tally:
    """What happened.

    Attributes:
        kills: by signal.
        moments: by what the program was doing, as its log says.
        clean: SIGTERMs after which a training said that it had saved.
        waits: starts that were refused because programs that were left behind had not ended yet.
        rounds: complete runs, each compared with the undisturbed one.
        losses: what was lost or differs, in words.
    """

    kills: Counter = field(default_factory=Counter)
    moments: Counter = field(default_factory=Counter)
    clean: int = 0
    waits: int = 0
    rounds: int = 0
    losses: list[str] = field(default_factory=list)


def start(job: Job, out: Path, log: Path) -> int:
    """Forks a process that runs the command, and returns its id."""
    child = os.fork()
    if child:
        return child
    code = UNEXPECTED
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
    delay = draw.uniform(0, seconds / 2 if job.starts_others else seconds)  # its finished stages are not run again
    if job.events and draw.random() < 0.5:
        event, delay = draw.choice(list(job.events.values())), draw.choice((0, 0, draw.uniform(0, job.lingers)))
        wanted = draw.randint(1, job.repeats)
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
    tally, out = Tally(), folder / OUT
    while sum(tally.kills.values()) < kills:
        logs = folder / f"logs{tally.rounds}"
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
                alone = not job.starts_others or draw.random() < 0.25
                (os.kill if alone else os.killpg)(child, number)
                code = ended(child, block=True)
                tally.kills[number.name] += 1
                tally.moments[moment if alone or not job.starts_others else f"{moment} with all it had started"] += 1
                _check_end(tally, number, code, log)
            elif code and STILL_ENDING in log.read_text(errors="replace"):
                tally.waits += 1
                time.sleep(0.2)
            elif code != 0:
                tally.losses.append(f"the command failed with {code}; see {log}")
                return tally
            if code == 0:
                break
        out.rename(done := folder / f"round{tally.rounds}")
        tally.rounds += 1
        tally.losses += [f"round {tally.rounds}: {text}" for text in differences(expected, done)]
        tally.losses += logged_differences(folder / "undisturbed.log", sorted(logs.iterdir()))
        if not tally.losses:
            shutil.rmtree(done)
    return tally


def _check_end(tally: Tally, number: signal.Signals, code: int | None, log: Path) -> None:
    text = log.read_text(errors="replace")
    if f"{number.name} received: saved" in text:
        tally.clean += 1
    # omegaconf, with which fairseq starts, puts an error of its own in the place of Ctrl-C.
    interrupted = number == signal.SIGINT and code == UNEXPECTED and "/omegaconf/" in text
    if code not in (0, -number, 128 + number) and not interrupted:
        tally.losses.append(f"exit code {code} after {number.name}; see {log}")


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
        "prepare": lambda out: ["prepare", "--train", f"{flores}/dev", "--test", f"{flores}/devtest",
                                "--valid-lines", "50", "--languages", languages, "--out", str(out),
                                "--vocab-size", "4000"],
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
    if command == "study":
        recipe = folder / "recipe.yaml"
        recipe.write_text(RECIPE, encoding="utf-8")
        words = ["langspec-lora", "study", str(recipe), "--jobs", "2", "--out"]
        return Job(lambda out: [*words, str(out)], langspec_lora_main.main, STEPS, 1, 15.0, True)
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
    choices = ("train", "evaluate", "report", "export", "make-example", "prepare", "prepare-flores", "study")
    parser.add_argument("command", choices=choices)
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
    seconds = undisturbed(job, folder / OUT, folder / "undisturbed.log")
    (folder / OUT).rename(folder / "expected")
    tally = attack(job, folder, folder / "expected", seconds, args.kills, random.Random(args.seed))
    figures = {
        "command": args.command, "seed": args.seed, "seconds": round(seconds, 1), "kills": dict(tally.kills),
        "moments": dict(tally.moments), "saved_on_signal": tally.clean, "waits": tally.waits, "rounds": tally.rounds,
        "losses": tally.losses,
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
