"""The trainings of a recipe checked before the first of them runs: a wrong flag of the last would cost hours."""

# Imports in functions: fairseq takes seconds, and its log speaks when it is imported.

from __future__ import annotations

import importlib
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from langspec_lora.errors import UserError, collect_errors
from langspec_lora.study.plan import OWN_FLAGS, Plan
from langspec_lora.study.recipe import BASE, BEST, LOSS, Variant

_OWN_TASK = "translation_multi_simple_epoch_lora"


def check_trainings(plan: Plan) -> None:
    """Checks the flags of all trainings, as far as they can be checked before there is data; once it is, all of them.

    Raises:
        UserError: flags are unknown, have wrong values, contradict each other or the recipe; all mistakes are listed.
    """
    recipe = plan.recipe
    with collect_errors() as errors:
        with errors.check():
            if recipe.base.checkpoint and not plan.base.is_file():
                raise UserError(
                    f"base: checkpoint {plan.base} is not a file; the comments in {recipe.path} say where to get it"
                )
        if recipe.base.flags:
            with errors.check():
                _check_base(plan)
        for variant in recipe.variants:
            with errors.check():
                _check_variant(plan, variant)


def _check_base(plan: Plan) -> None:
    flags, label = plan.training_flags(None), "base"
    _refuse_own_flags(flags, label, ("--save-dir",))
    args = _parsed([*flags, "--save-dir", str(plan.out / BASE)], label)
    _check_checkpoints(args, plan.recipe.base.epoch, label)
    _check_ends(args, label)


def _check_variant(plan: Plan, variant: Variant) -> None:
    from langspec_lora.config import check_adapter_flags
    from langspec_lora.tasks.checks.all_checks import check_flags_of_training

    recipe, label = plan.recipe, f"variant {variant.name}"
    flags = plan.training_flags(variant)
    _refuse_own_flags(flags, label, OWN_FLAGS)
    args = _parsed([*flags, *plan.own_flags(Path("checkpoints"), recipe.seeds[0], variant.rates[0])], label)
    _check_checkpoints(args, variant.epoch, label)
    _check_ends(args, label)
    if recipe.choose_by == LOSS and len(variant.rates) > 1:
        metric = args.best_checkpoint_metric
        if args.disable_validation or args.task != _OWN_TASK:
            raise UserError(
                f"{label}: its learning rate is to be chosen by the loss on development text, which needs --task "
                f"{_OWN_TASK} and no --disable-validation"
            )
        if variant.epoch == BEST and metric != LOSS:
            raise UserError(
                f"{label}: its epoch is the best by --best-checkpoint-metric {metric}, but its learning rate is to be "
                "chosen by the loss; give choose-by a score, or leave the metric out"
            )
    if variant.epoch == BEST and getattr(args, "pruning", False):
        raise UserError(
            f"{label} prunes while it trains, so its best epoch can be one of the first, which is hardly pruned; give "
            "it 'epoch: last'"
        )
    try:
        if all(folder.exists() for folder in plan.folders.values()):  # files that flags name are there
            check_flags_of_training(args)
        elif getattr(args, "add_lora", False):
            check_adapter_flags(args)
    except UserError as error:
        raise UserError(f"{label}: {error}") from error


def _refuse_own_flags(flags: Sequence[str], label: str, own: Sequence[str]) -> None:
    given = [flag for flag in own if any(word.partition("=")[0] == flag for word in flags)]
    if given:
        keys = {"--seed": "seeds", "--lr": "learning-rates", "--finetune-from-model": "base"}
        instead = f"the recipe's key {keys[given[0]]!r} says it" if given[0] in keys else "leave it out"
        raise UserError(f"{label}: {given[0]} is given by the study itself; {instead}")


def _parsed(flags: Sequence[str], label: str) -> Namespace:
    """The arguments of a training, as fairseq reads them."""
    from fairseq import options

    importlib.import_module("langspec_lora.tasks.translation")  # registers the task, the model, the architectures
    parser = options.get_training_parser()

    def error(message: str) -> NoReturn:
        raise UserError(f"{label}: {message}; fairseq-train --help lists the flags")

    parser.error = error
    try:
        return options.parse_args_and_arch(parser, list(flags))
    except SystemExit as exit_:
        raise UserError(f"{label}: {exit_.code}") from exit_
    except RuntimeError as missing:
        raise UserError(f"{label}: no --arch that fairseq knows; give one, such as transformer") from missing


def _check_checkpoints(args: Namespace, epoch: str, label: str) -> None:
    if args.no_save or (epoch == BEST and args.disable_validation):
        wrong = "--no-save" if args.no_save else "--disable-validation"
        raise UserError(f"{label}: its {epoch} checkpoint is to be taken, but with {wrong} there is none")
    if args.no_last_checkpoints:
        raise UserError(f"{label}: --no-last-checkpoints leaves nothing to continue from; leave it out")
    if getattr(args, "checkpoint_suffix", ""):
        raise UserError(
            f"{label}: --checkpoint-suffix gives checkpoints names that a study does not know; leave it out"
        )


def _check_ends(args: Namespace, label: str) -> None:
    if not args.max_epoch and not args.max_update and not (args.stop_time_hours > 0):
        raise UserError(f"{label} would train for ever; give --max-epoch or --max-update")
