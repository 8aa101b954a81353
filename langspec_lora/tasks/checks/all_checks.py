"""All checks of the task, in order, before anything is built."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Iterable
from typing import Any

from fairseq.models import ARCH_MODEL_REGISTRY
from fairseq.models.transformer import TransformerModel
from fairseq.tasks import FairseqTask

from langspec_lora.checkpoints.argument_checks import check_model_arguments, check_same_model
from langspec_lora.checkpoints.arguments import check_stored_arguments
from langspec_lora.checkpoints.base_location import settle_base
from langspec_lora.checkpoints.compatibility import check_generation_checkpoints, check_training_checkpoint
from langspec_lora.checkpoints.outline import read_outline
from langspec_lora.checkpoints.resuming import check_resumption
from langspec_lora.checkpoints.starting_point import check_start_agrees, check_start_flags, starting_checkpoint
from langspec_lora.checkpoints.token_order import checkpoint_paths
from langspec_lora.config import AdapterConfig, freezes_base
from langspec_lora.data.lengths import Limits
from langspec_lora.data.shared_directions import check_shared_directions, training_directions
from langspec_lora.errors import ErrorCollector, UserError, collect_errors
from langspec_lora.generation import GenerationSettings
from langspec_lora.models.structure import check_training_structure
from langspec_lora.models.transformer import LanguageSpecificTransformer
from langspec_lora.settings import read_flags
from langspec_lora.tasks.checks.best_metric import check_best_metric
from langspec_lora.tasks.checks.command import (
    check_generation_flags,
    check_training_flags,
    check_trains,
    generation_warnings,
    training_warnings,
)
from langspec_lora.tasks.checks.dictionaries import check_shared_embeddings
from langspec_lora.tasks.checks.generation_flags import check_search_flags, is_interactive
from langspec_lora.tasks.checks.languages import used_languages
from langspec_lora.tasks.checks.model_overrides import check_overrides
from langspec_lora.tasks.checks.optimization import check_optimization
from langspec_lora.tasks.checks.sampling import check_sampling
from langspec_lora.tasks.checks.scores import check_score_flags
from langspec_lora.tasks.checks.training_numbers import check_training_numbers
from langspec_lora.tasks.checks.unsupported_flags import check_precision

logger = logging.getLogger(__name__)


def check_generation(args: Namespace, task: FairseqTask | None) -> None:
    """Checks a command that uses trained models.

    Args:
        args: its arguments.
        task: its task; None if languages or dictionary are wrong, and only what depends on neither is checked.

    Raises:
        UserError: a flag, a checkpoint or the data are wrong; all mistakes that do not depend on each other are listed.
    """
    paths = checkpoint_paths(args)
    with collect_errors() as errors:
        with errors.check():
            read_flags(args, GenerationSettings)
        with errors.check():
            check_overrides(getattr(args, "model_overrides", None) or "{}")
        with errors.check():
            check_generation_flags(args)
        with errors.check():
            check_search_flags(args)
        with errors.check():
            if getattr(args, "lm_path", None):
                read_outline(args.lm_path)
        with errors.check():
            _check_generation_checkpoints(args, task, paths)
        if task is not None and args.source_lang is not None and not is_interactive(args):
            # Lengths depend on flags and checkpoints.
            outlines = [] if errors.errors else [read_outline(path).model_args or Namespace() for path in paths]
            limits = Limits.of_generation(args, outlines) if outlines else None
            task.data_manager.check_files(args.gen_subset, needs_target=False, limits=limits)
    warn(generation_warnings(args, paths))


def _check_generation_checkpoints(args: Namespace, task: FairseqTask | None, paths: list[str]) -> None:
    if task is not None:
        base, vocabulary = getattr(args, "base_checkpoint", None), len(task.source_dictionary)
        pair = (args.source_lang, args.target_lang)
        check_generation_checkpoints(paths, used_languages(args), vocabulary, base, None if None in pair else pair)
    else:
        with collect_errors() as errors:
            for path in paths:
                with errors.check():
                    read_outline(path)


def check_training(args: Namespace, task: FairseqTask | None, flags_are_read: bool = True) -> None:
    """Checks a training command, and sets the path of the base in its arguments and the task's.

    Args:
        args: the arguments that the model is built from; changed in place.
        task: the task of the command; None if languages or dictionary are wrong, and only what depends on neither is
            checked.
        flags_are_read: whether all flags could be read, so that they can be compared with a checkpoint.

    Raises:
        UserError: a flag, the checkpoint to start from or the data are wrong; all mistakes that do not depend on each
            other are listed.
    """
    config, start = None, starting_checkpoint(args)
    with collect_errors() as errors:
        with errors.check():
            check_start_flags(args)
            if start is not None:
                read_outline(start[0])
        compares = flags_are_read and not errors.errors
        config, is_right = _checked_flags(args, errors)
        with errors.check():
            if task is not None and config is not None:
                check_trains(args, config, training_directions(task.data_manager))
            if task is not None and compares and is_right:
                _check_start(args, config, task)
        if task is not None:
            with errors.check():
                check_shared_embeddings(args, task.source_dictionary, task.target_dictionary)
            with errors.check():
                check_best_metric(task, args)
            _check_data(args, task, with_lengths=not errors.errors)
    if task is not None:
        warn(training_warnings(args, config, training_directions(task.data_manager), start))


def check_flags_of_training(args: Namespace) -> None:
    """Checks all of a training's flags that need neither data nor a checkpoint.

    Raises:
        UserError: flags are wrong; all mistakes that do not depend on each other are listed.
    """
    with collect_errors() as errors:
        _checked_flags(args, errors)


def _checked_flags(args: Namespace, errors: ErrorCollector) -> tuple[AdapterConfig | None, bool]:
    """The adapters that the model will have, or None, and whether its flags are right; mistakes are collected."""
    config, is_right = None, False
    with errors.check():
        check_training_numbers(args)
        check_optimization(args)
    with errors.check():
        check_score_flags(args)
    with errors.check():
        check_precision(args)
    with errors.check():
        config, is_right = _check_model(args), True
    return config, is_right


def _check_model(args: Namespace) -> AdapterConfig | None:
    """Checks the flags of the model, and returns its adapters."""
    with collect_errors() as errors:
        with errors.check():
            config = check_training_flags(args)
        check_model_arguments(args, of_command=True)
    if config is not None:
        check_training_structure(args, config)
    return config


def _check_start(args: Namespace, config: AdapterConfig | None, task: FairseqTask) -> None:
    """Compares the checkpoint that a training starts from with its model, and settles where the base is."""
    start = starting_checkpoint(args)
    if hasattr(args, "add_lora"):
        settle_base(args, config is not None and freezes_base(args))
        task.args.base_checkpoint = args.base_checkpoint  # for fairseq-validate, which reads the task's arguments
        check_training_checkpoint(args, config, len(task.source_dictionary))
        if config is not None:
            check_start_agrees(args, config)
    if start is not None:
        check_same_model(read_outline(start[0]), args)
    check_resumption(args, config is not None)


def _check_data(args: Namespace, task: FairseqTask, with_lengths: bool) -> None:
    data = task.data_manager
    train = Limits.of_training(task.args) if with_lengths else None
    # Without validation, fairseq opens the validation data but makes no batches.
    valid = Limits.of_validation(task.args) if with_lengths and not args.disable_validation else None
    with collect_errors() as errors:
        with errors.check():
            check_sampling(data)
        with errors.check():
            check_shared_directions(data, args.train_subset)
        with errors.check():
            data.check_files(args.train_subset, limits=train)
        for split in args.valid_subset.split(","):
            with errors.check():
                data.check_files(split, limits=valid)


def check_stored_model(args: Any) -> None:
    """Checks that building the model of a checkpoint runs no code that the checkpoint names.

    Args:
        args: the arguments stored in the checkpoint.

    Raises:
        UserError: the model is neither a stock Transformer nor ours, or an argument would run code.
    """
    name = str(getattr(args, "_name", None) or getattr(args, "arch", None))
    if ARCH_MODEL_REGISTRY.get(name) not in (TransformerModel, LanguageSpecificTransformer):
        # Other models evaluate their arguments, or load files that these name.
        raise UserError(f"the checkpoint's architecture is {name[:80]!r}; expected a stock Transformer or one of ours")
    check_stored_arguments(args)
    check_model_arguments(args)


def warn(sentences: Iterable[str]) -> None:
    """Logs warnings, one line each."""
    for sentence in sentences:
        logger.warning(sentence)
