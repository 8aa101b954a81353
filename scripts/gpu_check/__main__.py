"""Checks on one GPU, within eight minutes, what tests on a CPU cannot show.

    scripts/gpu_check.sh [OUT] [--device cuda|cpu] [--only CHECK …] [--minutes 8]

Both published commands run with small sizes on the built-in example. Each check compares a figure with a limit and
passes, fails or is skipped; a check that fails does not stop the others. Needs torch, fairseq and this package,
installed or not.

With ``--device cpu`` the same runs use the CPU, so that this script itself can be tested: half precision is then what
a CPU has of it, and what only a GPU can show is skipped.

Writes ``gpu-check.json`` and ``gpu-check.md``. Exit code: 0 if all checks passed or were skipped, 1 if one failed, 2
for wrong flags, 77 if there is no GPU.
"""

from __future__ import annotations

import sys

if not any(type(finder).__name__ == "FairseqHook" for finder in sys.meta_path):
    import langspec_lora.compat.startup  # noqa: F401  (this package may not be installed)

import argparse
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from checks import CHECKS, Skipped
from machine import ROOT, Machine

from langspec_lora.errors import UserError, command_line
from langspec_lora.files import write_json, write_whole
from langspec_lora.report.tables import Table

NO_GPU = 77
NAMES = ("gpu-check.json", "gpu-check.md")


@dataclass
class Result:
    """One row of the table.

    Attributes:
        check: its name.
        status: ``passed``, ``failed`` or ``skipped``.
        figure: what was measured, or why nothing was.
        limit: what it must be.
        seconds: how long it took.
    """

    check: str
    status: str
    figure: str
    limit: str
    seconds: float


def check(name: str, machine: Machine) -> Result:
    """Makes one check; whatever goes wrong in it is its figure."""
    started = time.monotonic()
    try:
        if started >= machine.ends:
            raise Skipped("no time was left; give more --minutes, or fewer checks as --only")
        passed, figure, limit = CHECKS[name](machine)
        status = "passed" if passed else "failed"
    except Skipped as why:
        status, figure, limit = "skipped", str(why), ""
    except Exception as error:  # the others go on
        status, figure, limit = "failed", f"{type(error).__name__}: {error}".splitlines()[0], ""
    return Result(name, status, figure, limit, round(time.monotonic() - started, 1))


def device_facts(cuda: bool) -> dict[str, str]:
    """Names and versions of the hardware and software."""
    facts = {"device": torch.cuda.get_device_name(0) if cuda else f"CPU ({platform.machine()})"}
    if cuda:
        facts["memory"] = f"{torch.cuda.get_device_properties(0).total_memory / 2**30:.0f} GiB"
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            facts["driver"] = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
        except (OSError, subprocess.CalledProcessError, IndexError):
            facts["driver"] = "unknown"
        facts["CUDA"] = str(torch.version.cuda)
    facts.update(python=platform.python_version(), torch=torch.__version__)
    for package in ("fairseq", "langspec_lora", "numpy", "apex"):
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    return facts


def report(out: Path, facts: dict[str, str], results: Sequence[Result]) -> str:
    """Writes both files, and returns the table."""
    rows = [[one.check, one.status, one.figure, one.limit, f"{one.seconds:.0f}"] for one in results]
    table = Table(["Check", "", "Measured", "Limit", "Seconds"], rows).markdown()
    text = ", ".join(f"{name} {value}" for name, value in facts.items()) + "\n\n" + table + "\n"
    write_json(out / NAMES[0], {"facts": facts, "results": [asdict(one) for one in results]})
    write_whole(out / NAMES[1], text)
    return text


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="gpu_check.sh", description=__doc__.splitlines()[0])
    parser.add_argument("out", nargs="?", type=Path, default=Path("gpu-check"), help="folder, new or empty")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu only tests this script")
    parser.add_argument("--only", nargs="+", choices=list(CHECKS), metavar="CHECK", help=f"of {', '.join(CHECKS)}")
    parser.add_argument("--minutes", type=float, default=8, metavar="N", help="stop after so long (default: 8)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Makes the checks; see the top of this file."""
    args = parse(argv)
    with command_line("stopped; run the same command with another folder to begin again"):
        if args.device == "cuda" and not torch.cuda.is_available():
            print("gpu_check.sh: no GPU: torch finds none; nothing was checked", file=sys.stderr)
            return NO_GPU
        out = args.out.resolve()
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"{args.out} is not an empty folder; give a new one, so that nothing old is measured")
        out.mkdir(parents=True, exist_ok=True)
        os.chdir(ROOT)
        if args.device == "cuda":  # fairseq would use all
            os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
            os.environ["CUDA_VISIBLE_DEVICES"] = os.environ["CUDA_VISIBLE_DEVICES"].split(",")[0]
        machine = Machine(out, args.device == "cuda", time.monotonic() + 60 * args.minutes)
        facts, results = device_facts(machine.cuda), []
        for name in CHECKS:
            if name == "example" or not args.only or name in args.only:
                results.append(check(name, machine))
                print(f"{name}: {results[-1].status} ({results[-1].figure})", file=sys.stderr, flush=True)
                table = report(out, facts, results)
                if name == "example" and results[-1].status != "passed":
                    break
        print(table)
        print("written:", *(f"  {out / name}" for name in NAMES), sep="\n")
        return int(any(one.status == "failed" for one in results))
    return 1


if __name__ == "__main__":
    sys.exit(main())
