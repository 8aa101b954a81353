"""Which command runs, and what its flags say: refused where wrong, named where they do nothing."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Iterable, Sequence

from langspec_lora.checkpoints.outline import read_outline
from langspec_lora.config import AdapterConfig, freezes_base, has_adapters, pruning_from_args, trained_languages
from langspec_lora.errors import UserError
from langspec_lora.tasks.checks.directions import languages_that_do_not_train
from langspec_lora.tasks.checks.flags import (
    check_filled,
    check_without_adapters,
    pruning_within,
    training_flags_in_generation,
    unused_flags,
)
from langspec_lora.tasks.checks.language_tokens import idle_language_tokens, other_language_tokens
from langspec_lora.tasks.checks.start import idle_at_start, idle_base
from langspec_lora.tasks.checks.unsupported import check_beside_adapters


def is_training(args: Namespace, from_checkpoint: bool) -> bool:
    """Whether ``fairseq-train`` builds a model.

    fairseq's own ``training`` of the task only says that neither ``--source-lang`` nor ``--target-lang`` was given.

    Args:
        args: the task's arguments. Those of ``fairseq-train`` alone have no ``path``: all other commands need a model.
        from_checkpoint: whether ``checkpoint_utils.load_model_ensemble_and_task`` builds it.
    """
    return not from_checkpoint and not hasattr(args, "path")


def check_both_sides(args: Namespace) -> None:
    """Makes sure that ``--source-lang`` and ``--target-lang`` are given together or not at all.

    Raises:
        UserError: one stands alone, which fairseq takes for a direction from or to None.
    """
    if (args.source_lang is None) == (args.target_lang is None):
        return
    if not hasattr(args, "path"):
        _check_no_single_direction(args)
    flag, other = ("--source-lang", "--target-lang") if args.target_lang is None else ("--target-lang", "--source-lang")
    raise UserError(f"{flag} {args.source_lang or args.target_lang} was given without {other}; give both, or neither")


def check_training_flags(args: Namespace) -> AdapterConfig | None:
    """Checks the flags of a training command, whether or not their switch is on.

    Args:
        args: its arguments, architecture defaults filled in.

    Returns:
        Which adapters the model will have, or None.

    Raises:
        UserError: a flag has a wrong value, or flags contradict each other.
    """
    check_filled(args)
    _check_no_single_direction(args)
    is_stock = not hasattr(args, "add_lora")
    config = AdapterConfig.from_args(args) if not is_stock and has_adapters(args) else None
    if not is_stock and config is None:
        check_without_adapters(args)
    if pruning_from_args(args) and config is None:
        raise UserError("--pruning True needs adapters, but the model has none; drop it, or give --add-lora True")
    if config is not None:
        trained_languages(args, config.languages)
    elif getattr(args, "train_languages", None):
        raise UserError("--train-languages needs adapters, but the model has none; give --add-lora True")
    if config is not None:
        check_beside_adapters(args)
    return config


def remarks_on_training(
    args: Namespace,
    config: AdapterConfig | None,
    directions: Iterable[tuple[str, str]],
    start: tuple[str, bool] | None,
) -> list[str]:
    """Names what a training command says and what does nothing.

    Args:
        args: its arguments.
        config: which adapters the model will have, or None.
        directions: source and target of each training direction.
        start: the checkpoint that it starts from and whether it resumes, or None.

    Returns:
        Sentences.

    Raises:
        UserError: nothing would train at all.
    """
    found = [*unused_flags(args, config), *idle_language_tokens(args)]
    if config is not None:
        trained = trained_languages(args, config.languages)
        found += languages_that_do_not_train(config, directions, trained, freezes_base(args))
    pruning = pruning_from_args(args)
    if pruning is not None:
        found += pruning_within(pruning[0], args.max_epoch or math.inf, f"--max-epoch {args.max_epoch}")
    if start is not None:
        path, resumes = start
        found += idle_at_start(args, config, read_outline(path), resumes)
        found += other_language_tokens(args, [path])
    return found


def remarks_on_generation(args: Namespace, paths: Sequence[str]) -> list[str]:
    """Names what a command that uses a trained model says and what does nothing, or goes against the model.

    Args:
        args: its arguments.
        paths: the checkpoints.

    Returns:
        Sentences.

    Raises:
        UserError: a flag has a wrong value.
    """
    check_filled(args)
    found = [
        *idle_language_tokens(args),
        *other_language_tokens(args, paths),
        *idle_base(getattr(args, "base_checkpoint", None), paths),
    ]
    if not hasattr(args, "add_lora"):  # which fairseq-validate has, from the training
        pruning_from_args(args)
        found += training_flags_in_generation(args)
    return found


def _check_no_single_direction(args: Namespace) -> None:
    given = {"--source-lang": args.source_lang, "--target-lang": args.target_lang}
    words = " ".join(f"{flag} {name}" for flag, name in given.items() if name is not None)
    if words:
        raise UserError(
            f"{words}: fairseq takes these for a translation; name what to train with --lang-pairs alone, such as "
            f"--lang-pairs {args.source_lang or 'en'}-{args.target_lang or 'fr'}"
        )
