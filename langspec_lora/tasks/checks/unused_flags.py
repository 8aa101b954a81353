"""Warns of our flags that have no effect together with the other flags of a command."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Mapping
from typing import Any

from langspec_lora.config import AdapterConfig, check_adapter_flags, check_language_number
from langspec_lora.errors import UserError, collect_errors
from langspec_lora.flags import SOFT, AbsentFlag, AdapterFlags, BaseFlag, PruningFlags, ScoreFlags
from langspec_lora.languages import LEVELS, PAPER_RESOURCES, Resources
from langspec_lora.naming import cut, some_of
from langspec_lora.pruning.choices import AB, RANK
from langspec_lora.resources import read_resources
from langspec_lora.sites import SHARED

_MEANT_WITHOUT_ADAPTERS = (
    "add_lora",
    "freeze_original_parameters",
    "train_parts",
    "language_num",
    "save_adapters_only",
)


_ADAPTERS, _BASE, _PRUNING, _ABSENT, _SCORES = map(
    vars, (AdapterFlags(), BaseFlag(), PruningFlags(), AbsentFlag(), ScoreFlags())
)
"""Our flags and their defaults."""


def check_not_empty(args: Namespace) -> None:
    """Refuses flags of ours with an empty value, which an unset variable of a script leaves.

    Raises:
        UserError: flags are empty; all of them are listed.
    """
    with collect_errors() as errors:
        for name in (*_ADAPTERS, *_BASE, *_PRUNING, *_SCORES):
            with errors.check():
                if getattr(args, name, None) == "":
                    raise UserError(f"{_flag(name)} '' is empty; give it a value, or leave it out")


def check_without_adapters(args: Namespace) -> None:
    """Checks the values of the adapter flags even though ``--add-lora False`` leaves them without effect.

    Raises:
        UserError: a flag has a wrong value.
    """
    with collect_errors() as errors:
        with errors.check():
            check_adapter_flags(args)
        with errors.check():
            if args.lang_resources:
                read_resources(args.lang_resources)
        if args.langs:
            check_language_number(args, args.langs.split(",") if isinstance(args.langs, str) else args.langs)


def unused_flags(args: Namespace, config: AdapterConfig | None) -> list[str]:
    """Names the flags of a training that have no effect.

    A flag with its default value cannot be told from one that was left out, and is not named.

    Args:
        args: the arguments of the training command.
        config: which adapters the model will have, or None.

    Returns:
        One warning for each reason.
    """
    found = [*unused_pruning_flags(args), *unused_score_flags(args)]
    if config is not None:
        return [
            *found,
            *_unused_learning(args, config),
            *_unused_scaling(args),
            *_unused_positions(args, config),
            *_unused_ranks(args, config),
            *_unused_levels(args, config),
        ]
    flags = _given(args, {**_ADAPTERS, **_ABSENT})
    given = [text for name, text in flags.items() if name not in _MEANT_WITHOUT_ADAPTERS]
    if given:
        found.append(f"{some_of(given)}: no effect with --add-lora False, which adds no adapters")
    return found


def unused_pruning_flags(args: Namespace) -> list[str]:
    """Names the pruning flags if nothing is pruned."""
    if args.pruning or args.global_pruning:
        if getattr(args, "pruning_unit", None) == RANK and getattr(args, "pruning_target", None) == AB:
            return [f"--pruning-target {AB}: no effect with --pruning-unit {RANK}, which prunes whole components"]
        return []
    given = _given(args, _PRUNING).values()
    return [f"{some_of(given)}: no effect without --pruning True"] if given else []


def unused_score_flags(args: Namespace) -> list[str]:
    """Names the flags for scores of validation text if nothing is translated."""
    given = _given(args, _SCORES)
    if not given:
        return []
    if not args.eval_translations:
        return [f"{some_of(given.values())}: no effect without --eval-translations N, the number of sentences"]
    if args.disable_validation:
        return [f"{some_of(given.values())}: no effect with --disable-validation"]
    return []


def training_flags_without_training(args: Namespace) -> list[str]:
    """Names the training flags of a command that does not train."""
    given = _given(args, _PRUNING).values()
    found = [f"{some_of(given)}: no effect here; only fairseq-train prunes"] if given else []
    given = _given(args, _SCORES).values()
    found += [f"{some_of(given)}: no effect here; only fairseq-train scores while it trains"] if given else []
    given = _given(args, _ABSENT).values()
    return [*found, *(f"{text}: no effect here; only fairseq-train updates adapters" for text in given)]


def _unused_positions(args: Namespace, config: AdapterConfig) -> list[str]:
    found = []
    for stack, settings in config.stacks.items():
        given = _given(args, {f"{stack}_lora_position": None, f"{stack}_activation_direction": None}).values()
        if given and not settings.layers:
            found.append(f"{some_of(given)}: no effect with --{stack}-lora-layer none, which adapts no {stack} layer")
    return found


def _unused_ranks(args: Namespace, config: AdapterConfig) -> list[str]:
    single_ranks = _resources(args).ranks
    found = []
    if SHARED not in config.sides:
        found = [f"{text}: no effect, since no layer has a shared adapter" for text in _shared_rank(args)]
    elif config.sides == {SHARED} and args.shared_rank is not None:
        given = _given(args, {f"{level}_rank": _ADAPTERS[f"{level}_rank"] for level in LEVELS}).values()
        return [f"{text}: no effect beside --shared-rank, since all languages share their adapter" for text in given]
    for name, text in _given(args, {f"{level}_rank": _ADAPTERS[f"{level}_rank"] for level in LEVELS}).items():
        level = name.removesuffix("_rank")
        members = _names_of_level(config, level)
        if not members:
            found.append(f"{text}: no effect, since no language of level {level} is in --langs")
        elif all(language in single_ranks for language in members):
            found.append(f"{text}: no effect, since --lang-resources gives every language of level {level} its rank")
    return found


def _unused_learning(args: Namespace, config: AdapterConfig) -> list[str]:
    found = [f"{text}: no effect here; it is for translation" for text in _given(args, {"directions": SOFT}).values()]
    for text in _given(args, {"weight_learning_lr": None}).values():
        if not config.mixed_layers:
            found.append(f"{text}: no effect without --weight-learning True")
        elif getattr(args, "optimizer", "adam") != "adam":
            found.append(f"{text}: only with --optimizer adam is this the learning rate; here it is another")
    return found


def _unused_scaling(args: Namespace) -> list[str]:
    if getattr(args, "lora_alpha", None) is not None:
        return []
    return [f"{text}: no effect without --lora-alpha" for text in _given(args, {"lora_scaling": None}).values()]


def _shared_rank(args: Namespace) -> Iterable[str]:
    return _given(args, {"shared_rank": None}).values()


def _unused_levels(args: Namespace, config: AdapterConfig) -> list[str]:
    if not args.lang_resources:
        return []
    others = [name for name in _resources(args).levels if name not in config.languages.names]
    if not others:
        return []
    return [f"--lang-resources {args.lang_resources} names {some_of(others)}, not in --langs: not trained"]


def _names_of_level(config: AdapterConfig, level: str) -> list[str]:
    table = config.languages
    return [name for name, found in zip(table.names, table.levels, strict=True) if found == level]


def _resources(args: Namespace) -> Resources:
    return read_resources(args.lang_resources) if args.lang_resources else PAPER_RESOURCES


def _given(args: Namespace, defaults: Mapping[str, Any]) -> dict[str, str]:
    """The flag and value of each argument that differs from its default, by the argument's name."""
    values = {name: getattr(args, name, default) for name, default in defaults.items()}
    return {name: f"{_flag(name)} {cut(value)}" for name, value in values.items() if value != defaults[name]}


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
