"""``langspec-lora evaluate``: translates and scores all directions."""

# Imports in functions: they keep torch and fairseq out of --help.

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from langspec_lora.errors import ErrorCollector, UserError, collect_errors
from langspec_lora.evaluation.metrics import METRICS, MODEL_METRICS
from langspec_lora.evaluation.options import EvaluationOptions, ScoringSettings
from langspec_lora.generation import BatchLimits, GenerationSettings
from langspec_lora.inference.model_spec import ModelSpec
from langspec_lora.naming import some_of
from langspec_lora.notes import is_quiet, show
from langspec_lora.settings import add_flags, read_flags

if TYPE_CHECKING:
    from langspec_lora.data.directions import Direction
    from langspec_lora.evaluation.prepare import Evaluation

EXAMPLE = "data-bin --checkpoint checkpoints/checkpoint_best.pt --base --out results"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags; those of generation have fairseq-generate's names and defaults."""
    parser.add_argument("data_bin", type=Path, metavar="DATA_BIN", help="binarised folder")
    parser.add_argument(
        "--checkpoint",
        required=True,
        nargs="+",
        metavar="FILE",
        help="checkpoint; several, each of which is evaluated; those of an ensemble are joined by ':'",
    )
    parser.add_argument("--base", action="store_true", help="evaluate the base model, without its adapters, as well")
    parser.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="DIR",
        help="results folder; for several models, it gets a folder for each; run again to continue",
    )
    parser.add_argument("--names", metavar="A,B,…", help="names of several models (default: those of their files)")
    add_flags(parser, EvaluationOptions)
    scoring = parser.add_argument_group("scores")
    add_flags(scoring, ScoringSettings)
    for metric in MODEL_METRICS.values():
        scoring.add_argument(metric.flag, metavar="MODEL", help=metric.help)
    # An evaluation reads binarised text, and --langs are the languages between which to translate.
    add_flags(parser.add_argument_group("model"), ModelSpec, without=("sentencepiece_model", "langs"))
    generation = parser.add_argument_group("generation")
    add_flags(generation, GenerationSettings)
    add_flags(generation, BatchLimits)


def run(args: argparse.Namespace) -> int:
    """Evaluates and prints where the results are."""
    from langspec_lora.evaluation import evaluate, torchrun

    with torchrun.one_message():
        evaluations = _prepare(args)
        for model, evaluation in evaluations.items():
            scores = evaluate.run(evaluation)
            if scores:
                means = mean_scores(scores)
                words = [f"{METRICS[name].short_label(args.tokenize)} {mean:.2f}" for name, mean in means.items()]
                label = f"{model}: " if len(evaluations) > 1 else ""
                show(f"{label}{evaluate.counted(len(scores))}: {some_of(words)} on average")
    if torchrun.rank() == 0 and not is_quiet():
        folders = shlex.join(str(evaluation.options.out) for evaluation in evaluations.values())
        # Without quotes around it: a folder with a space has its own.
        show(f"tables, heat maps and a page to read: langspec-lora report {folders}", file=sys.stderr)
    return 0


def mean_scores(scores: Mapping[Direction, Mapping]) -> dict[str, float]:
    """The mean of each metric over all directions."""
    metrics = [name for name in METRICS if all(name in score for score in scores.values())]
    return {metric: sum(score[metric] for score in scores.values()) / len(scores) for metric in metrics}


def _prepare(args: argparse.Namespace) -> dict[str, Evaluation]:
    """The evaluation of each model, by its name, once all is checked."""
    from langspec_lora.evaluation.prepare import check, prepare

    evaluations = {}
    with collect_errors() as errors:
        inputs = {}
        for name, options in _options(args, errors).items():
            with errors.check():
                inputs[name] = check(options)
        errors.raise_found()  # before files are hashed
        for name, checked in inputs.items():
            with errors.check():
                evaluations[name] = prepare(checked)
    return evaluations


def _options(args: argparse.Namespace, errors: ErrorCollector) -> dict[str, EvaluationOptions]:
    """What to evaluate, by name; of several models, each has a folder below ``--out``.

    Args:
        args: the command's arguments.
        errors: collects wrong flags; their defaults are used instead, so that the files are checked too.
    """
    scorers = {name: getattr(args, name) for name in MODEL_METRICS if getattr(args, name)}
    scoring = read_flags(args, ScoringSettings, models=scorers)
    generation = errors.attempt(lambda: read_flags(args, GenerationSettings), GenerationSettings())
    limits = errors.attempt(lambda: read_flags(args, BatchLimits), BatchLimits())
    ensembles = [tuple(Path(path) for path in text.split(":")) for text in args.checkpoint]
    models = [read_flags(args, ModelSpec, checkpoints=ensemble, langs=()) for ensemble in ensembles]
    if args.base:
        models.insert(0, read_flags(args, ModelSpec, checkpoints=ensembles[0], langs=(), adapters=False))
    names = errors.attempt(lambda: _names(args, ensembles), [str(number) for number in range(len(models))])
    found = {}
    for name, model in zip(names, models, strict=True):
        out = args.out / name if len(models) > 1 else args.out
        values = {"data_bin": args.data_bin, "out": out, "model": model, "scoring": scoring}
        with errors.check():
            found[name] = read_flags(args, EvaluationOptions, **values, generation=generation, limits=limits)
    return found


def _names(args: argparse.Namespace, ensembles: Sequence[tuple[Path, ...]]) -> list[str]:
    base = ["base"] if args.base else []
    if args.names:
        names = args.names.split(",")
        if len(names) != len(ensembles) + len(base) or len(set(names)) != len(names) or not all(names):
            raise UserError(
                f"--names {args.names} for {len(ensembles) + len(base)} models; give a different name to each"
                f"{', first to the base' if base else ''}"
            )
    else:
        stems = ["+".join(path.stem for path in paths) for paths in ensembles]
        longer = ["+".join("-".join(path.with_suffix("").parts[-2:]) for path in paths) for paths in ensembles]
        names = [*base, *(stems if len(set(stems)) == len(stems) else longer)]
        if len(set(names)) != len(names):
            raise UserError(f"the models {some_of(names)} have the same names; give --names")
    if any("/" in name or name in (".", "..") for name in names):
        raise UserError(f"--names {args.names}: a name becomes a folder of --out; leave '/' out of it")
    return names
