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
from langspec_lora.checkpoints.compatibility import check_generation_checkpoints, check_training_checkpoint
from langspec_lora.checkpoints.outline import read_outline
from langspec_lora.checkpoints.resuming import check_resumption
from langspec_lora.checkpoints.saving import settle_base
from langspec_lora.checkpoints.starting_point import check_start_agrees, check_start_flags, starting_checkpoint
from langspec_lora.checkpoints.token_order import checkpoint_paths
from langspec_lora.config import freezes_base
from langspec_lora.data.language_ids import LanguageIdDataManager
from langspec_lora.data.lengths import Limits
from langspec_lora.data.shared_directions import check_shared_directions, training_directions
from langspec_lora.errors import UserError
from langspec_lora.generation import GenerationSettings
from langspec_lora.models.structure import check_training_structure
from langspec_lora.models.transformer import LanguageSpecificTransformer
from langspec_lora.settings import read_flags
from langspec_lora.tasks.checks.best_metric import check_best_metric
from langspec_lora.tasks.checks.command import check_training_flags, generation_warnings, training_warnings
from langspec_lora.tasks.checks.languages import used_languages
from langspec_lora.tasks.checks.model_overrides import check_overrides
from langspec_lora.tasks.checks.training_numbers import check_training_numbers
from langspec_lora.tasks.checks.unsupported_flags import check_precision

logger = logging.getLogger(__name__)


def check_generation(args: Namespace, data: LanguageIdDataManager, vocabulary: int) -> None:
    """Checks a command that uses trained models.

    Args:
        args: its arguments.
        data: the data manager of its task.
        vocabulary: number of entries in the dictionary, including language tokens.

    Raises:
        UserError: a flag, a checkpoint or the data are wrong.
    """
    read_flags(args, GenerationSettings)
    paths = checkpoint_paths(args)
    check_overrides(getattr(args, "model_overrides", None) or "{}")
    check_generation_checkpoints(paths, used_languages(args), vocabulary, getattr(args, "base_checkpoint", None))
    warn(generation_warnings(args, paths))
    if getattr(args, "lm_path", None):
        read_outline(args.lm_path)
    if args.source_lang is not None and not hasattr(args, "buffer_size"):  # only fairseq-interactive has it
        limits = Limits.of_generation(args, [read_outline(path).model_args or Namespace() for path in paths])
        data.check_files(args.gen_subset, needs_target=False, limits=limits)


def check_training(args: Namespace, task: FairseqTask) -> None:
    """Checks a training command, and sets the path of the base in its arguments and the task's.

    Args:
        args: the arguments that the model is built from; changed in place.
        task: the task of the command.

    Raises:
        UserError: a flag, the checkpoint to start from or the data are wrong.
    """
    check_training_numbers(args)
    config = check_training_flags(args)
    check_model_arguments(args, of_command=True)
    check_start_flags(args)
    if config is not None:
        check_training_structure(args, config)
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
    check_precision(args)
    check_best_metric(task, args)
    data = task.data_manager
    check_shared_directions(data, args.train_subset)
    data.check_files(args.train_subset, limits=Limits.of_training(task.args))
    # Without validation, fairseq opens the validation data but makes no batches.
    valid = None if args.disable_validation else Limits.of_validation(task.args)
    for split in args.valid_subset.split(","):
        data.check_files(split, limits=valid)
    warn(training_warnings(args, config, training_directions(data), start))


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
