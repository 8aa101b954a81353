"""``langspec-lora bench``: measures what language-specific adapters cost, in ratios within one run."""

# Imports in functions: they keep torch out of --help.

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

from langspec_lora.errors import UserError, collect_errors
from langspec_lora.files import check_folder
from langspec_lora.naming import some_of
from langspec_lora.notes import show

EXAMPLE = "--shape tiny --parts update --rounds 2 --out bench"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("--out", type=Path, default=Path("bench"), metavar="DIR", help="folder to write")
    parser.add_argument(
        "--shape", choices=("tiny", "small", "615m"), help="size of the model (default: 615m on a GPU, small on a CPU)"
    )
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU")
    parser.add_argument("--amp", action=argparse.BooleanOptionalAction, help="use autocast (default: on a GPU)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="number of repetitions")
    parser.add_argument("--threads", type=int, metavar="N", help="number of CPU threads (default: torch's)")
    parser.add_argument(
        "--parts", nargs="+", metavar="PART", help="what to measure: update, translation, sweep, memory (default: all)"
    )


def run(args: argparse.Namespace) -> int:
    """Measures, prints the results and writes them."""
    import torch

    from langspec_lora.benchmark.compare import PARTS
    from langspec_lora.benchmark.compare import run as compare
    from langspec_lora.benchmark.contenders import Setting
    from langspec_lora.benchmark.report import to_markdown, write
    from langspec_lora.benchmark.workload import SHAPES
    from langspec_lora.progress import StatusLine

    parts = args.parts or PARTS
    with collect_errors() as errors:
        for part in parts:
            with errors.check():
                if part not in PARTS:
                    raise UserError(f"--parts {part}: expected {some_of(PARTS)}")
        with errors.check():
            if list(parts) == ["memory"]:
                raise UserError("--parts memory needs update or translation; name one of them too")
        for flag, number in (("--rounds", args.rounds), ("--threads", args.threads)):
            with errors.check():
                if number is not None and number < 1:
                    raise UserError(f"{flag} {number}: expected a whole number of at least 1")
        check_folder(args.out, (), overwrite=True)
        if (args.out / "bench.json").exists():
            raise UserError(f"--out {args.out} already holds a benchmark; give another folder")
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {args.out}: {error.strerror}; give a folder that you can write to") from error
    gpu = torch.cuda.is_available() and not args.cpu
    if args.threads:
        torch.set_num_threads(args.threads)
    shape, device = SHAPES[args.shape or ("615m" if gpu else "small")], torch.device("cuda" if gpu else "cpu")
    setting = Setting(shape, device, amp=gpu if args.amp is None else args.amp)
    warnings.simplefilter("ignore")  # deprecations in the libraries compared
    line = StatusLine(sys.stderr)
    results = compare(setting, args.rounds, parts, line.show)
    line.clear()
    show(to_markdown(results))
    show("written:", *(f"  {path}" for path in write(results, args.out)))
    return 0
