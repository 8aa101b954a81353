"""``langspec-lora report``: one or more evaluations as tables on the terminal, one HTML file, and pictures."""

# Imports in functions: they keep NumPy and sacrebleu out of --help.

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from langspec_lora.errors import ErrorCollector, UserError, collect_errors
from langspec_lora.evaluation.metrics import METRICS
from langspec_lora.files import check_folder
from langspec_lora.naming import some_of
from langspec_lora.notes import show
from langspec_lora.resources import read_resources
from langspec_lora.values import names_of

if TYPE_CHECKING:
    from langspec_lora.report.seeds import RunFolders

EXAMPLE = "results/base results/checkpoint_best --out report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="[NAME=]DIR[,DIR…]",
        help="results folders; the first is the base. NAME=DIR,DIR,… are the seeds of one run, whose mean is reported",
    )
    parser.add_argument("--names", metavar="A,B", help="names of the runs (default: the folders' names)")
    parser.add_argument(
        "--lang-resources",
        metavar="FILE",
        help="YAML file of levels and languages (default: those of the checkpoint, or else the paper's twelve)",
    )
    parser.add_argument("--metric", choices=tuple(METRICS), default="bleu", help="score to report (default: bleu)")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where to write (default: DIR, or 'report' beside the first of several)"
    )
    parser.add_argument(
        "--references",
        type=Path,
        metavar="DIR",
        help="folder with SPLIT.LANG, for results folders that do not hold their references",
    )
    parser.add_argument(
        "--samples",
        type=int,
        metavar="N",
        help="resamples for the test of each direction (default: 25 for each direction, in thousands)",
    )
    parser.add_argument(
        "--mean-samples",
        type=int,
        default=1000,
        metavar="N",
        help="resamples for the intervals and tests of the means (default: 1000)",
    )
    parser.add_argument(
        "--test",
        choices=("bootstrap", "randomization"),
        default="bootstrap",
        help="sacrebleu's test of differences: its paired bootstrap, or approximate randomization (default: bootstrap)",
    )
    parser.add_argument(
        "--skip",
        metavar="A,B",
        help="leave out what takes time with very many directions: intervals, significance, off-target, sentences, "
        "degeneration",
    )
    parser.add_argument(
        "--processes", type=int, metavar="N", help="processes to use (default: one for each core, eight at most)"
    )


def run(args: argparse.Namespace) -> int:
    """Prints the report and writes its files."""
    from langspec_lora.evaluation.results import find_scores
    from langspec_lora.report.analysis import PARTS, Request, analyse
    from langspec_lora.report.report import CACHE, make_folder, terminal_text, write_files
    from langspec_lora.report.runs import run_names
    from langspec_lora.report.seeds import folders_of, refuse_seeds

    with collect_errors() as errors:
        parsed = _parse_runs(args.runs, errors)
        runs, inline = [run for _, run in parsed], [name for name, _ in parsed]
        with errors.check():
            skip = names_of(args.skip, "--skip", "off-target,sentences") if args.skip else []
            unknown = [part for part in skip if part not in PARTS]
            if unknown:
                raise UserError(f"--skip names {unknown[0]!r}; choose from {some_of(PARTS)}")
        for name, value in (
            ("--samples", args.samples),
            ("--mean-samples", args.mean_samples),
            ("--processes", args.processes),
        ):
            with errors.check():
                if value is not None and value < 1:
                    raise UserError(f"{name} {value} was given; expected a whole number of at least 1")
        with errors.check():
            levels = read_resources(args.lang_resources).levels if args.lang_resources else None
        with errors.check():
            names = _names(args.names, inline)
            if len(parsed) == len(args.runs):
                run_names(runs, names)
        for folder in [folder for run in runs for folder in folders_of(run)]:
            with errors.check():
                find_scores(folder)
        with errors.check():
            refuse_seeds(args.test, {str(name): folders_of(run) for name, run in zip(inline, runs, strict=True)})
        if args.out:
            check_folder(args.out, (), overwrite=True)
    first = folders_of(runs[0])
    out = args.out or (first[0] if len(runs) == len(first) == 1 else first[0].resolve().parent / "report")
    check_folder(out, (), overwrite=True)
    make_folder(out)
    request = Request(
        runs,
        levels,
        out / CACHE,
        names,
        args.metric,
        args.references,
        args.samples,
        skip,
        args.processes,
        args.test,
        args.mean_samples,
    )
    analysis = analyse(request)
    # Printed before it is written: where the disk is full, the terminal still has it.
    show(terminal_text(analysis))
    show("\nwritten:", *(f"  {path}" for path in write_files(analysis, out)))
    return 0


def _parse_runs(texts: list[str], errors: ErrorCollector) -> list[tuple[str | None, RunFolders]]:
    """The runs that are named rightly, each with its name if it has one; mistakes are collected."""
    from langspec_lora.report.seeds import parse_run

    found = []
    for text in texts:
        with errors.check():
            found.append(parse_run(text))
    return found


def _names(flag: str | None, inline: list[str | None]) -> list[str] | list[str | None] | None:
    """The names of the runs, by ``--names`` or before their folders."""
    if flag and any(inline):
        raise UserError("names are given both by --names and as NAME=DIR; give them in one of these ways")
    if flag:
        return names_of(flag, "--names", "base,mine")
    given = [name for name in inline if name]
    if repeated := [name for name in dict.fromkeys(given) if given.count(name) > 1]:
        raise UserError(f"several runs are called {some_of(repeated)}; give each a name of its own")
    return inline if given else None
