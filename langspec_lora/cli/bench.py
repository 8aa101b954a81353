"""``langspec-lora bench``: what language-specific adapters cost, in ratios measured within one run."""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path

from langspec_lora.errors import UserError

HELP = "measure speed and memory against one shared adapter, a loop over languages, full fine-tuning and PEFT"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument(
        "--out", type=Path, default=Path("bench"), metavar="DIR", help="where to write (default: bench)"
    )
    parser.add_argument(
        "--shape", choices=("tiny", "small", "615m"), help="size (default: 615m on a GPU, small on a CPU)"
    )
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU")
    parser.add_argument("--amp", action=argparse.BooleanOptionalAction, help="autocast (default: on a GPU)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="repetitions (default: 5)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the CPU (default: torch's)")
    parser.add_argument(
        "--parts", nargs="+", metavar="PART", help="only these of update, translation, sweep, memory (default: all)"
    )


def run(args: argparse.Namespace) -> int:
    """Measures, writes and prints."""
    import torch

    from langspec_lora.benchmark.compare import Measurements
    from langspec_lora.benchmark.compare import run as compare
    from langspec_lora.benchmark.report import to_markdown, write

    parts = args.parts or Measurements.parts
    unknown = [part for part in parts if part not in Measurements.parts]
    if unknown:
        raise UserError(f"--parts {unknown[0]}: expected some of {', '.join(Measurements.parts)}")
    if list(parts) == ["memory"]:
        raise UserError("--parts memory is measured with update or translation; name one of them too")
    for flag, number in (("--rounds", args.rounds), ("--threads", args.threads)):
        if number is not None and number < 1:
            raise UserError(f"{flag} {number}: expected a number of at least 1")
    if (args.out / "bench.json").exists():
        raise UserError(f"--out {args.out} holds a benchmark already; give another folder")
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {args.out}: {error.strerror}; give a folder that can be written") from error
    gpu = torch.cuda.is_available() and not args.cpu
    asked = Measurements(
        shape=args.shape or ("615m" if gpu else "small"),
        device="cuda" if gpu else "cpu",
        amp=gpu if args.amp is None else args.amp,
        rounds=args.rounds,
        threads=args.threads or torch.get_num_threads(),
        parts=parts,
    )
    warnings.simplefilter("ignore")  # deprecations in the libraries compared
    progress = _Progress()
    results = compare(asked, progress)
    progress("")
    print(to_markdown(results))
    print("written:", *(f"  {path}" for path in write(results, args.out)), sep="\n")
    return 0


class _Progress:
    """Says what is going on: in one changing line on a terminal, else in a line every quarter of a minute."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def __call__(self, line: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
        elif line and time.monotonic() - self._said > 15:
            self._said = time.monotonic()
            print(line, file=sys.stderr, flush=True)
