"""``langspec-lora study``: trains, chooses, evaluates and compares all that a recipe names."""

# Imports in functions: they keep fairseq and NumPy out of --help.

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from langspec_lora.cli.commands import parser_of
from langspec_lora.errors import UserError, collect_errors
from langspec_lora.evaluation.metrics import USUAL_METRICS
from langspec_lora.files import check_folder
from langspec_lora.naming import did_you_mean, some_of
from langspec_lora.notes import note, show

if TYPE_CHECKING:
    from langspec_lora.study.plan import Plan
    from langspec_lora.study.recipe import Recipe
    from langspec_lora.study.state import Study

REPORT_TEXT = "report.md"

EXAMPLE = "configs/recipes/example.yaml --out studies/example --jobs 2"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="YAML file of data, base, variants and evaluation")
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder of the study; run again to continue"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="another value for a variable of the recipe"
    )
    parser.add_argument(
        "--set-aside", action="store_true", help="move what was made with other settings to DIR/old, and make it again"
    )
    where = parser.add_argument_group("where it runs")
    where.add_argument(
        "--jobs", type=int, metavar="N", help="steps at the same time (default: one for each set of GPUs)"
    )
    where.add_argument("--gpus", metavar="A,B", help="GPUs to use (default: all that this process sees)")
    where.add_argument(
        "--gpus-per-step", type=int, default=1, metavar="N", help="GPUs of each training and translation (default: 1)"
    )
    other = parser.add_argument_group("instead of running it").add_mutually_exclusive_group()
    other.add_argument("--dry-run", action="store_true", help="print the commands of all steps that have not run")
    other.add_argument("--status", action="store_true", help="print how far it is, also of one that is running")
    other.add_argument("--step", metavar="NAME", help="run one step, as a job of a cluster does")
    other.add_argument(
        "--slurm",
        type=str,
        metavar="FLAGS",
        help="write a job for each step, with these flags of sbatch, and a script to submit: --slurm='-p gpu'",
    )
    where.add_argument(
        "--slurm-light", type=str, metavar="FLAGS", help="flags of sbatch for data and reports (default: --slurm's)"
    )


def run(args: argparse.Namespace) -> int:
    """Runs what is missing, and prints what was found."""
    from langspec_lora.study.recipe_file import read_recipe
    from langspec_lora.study.run import lock
    from langspec_lora.study.state import Study, check_folder_of, refuse_outdated

    with collect_errors() as errors:
        given = errors.attempt(lambda: _variables(args.set), dict[str, str]())
        places = errors.attempt(lambda: _places(args), list[str | None]())
        with errors.check():
            check_folder(args.out, (), overwrite=True)
        recipe = read_recipe(args.recipe, given, USUAL_METRICS)
        errors.raise_found()
    check_folder_of(args.out, recipe.name)
    metric = _check_commands(recipe, args.out)
    if args.status:
        study = Study(recipe, args.out)
        study.refresh()
        _print_status(study, metric)
        return 0
    if args.dry_run:
        study = Study(recipe, args.out)
        study.refresh()
        _check_trainings(study.plan)
        _print_commands(study)
        refuse_outdated(study)
        return 0
    with lock(args.out, args.step):
        study = Study(recipe, args.out, args.set_aside)
        study.refresh()
        refuse_outdated(study)
        for path in study.moved:
            note(f"set aside: {path}")
        _check_trainings(study.plan)
        study.write()
        if args.slurm is not None:
            return _write_jobs(study, args)
        return _run(study, metric, places, args.step)


