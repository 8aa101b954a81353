"""The hooks of a training, in order, chosen by its flags."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from fairseq.distributed import utils as distributed

from langspec_lora.checkpoints.starting_point import starting_checkpoint
from langspec_lora.config import trained_languages
from langspec_lora.hooks import TrainingHook
from langspec_lora.lora import FrozenKeys, packed_parameters
from langspec_lora.models.injected import InjectedAdapters
from langspec_lora.pruning.callback import DenseTraining, GradualPruning
from langspec_lora.pruning_flags import pruning_from_args
from langspec_lora.tasks.half_precision import HalfPrecision
from langspec_lora.tasks.learned_directions import LearnedDirections
from langspec_lora.tasks.present_languages import PresentLanguages
from langspec_lora.tasks.second_moments import mean_squares


def training_hooks(args: Namespace, adapters: InjectedAdapters) -> list[TrainingHook]:
    """Builds the hooks of a training.

    Args:
        args: the arguments of the training command.
        adapters: the adapters of its model.

    Raises:
        UserError: a flag has a wrong value.
    """
    trained = keys_to_train(args, adapters)
    hooks: list[TrainingHook] = [HalfPrecision(adapters.linears.values())]  # the last to act after an update
    if trained is not None:
        hooks.append(FrozenKeys(adapters.linears.values(), trained))
        if adapters.routing.mixture is not None:  # of which all languages have the same
            adapters.routing.mixture.logits.requires_grad_(False)
    hooks.append(_pruning(args, adapters, trained))
    if adapters.config.mixed_layers:
        writes = not args.no_save and distributed.get_global_rank() == 0
        hooks.append(LearnedDirections(adapters, Path(args.save_dir) if writes else None))
    if args.absent_languages == "rest":
        hooks.append(PresentLanguages(adapters.routing, packed_parameters(adapters.linears.values())))
    return hooks


def keys_to_train(args: Namespace, adapters: InjectedAdapters) -> dict[str, tuple[int, ...]] | None:
    """The keys whose adapters train, by side, or None if all do."""
    languages, layout = adapters.config.languages, adapters.routing.layout
    trained = trained_languages(args, languages)
    if len(trained) == len(languages):
        return None
    return {side: layout.only_for(side, trained) for side in layout.packed}


def _pruning(args: Namespace, adapters: InjectedAdapters, trained: Mapping[str, Sequence[int]] | None) -> TrainingHook:
    settings, config = pruning_from_args(args), adapters.config
    if settings is None:
        return DenseTraining(adapters.linears, adapters, trained, args.seed, config.init)
    squares = partial(mean_squares, linears=tuple(adapters.linears.values()), layout=adapters.routing.layout)
    pruning = GradualPruning(
        adapters.linears, config.languages, settings, adapters, trained, squares, args.seed, config.init
    )
    start = starting_checkpoint(args)
    if start is None or not start[1]:
        pruning.forget_masks_at_first_epoch()
    return pruning
