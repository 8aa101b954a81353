"""Checks the flags of a command as a whole: refuses mistakes and names flags without effect."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Iterable, Sequence

from langspec_lora.checkpoints.outline import read_outline
from langspec_lora.config import (
    AdapterConfig,
    check_adapter_flags,
    freezes_base,
    has_adapters,
    trained_languages,
)
from langspec_lora.errors import UserError, collect_errors
from langspec_lora.flags import SOFT, AdapterFlags, BaseFlag, PruningFlags, ScoreFlags
from langspec_lora.parts import trained_parts
from langspec_lora.pruning_flags import pruning_from_args
from langspec_lora.tasks.checks.generation_flags import unused_search_flags
from langspec_lora.tasks.checks.language_tokens import language_token_mismatches, unused_language_token_flags
from langspec_lora.tasks.checks.pruning_choices import check_criterion, pruning_that_leaves_nothing
from langspec_lora.tasks.checks.pruning_length import pruning_within
from langspec_lora.tasks.checks.unsupported_flags import check_beside_adapters
from langspec_lora.tasks.checks.untrained_languages import untrained_languages
from langspec_lora.tasks.checks.unused_fairseq_flags import unused_fairseq_flags
from langspec_lora.tasks.checks.unused_flags import (
    check_not_empty,
    check_without_adapters,
    training_flags_without_training,
    unused_flags,
)
from langspec_lora.tasks.checks.unused_with_checkpoint import (
    unused_base_flag,
    unused_directions_flag,
    unused_with_checkpoint,
)


def is_training(args: Namespace, from_checkpoint: bool) -> bool:
    """Whether ``fairseq-train`` builds a model.

    fairseq's task has an attribute ``training``, which only says that neither ``--source-lang`` nor ``--target-lang``
    was given.

    Args:
        args: the task's arguments. Only those of ``fairseq-train`` have no ``path``: all other commands need a model.
        from_checkpoint: whether ``checkpoint_utils.load_model_ensemble_and_task`` builds it.
    """
    return not from_checkpoint and not hasattr(args, "path")


def is_training_command(args: Namespace) -> bool:
    """Whether a task is set up by ``fairseq-train``, rather than from the arguments that a checkpoint stores.

    Args:
        args: the task's arguments, before fairseq has prepared them: ``shuffle_instance`` is added then, and stored.
    """
    return hasattr(args, "restore_file") and not hasattr(args, "path") and not hasattr(args, "shuffle_instance")


def check_source_and_target(args: Namespace) -> None:
    """Checks that ``--source-lang`` and ``--target-lang`` are given together or not at all.

    Raises:
        UserError: only one is given, which fairseq would read as a direction from or to None.
    """
    if (args.source_lang is None) == (args.target_lang is None):
        return
    if not hasattr(args, "path"):
        _check_no_single_direction(args)
    flag, other = ("--source-lang", "--target-lang") if args.target_lang is None else ("--target-lang", "--source-lang")
    raise UserError(f"{flag} {args.source_lang or args.target_lang} was given without {other}; give both or neither")


def check_training_flags(args: Namespace) -> AdapterConfig | None:
    """Checks the flags of a training command, also those that a switch such as ``--add-lora False`` turns off.

    Args:
        args: its arguments, with the architecture's defaults.

    Returns:
        The adapters that the model will have, or None.

    Raises:
        UserError: flags have wrong values or contradict each other; all mistakes are listed.
    """
    config, is_stock = None, not hasattr(args, "add_lora")
    with collect_errors() as errors:
        with errors.check():
            check_not_empty(args)
        args = _without_empty(args)
        with errors.check():
            _check_no_single_direction(args)
        adapts = not is_stock and errors.attempt(lambda: has_adapters(args), False)
        with errors.check():
            if adapts and args.langs is None:  # they were refused before
                check_adapter_flags(args)
            elif adapts:
                config = AdapterConfig.from_args(args)
                trained_languages(args, config.languages)
            elif not is_stock:
                check_without_adapters(args)
        with errors.check():
            if not is_stock:
                trained_parts(args)
        with errors.check():
            pruning = pruning_from_args(args)
            if pruning and not adapts:
                raise UserError(
                    "--pruning True needs adapters, but the model has none; leave it out, or give --add-lora True"
                )
            if pruning is not None:
                check_criterion(args, pruning)
        with errors.check():
            if not adapts and getattr(args, "train_languages", None):
                raise UserError("--train-languages needs adapters, but the model has none; give --add-lora True")
        if adapts:
            check_beside_adapters(args)
    return config


def _without_empty(args: Namespace) -> Namespace:
    """Arguments in which flags of ours that are empty, and refused for that, have their defaults."""
    defaults = {**vars(AdapterFlags()), **vars(BaseFlag()), **vars(PruningFlags()), **vars(ScoreFlags())}
    return Namespace(**{name: defaults.get(name) if value == "" else value for name, value in vars(args).items()})


def check_generation_flags(args: Namespace) -> None:
    """Checks the flags of ours that a command which uses a trained model accepts.

    Raises:
        UserError: flags have wrong values; all of them are listed.
    """
    with collect_errors() as errors:
        with errors.check():
            check_not_empty(args)
        if not hasattr(args, "add_lora"):  # which fairseq-validate has, from the training
            pruning_from_args(_without_empty(args))


def check_trains(args: Namespace, config: AdapterConfig, directions: Iterable[tuple[str, str]]) -> list[str]:
    """Checks that a direction trains an adapter.

    Args:
        args: the arguments of the training command.
        config: the adapters that the model will have.
        directions: source and target of each training direction.

    Returns:
        Warnings of the languages that no direction trains.

    Raises:
        UserError: nothing would train.
    """
    return untrained_languages(config, directions, trained_languages(args, config.languages), freezes_base(args))


def training_warnings(
    args: Namespace,
    config: AdapterConfig | None,
    directions: Iterable[tuple[str, str]],
    start: tuple[str, bool] | None,
) -> list[str]:
    """The warnings about a training command: flags without effect, languages that do not train.

    Args:
        args: its arguments.
        config: the adapters that the model will have, or None.
        directions: source and target of each training direction.
        start: the checkpoint that the training starts from and whether it resumes, or None.

    Raises:
        UserError: nothing would train.
    """
    found = [*unused_flags(args, config), *unused_language_token_flags(args), *unused_fairseq_flags(args)]
    if config is not None:
        found += check_trains(args, config, directions)
    pruning = pruning_from_args(args)
    if pruning is not None:
        found += pruning_within(pruning.schedule, args.max_epoch or math.inf, f"--max-epoch {args.max_epoch}")
        found += pruning_that_leaves_nothing(pruning, config)
    if start is not None:
        path, resumes = start
        found += unused_with_checkpoint(args, config, read_outline(path), resumes)
        found += language_token_mismatches(args, [path])
    return found


def generation_warnings(args: Namespace, paths: Sequence[str]) -> list[str]:
    """The warnings about a command that uses a trained model: flags without effect, or against its training.

    Args:
        args: its arguments.
        paths: the checkpoints.
    """
    found = [
        *unused_language_token_flags(args),
        *language_token_mismatches(args, paths),
        *unused_base_flag(getattr(args, "base_checkpoint", None), paths),
        *unused_search_flags(args),
        *unused_directions_flag(getattr(args, "directions", SOFT), paths),
    ]
    if not hasattr(args, "add_lora"):
        found += training_flags_without_training(args)
    return found


def _check_no_single_direction(args: Namespace) -> None:
    given = {"--source-lang": args.source_lang, "--target-lang": args.target_lang}
    words = " ".join(f"{flag} {name}" for flag, name in given.items() if name is not None)
    if words:
        raise UserError(
            f"{words}: these flags are for translation; name the directions to train with --lang-pairs only, such as "
            f"--lang-pairs {args.source_lang or 'en'}-{args.target_lang or 'fr'}"
        )