def _variables(texts: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UserError(f"--set {text}: expected NAME=VALUE")
        if name in found:
            raise UserError(f"--set gives {name} twice; give it once")
        found[name] = value
    return found


def _check_commands(recipe: Recipe, out: Path) -> str:
    """Checks the flags of ``langspec-lora`` commands in a recipe.

    Returns:
        The score that its reports show.

    Raises:
        UserError: flags are wrong; all mistakes are listed.
    """
    from langspec_lora.study.plan import Plan
    from langspec_lora.study.recipe import BASE

    plan = Plan(recipe, out, {})
    metric = "bleu"
    with collect_errors() as errors:
        for step in plan.steps.values():
            if step.command[0] == "langspec-lora" and (not step.variant or step.kind == "development"):
                with errors.check():
                    parsed = _parsed(step.command[1:], step.name)
                    metric = parsed.metric if step.kind == "report" else metric
        for variant in recipe.variants:
            with errors.check():
                _parsed(["evaluate", *plan.evaluation(plan.base, plan.test_folder(variant.name))], f"test-{BASE}")
    return metric


def _parsed(words: Sequence[str], label: str) -> argparse.Namespace:
    text = io.StringIO()
    with contextlib.redirect_stderr(text), contextlib.redirect_stdout(text):
        try:
            return parser_of(words[0]).parse(list(words[1:]))
        except SystemExit as error:
            message = text.getvalue().strip().partition("error: ")[2] or "--help is no flag for a recipe"
            raise UserError(f"{label}: {' '.join(message.split())}") from error


def _check_trainings(plan: Plan) -> None:
    from langspec_lora.study.checks import check_trainings

    note("checking the flags of all trainings")
    check_trainings(plan)


def _places(args: argparse.Namespace) -> list[str | None]:
    """For each step that runs at the same time its GPUs, or None for what this process has."""
    with collect_errors() as errors:
        for flag, value in (("--jobs", args.jobs), ("--gpus-per-step", args.gpus_per_step)):
            with errors.check():
                if value is not None and value < 1:
                    raise UserError(f"{flag} {value}: expected a whole number of at least 1")
        with errors.check():
            if args.slurm_light is not None and args.slurm is None:
                raise UserError("--slurm-light was given without --slurm; give both")
    gpus = [gpu.strip() for gpu in args.gpus.split(",")] if args.gpus else _visible_gpus()
    if args.gpus and not all(gpus):
        raise UserError(f"--gpus {args.gpus}: expected numbers of GPUs such as 0,1")
    if not gpus:
        if args.gpus_per_step > 1:
            raise UserError(f"--gpus-per-step {args.gpus_per_step}: this machine has no GPU; leave it out")
        return [None] * (args.jobs or 1)
    size = args.gpus_per_step
    sets = [",".join(gpus[first : first + size]) for first in range(0, len(gpus) - size + 1, size)]
    if not sets:
        raise UserError(f"--gpus-per-step {size} is more than the {len(gpus)} there are: {some_of(gpus)}")
    return [sets[number % len(sets)] for number in range(args.jobs or len(sets))]


def _visible_gpus() -> list[str]:
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not torch.cuda.is_available():
        return []
    return given.split(",") if given else [str(number) for number in range(torch.cuda.device_count())]


def _print_commands(study: Study) -> None:
    from langspec_lora.study.steps import command_text

    for step in study.plan.steps.values():
        if step.name in study.done:
            show(f"# {step.name}: done")
            continue
        waits = f", once the learning rate of {step.variant} is chosen" if step.waits else ""
        needs = f" (after {some_of(step.needs)}{waits})" if step.needs else ""
        show(f"# {step.name}{needs}", command_text(step.command), "")


def _print_status(study: Study, metric: str) -> None:
    from rich.console import Console

    from langspec_lora.study.board import Board
    from langspec_lora.study.run import is_locked

    running = study.begun if is_locked(study.out) else ()
    Console(markup=False).print(Board(study, metric).table(running))


def _write_jobs(study: Study, args: argparse.Namespace) -> int:
    from langspec_lora.study.slurm import write_jobs

    settings = [word for text in args.set for word in ("--set", text)]
    command = ["study", str(args.recipe), "--out", str(args.out), *settings]
    light = args.slurm if args.slurm_light is None else args.slurm_light
    submit, count = write_jobs(study, command, args.slurm, light)
    show(f"{count} jobs written; submit them: bash {shlex.quote(str(submit))}")
    return 0


def _run(study: Study, metric: str, places: Sequence[str | None], step: str | None) -> int:
    from rich.console import Console

    from langspec_lora.study.board import Board, ScreenWatcher
    from langspec_lora.study.checks import check_trainings
    from langspec_lora.study.run import Runner
    from langspec_lora.study.summary import PAGE, write

    steps = study.plan.steps
    if step is not None:
        if step not in steps:
            raise UserError(f"--step {step} is no step; {did_you_mean(step, steps)}--dry-run lists them")
        missing = [name for name in steps[step].needs if name not in study.done]
        if missing and step not in study.done:
            raise UserError(f"--step {step} needs {some_of(missing)}, which has not run")
    with ScreenWatcher(Board(study, metric), Console(markup=False)) as watcher:
        Runner(study, places, watcher, lambda: check_trainings(study.plan)).run(step)
    if step is None or study.done.issuperset(steps):
        text = write(study, metric)
        if step is None:
            first = study.plan.report_folder(study.recipe.compare_with[0]) / REPORT_TEXT
            # Its first table, the means from level to level; the others are in the report.
            show(first.read_text(encoding="utf-8").partition("\n## ")[0].strip(), "")
        pages = [study.plan.report_folder(name) / "report.html" for name in study.recipe.compare_with]
        show(text, "", "written:", *(f"  {path}" for path in (study.out / PAGE, *pages)))
    return 0
