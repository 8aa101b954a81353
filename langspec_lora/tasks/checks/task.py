"""All that the task checks before anything is built: the order of the checks, and nothing else."""

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
from langspec_lora.inference.settings import Generation
from langspec_lora.models.structure import check_training_structure
from langspec_lora.models.transformer import LanguageSpecificTransformer
from langspec_lora.tasks.checks.best_metric import check_best_metric
from langspec_lora.tasks.checks.command import check_training_flags, remarks_on_generation, remarks_on_training
from langspec_lora.tasks.checks.languages import used_languages
from langspec_lora.tasks.checks.overrides import check_overrides
from langspec_lora.tasks.checks.training_numbers import check_training_numbers
from langspec_lora.tasks.checks.unsupported import check_precision

logger = logging.getLogger(__name__)


def check_generation(args: Namespace, data: LanguageIdDataManager, vocabulary: int) -> None:
    """Checks a command that uses trained models.

    Args:
        args: its arguments.
        data: the data manager of its task.
        vocabulary: number of entries of the dictionary, language tokens included.

    Raises:
        UserError: a flag, a checkpoint or the data are wrong.
    """
    Generation.from_args(args)
    paths = checkpoint_paths(args)
    check_overrides(getattr(args, "model_overrides", None) or "{}")
    check_generation_checkpoints(paths, used_languages(args), vocabulary, getattr(args, "base_checkpoint", None))
    warn(remarks_on_generation(args, paths))
    if getattr(args, "lm_path", None):
        read_outline(args.lm_path)
    if args.source_lang is not None and not hasattr(args, "buffer_size"):  # which fairseq-interactive has
        limits = Limits.of_generation(args, [read_outline(path).model_args for path in paths])
        data.check_files(args.gen_subset, needs_target=False, limits=limits)


def check_training(args: Namespace, task: FairseqTask) -> None:
    """Checks a training command, and settles in its arguments, and the task's, where the base lies.

    Args:
        args: the arguments that the model will be built from; changed in place.
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
        task.args.base_checkpoint = args.base_checkpoint  # for fairseq-validate, which asks the task's settings
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
    # Without validation its data are opened, but no batches are made of them.
    valid = None if args.disable_validation else Limits.of_validation(task.args)
    for split in args.valid_subset.split(","):
        data.check_files(split, limits=valid)
    warn(remarks_on_training(args, config, training_directions(data), start))


def check_stored_model(args: Any) -> None:
    """Makes sure that building a checkpoint's model runs nothing that the checkpoint names.

    Args:
        args: the arguments that it stores.

    Raises:
        UserError: it holds a model of another kind than ours or a stock Transformer, or arguments that run code.
    """
    name = str(getattr(args, "_name", None) or getattr(args, "arch", None))
    if ARCH_MODEL_REGISTRY.get(name) not in (TransformerModel, LanguageSpecificTransformer):
        # Others evaluate their arguments, or load further files that these name.
        raise UserError(f"the checkpoint holds a model of the kind {name[:80]!r}; expected a stock Transformer or ours")
    check_stored_arguments(args)
    check_model_arguments(args)


def warn(sentences: Iterable[str]) -> None:
    """Logs warnings, a line each."""
    for sentence in sentences:
        logger.warning(sentence)
