"""The hooks of a training, in order, chosen by its flags."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence

from langspec_lora.checkpoints.starting_point import starting_checkpoint
from langspec_lora.config import pruning_from_args, trained_languages
from langspec_lora.hooks import TrainingHook
from langspec_lora.lora import FrozenLanguages, packed_parameters
from langspec_lora.models.injected import InjectedAdapters
from langspec_lora.pruning.callback import DenseTraining, GradualPruning
from langspec_lora.tasks.half_precision import HalfPrecision
from langspec_lora.tasks.present_languages import PresentLanguages


def training_hooks(args: Namespace, adapters: InjectedAdapters) -> list[TrainingHook]:
    """Builds the hooks of a training.

    Args:
        args: the arguments of the training command.
        adapters: the adapters of its model.

    Raises:
        UserError: a flag has a wrong value.
    """
    trained = languages_to_train(args, adapters)
    hooks: list[TrainingHook] = [HalfPrecision(adapters.linears.values())]  # the last to act after an update
    if trained is not None:
        hooks.append(FrozenLanguages(adapters.linears.values(), adapters.routing.layout, trained))
    hooks.append(_pruning(args, adapters, trained))
    if args.absent_languages == "rest":
        hooks.append(PresentLanguages(adapters.routing, packed_parameters(adapters.linears.values())))
    return hooks


def languages_to_train(args: Namespace, adapters: InjectedAdapters) -> tuple[int, ...] | None:
    """The ids of the languages that train, or None if all do."""
    languages = adapters.config.languages
    trained = trained_languages(args, languages)
    return None if len(trained) == len(languages) else trained


def _pruning(args: Namespace, adapters: InjectedAdapters, trained: Sequence[int] | None) -> TrainingHook:
    settings, languages = pruning_from_args(args), adapters.config.languages
    if settings is None:
        return DenseTraining(adapters.linears, languages, adapters, trained)
    schedule, scope = settings
    pruning = GradualPruning(adapters.linears, languages, schedule, scope, adapters, trained)
    start = starting_checkpoint(args)
    if start is None or not start[1]:
        pruning.forget_masks_at_first_epoch()
    return pruning
