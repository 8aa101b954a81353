"""Makes ``fairseq-hydra-train`` run the training that ``fairseq-train`` runs if it is given the settings as flags.

Task and model read flags, as all those of fairseq do that have ``add_args``, but ``fairseq-hydra-train`` builds only
tasks with a dataclass. A dataclass would change what ``fairseq-train`` hands to the task and stores in checkpoints. So
the settings are turned into flags and read by fairseq's parser. ``fairseq.tasks.setup_task`` is the first function that
gets the settings after the user-dir is imported, and it has no hook, so it is wrapped.
"""

from __future__ import annotations

import argparse
import functools
from argparse import Action, ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, cast

from fairseq import options, tasks
from fairseq.dataclass.configs import FairseqConfig
from fairseq.dataclass.utils import omegaconf_no_object_check
from fairseq.models import ARCH_MODEL_REGISTRY
from fairseq.registry import REGISTRIES
from fairseq.utils import csv_str_list
from omegaconf import DictConfig, OmegaConf, open_dict

from langspec_lora.errors import UserError, collect_errors, exit_on_user_error
from langspec_lora.tasks.composed import compose

NAME = "translation_multi_simple_epoch_lora"
"""The task's name in fairseq."""

_LAST = ("criterion", "optimizer", "lr_scheduler", "model", "task")
"""The sections whose settings count if another section, which most of them refer to, has one of the same name."""
_FREE = ("model", "task")
"""The sections in which Hydra accepts any name."""


def with_settings_of_hydra(setup_task: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps ``fairseq.tasks.setup_task`` so that it takes our task's settings from Hydra too."""

    @functools.wraps(setup_task)
    def setup(cfg: Any, **kwargs: Any) -> Any:
        if isinstance(cfg, DictConfig) and cfg.get("_name") == NAME:
            with exit_on_user_error():
                cfg = read_settings(cast(DictConfig, cfg._get_parent()))
        return setup_task(cfg, **kwargs)

    return setup


def read_settings(cfg: DictConfig) -> Namespace:
    """Reads Hydra's settings as ``fairseq-train`` would read them from flags.

    Args:
        cfg: all settings; its sections ``task`` and ``model`` are replaced by arguments, as ``fairseq-train`` has them.

    Returns:
        The arguments of the task.

    Raises:
        UserError: a setting is missing, is unknown or has a wrong value.
    """
    sections: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)  # type: ignore[assignment]
    chosen = _chosen_parts(sections)
    data = sections["task"].get("data")
    if not data:
        raise UserError("task.data is missing; give the folder of the binarised data")
    parser = _training_parser()
    defaults = options.parse_args_and_arch(parser, [str(data), *chosen])
    args = options.parse_args_and_arch(
        _training_parser(), [str(data), *chosen, *_flags(sections, parser._actions, defaults)]
    )
    composed = compose(args)
    with open_dict(cfg), omegaconf_no_object_check():
        cfg.task, cfg.model = composed.task, composed.model
    return cfg.task


def _chosen_parts(sections: Mapping[str, Any]) -> list[str]:
    """The flags that choose task, architecture, criterion and so on."""
    arch = (sections.get("model") or {}).get("_name")
    if arch not in ARCH_MODEL_REGISTRY:
        found = "model._name is missing" if arch is None else f"model._name {arch} is unknown"
        raise UserError(f"{found}; give an architecture, such as langspec_m2m100_lora_base")
    chosen = {"task": NAME, "arch": arch}
    for part in REGISTRIES:
        value = sections.get(part)
        name = value.get("_name") if isinstance(value, dict) else value
        if name is not None:
            chosen[part] = name
    return [f"--{part.replace('_', '-')}={name}" for part, name in chosen.items()]


def _training_parser() -> ArgumentParser:
    parser = options.get_training_parser()

    def error(message: str) -> NoReturn:
        raise UserError(f"{message}; correct that setting")

    parser.error = error
    return parser


def _flags(sections: Mapping[str, Any], actions: Sequence[Action], defaults: Namespace) -> Iterator[str]:
    """The settings that are not fairseq's defaults, as flags."""
    known = {action.dest: action for action in actions if action.option_strings}
    order = [*(name for name in sections if name not in _LAST), *_LAST]
    with collect_errors() as errors:
        for section in order:
            settings = sections.get(section)
            for name, value in (settings if isinstance(settings, dict) else {}).items():
                if name.startswith("_") or (section == "task" and name in ("data", "task")):
                    continue
                if name not in known:
                    if section in _FREE:
                        with errors.check():
                            raise UserError(
                                f"{section}.{name} is no setting of this {section}; 'fairseq-train … --help' lists "
                                "those that are, with - in place of _"
                            )
                elif value is None or _follows(sections, section, name):
                    continue
                elif section in _FREE or value != getattr(defaults, name, None):
                    yield from _flag(known[name], value)


def _follows(sections: Mapping[str, Any], section: str, name: str) -> bool:
    """Whether a setting has the value of another to which its default refers, as ``max_tokens_valid`` does."""
    field = FairseqConfig.__dataclass_fields__.get(section)
    default = getattr(field and field.default, name, None)
    if not isinstance(default, str) or not default.startswith("${"):
        return False
    other, _, key = default[2:-1].partition(".")
    return sections[section][name] == (sections.get(other) or {}).get(key)


def _flag(action: Action, value: Any) -> list[str]:
    flag = action.option_strings[-1]
    if isinstance(action, argparse._StoreConstAction):  # a switch; the value is True or False
        return [flag] if value == action.const else []
    if isinstance(value, list):
        value = ",".join(map(str, value)) if action.type is csv_str_list else repr(value)
    return [f"{flag}={value}"]


tasks.setup_task = with_settings_of_hydra(tasks.setup_task)
