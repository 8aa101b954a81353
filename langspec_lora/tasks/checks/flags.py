"""Flags that are given and do nothing: each is named in a sentence, before anything is built."""

from __future__ import annotations

import math
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langspec_lora.config import AdapterConfig, check_adapter_flags, check_language_number
from langspec_lora.errors import UserError
from langspec_lora.flags import add_absent_flag, add_adapter_flags, add_base_flag, add_pruning_flags
from langspec_lora.languages import LEVELS, PAPER_RESOURCES, Resources, read_resources
from langspec_lora.pruning.schedule import PruningSchedule

_MEANT_WITHOUT_ADAPTERS = ("add_lora", "freeze_original_parameters", "language_num", "save_adapters_only")


def _defaults(declare: Callable[[ArgumentParser], None]) -> Mapping[str, Any]:
    parser = ArgumentParser()
    declare(parser)
    return vars(parser.parse_args([]))


_ADAPTERS, _BASE, _PRUNING, _ABSENT = map(
    _defaults, (add_adapter_flags, add_base_flag, add_pruning_flags, add_absent_flag)
)


def check_filled(args: Namespace) -> None:
    """Makes sure that no flag of ours is empty, as it is where a script's variable is not set.

    Raises:
        UserError: one is.
    """
    for name in (*_ADAPTERS, *_BASE, *_PRUNING):
        if getattr(args, name, None) == "":
            raise UserError(f"{_flag(name)} '' is empty; give it a value, or leave it out")


def check_without_adapters(args: Namespace) -> None:
    """Checks the flags of adapters where ``--add-lora False`` leaves them without effect.

    Raises:
        UserError: one has a value that it cannot have.
    """
    check_adapter_flags(args)
    if args.lang_resources:
        read_resources(args.lang_resources)
    if args.langs:
        check_language_number(args, args.langs.split(",") if isinstance(args.langs, str) else args.langs)


def unused_flags(args: Namespace, config: AdapterConfig | None) -> list[str]:
    """Names what the flags of a training say and what nothing will read.

    A flag that has its default cannot be told from one that was left out, and is not named.

    Args:
        args: the arguments of the training command.
        config: which adapters the model will have, or None.

    Returns:
        Sentences.
    """
    found = unused_pruning_flags(args)
    if config is not None:
        return [*found, *_unused_positions(args, config), *_unused_ranks(args, config), *_unused_levels(args, config)]
    flags = _given(args, {**_ADAPTERS, **_ABSENT})
    given = [text for name, text in flags.items() if name not in _MEANT_WITHOUT_ADAPTERS]
    if given:
        found.append(f"{', '.join(given)}: no effect with --add-lora False, which leaves the adapters out")
    return found


def unused_pruning_flags(args: Namespace) -> list[str]:
    """Names the flags of pruning that are given though nothing is pruned."""
    if args.pruning or args.global_pruning:
        return []
    given = _given(args, _PRUNING).values()
    return [f"{', '.join(given)}: no effect without --pruning True"] if given else []


def training_flags_in_generation(args: Namespace) -> list[str]:
    """Names the flags of training in a command that does not train."""
    given = _given(args, _PRUNING).values()
    found = [f"{', '.join(given)}: no effect here; only fairseq-train prunes"] if given else []
    given = _given(args, _ABSENT).values()
    return [*found, *(f"{text}: no effect here; only fairseq-train has updates" for text in given)]


def pruning_within(schedule: PruningSchedule, epochs: float, limit: str) -> list[str]:
    """Says whether a training is too short for its pruning.

    Args:
        schedule: how much is pruned by which epoch.
        epochs: how many epochs the training has; infinite where nothing limits it.
        limit: the flag that limits it and its value.
    """
    if not schedule.target:
        return ["--target-pruning-ratio 0: nothing will be pruned"]
    end = schedule.start + schedule.length
    if epochs >= end:
        return []
    last, reached = int(epochs), schedule.ratio(int(epochs))
    if not reached:
        return [
            f"nothing will be pruned: pruning starts after epoch {schedule.start} (--pruning-t1), and this training "
            f"ends with epoch {last} ({limit})"
        ]
    return [
        f"pruning will reach {reached:.3f} and not --target-pruning-ratio {schedule.target:g}: its last epoch is {end} "
        f"(--pruning-t1 plus --pruning-t2), and this training ends with epoch {last} ({limit})"
    ]


def epochs_within(updates: int, batches: int, update_freq: Sequence[int]) -> int:
    """The epoch in which a limit of updates ends a training.

    Args:
        updates: ``--max-update``.
        batches: batches of an epoch, of one process.
        update_freq: batches of an update in epoch 1, 2, …; the last value holds from there on.
    """
    epoch = 0
    while updates > 0:
        frequency = update_freq[min(epoch, len(update_freq) - 1)]
        updates -= max(1, math.ceil(batches / frequency))
        epoch += 1
    return epoch


def _unused_positions(args: Namespace, config: AdapterConfig) -> list[str]:
    found = []
    for stack, settings in config.stacks.items():
        given = _given(args, {f"{stack}_lora_position": None, f"{stack}_activation_direction": None}).values()
        if given and not settings.layers:
            found.append(f"{', '.join(given)}: no effect with --{stack}-lora-layer none, which adapts no layer there")
    return found


def _unused_ranks(args: Namespace, config: AdapterConfig) -> list[str]:
    own = _resources(args).ranks
    found = []
    for name, text in _given(args, {f"{level}_rank": _ADAPTERS[f"{level}_rank"] for level in LEVELS}).items():
        level = name.removesuffix("_rank")
        members = [language for language in _names_of_level(config, level) if language not in own]
        if not members:
            whose = "has the rank that the levels file gives it" if _names_of_level(config, level) else "is in --langs"
            each = "each" if _names_of_level(config, level) else "no"
            found.append(f"{text}: no effect, since {each} language of the level {level} {whose}")
    return found


def _unused_levels(args: Namespace, config: AdapterConfig) -> list[str]:
    if not args.lang_resources:
        return []
    others = [name for name in _resources(args).levels if name not in config.languages.names]
    return [f"--lang-resources {args.lang_resources} names {', '.join(others)}, not in --langs: not trained"] * bool(
        others
    )


def _names_of_level(config: AdapterConfig, level: str) -> list[str]:
    table = config.languages
    return [name for name, found in zip(table.names, table.levels, strict=True) if found == level]


def _resources(args: Namespace) -> Resources:
    return read_resources(args.lang_resources) if args.lang_resources else PAPER_RESOURCES


def _given(args: Namespace, defaults: Mapping[str, Any]) -> dict[str, str]:
    """Flag and value of each argument that does not have its default, by the argument's name."""
    values = {name: getattr(args, name, default) for name, default in defaults.items()}
    return {name: f"{_flag(name)} {value}" for name, value in values.items() if value != defaults[name]}


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
