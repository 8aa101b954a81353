"""Training arguments in a checkpoint that the installed fairseq no longer accepts.

A checkpoint stores all arguments of the command that trained it, and fairseq parses each of them whenever it loads the
model, although most only concern the training: how it was distributed, logged, optimised. Published files were written
by older versions of fairseq, with values that no longer exist, such as ``ddp_backend='simple'``. Such a value is
replaced by the current default.
"""

# Imports in functions: command-line modules import this one and start faster without fairseq.

from __future__ import annotations

import inspect
import logging
from argparse import Namespace
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import MISSING, Field, make_dataclass
from enum import Enum
from functools import cache
from typing import Any

from langspec_lora.errors import UserError, exit_on_user_error, printable
from langspec_lora.naming import some_of

logger = logging.getLogger(__name__)

_READ_TEXT = ("bpe", "tokenizer")
"""Choices that say how raw text is split; without them fairseq's hub interface does not split its input."""


def replace_outdated(args: Namespace) -> dict[str, Any]:
    """Replaces, in place, arguments that the installed fairseq does not accept and that only concern the training.

    Args:
        args: the arguments of a checkpoint.

    Returns:
        The replaced arguments: names and former values.

    Raises:
        UserError: fairseq does not accept an argument that the model depends on.
    """
    error = _refusal(args)
    if error is None:
        return {}
    defaults = _run_defaults(args)

    @cache
    def works(replaced: frozenset[str]) -> bool:
        return _refusal(_without(args, replaced, defaults)) is None

    fields = _run_fields(args)
    suspects = [name for name in defaults if _is_refused_alone(args, name, fields.get(name))]
    names = suspects if works(frozenset(suspects)) else [name for name in defaults if hasattr(args, name)]
    if not works(frozenset(names)):
        raise _unreadable(args, error)
    outdated = _smallest(names, works)
    replaced = {name: getattr(args, name) for name in outdated}
    readable = _without(args, outdated, defaults)
    vars(args).clear()
    vars(args).update(vars(readable))
    return replaced


def read_outdated_arguments() -> None:
    """Lets fairseq load checkpoints that store outdated arguments, for the rest of the process.

    It wraps the one function through which ``fairseq.checkpoint_utils`` parses the arguments of a checkpoint: fairseq
    calls neither the task nor the model before.
    """
    from fairseq import checkpoint_utils

    stock = checkpoint_utils.convert_namespace_to_omegaconf
    if not isinstance(stock, _ConvertOutdated):
        checkpoint_utils.convert_namespace_to_omegaconf = _ConvertOutdated(stock)


class _ConvertOutdated:
    """Fairseq's ``convert_namespace_to_omegaconf``, with outdated arguments replaced."""

    def __init__(self, stock: Callable[[Namespace], Any]) -> None:
        self._stock = stock

    def __call__(self, args: Namespace) -> Any:
        with suppress(Exception), _quiet("fairseq.dataclass.utils"):
            return self._stock(args)
        with exit_on_user_error():
            tell_replaced(replace_outdated(args))
        return self._stock(args)


def tell_replaced(replaced: dict[str, Any]) -> None:
    """Logs what :func:`replace_outdated` returned."""
    if not replaced:
        return
    values = some_of(f"{printable(name)} {str(value)[:80]!r}" for name, value in replaced.items())
    lost = " and ".join(name for name in replaced if name in _READ_TEXT)
    if lost:
        logger.warning(
            "the installed fairseq does not know the checkpoint's %s, so raw text is not split with it", lost
        )
    logger.info(
        "the installed fairseq does not accept the checkpoint's %s; ignored, because only training needs it", values
    )


def _refusal(args: Namespace) -> Exception | None:
    """The error that fairseq raises on parsing the arguments; None if it accepts them."""
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    try:
        with _quiet("fairseq.dataclass.utils"):
            convert_namespace_to_omegaconf(Namespace(**vars(args)))
    except Exception as error:  # of hydra, omegaconf, ast or registries
        return error
    return None


def _run_defaults(args: Namespace) -> dict[str, Any]:
    """The default of each argument that only concerns the training, as far as this fairseq knows them.

    Choices, such as the criterion, come last: single values are replaced first.
    """
    from fairseq.registry import REGISTRIES
    from fairseq.tasks import TASK_REGISTRY

    defaults = {name: _default(field) for name, field in _run_fields(args).items()}
    defaults.update(dict.fromkeys(REGISTRIES))
    if getattr(args, "task", None) not in TASK_REGISTRY:
        defaults["task"] = None  # the task of the command builds the model
    return defaults


def _run_fields(args: Namespace) -> dict[str, Field]:
    from fairseq.dataclass.configs import FairseqConfig
    from fairseq.registry import REGISTRIES

    sections = [field.type for field in FairseqConfig.__dataclass_fields__.values()]
    sections += [held["dataclass_registry"].get(getattr(args, name, None)) for name, held in REGISTRIES.items()]
    return {
        name: field
        for section in sections
        for name, field in getattr(section, "__dataclass_fields__", {}).items()
        if not name.startswith("_")
    }


def _is_refused_alone(args: Namespace, name: str, field: Field | None) -> bool:
    """Whether an argument alone is invalid: not among its choices, or of another type. Cheap, so it is tried first.

    Args:
        args: all arguments.
        name: the argument.
        field: how fairseq declares it; None for a choice among registered classes.
    """
    from fairseq.dataclass.utils import interpret_dc_type
    from fairseq.registry import REGISTRIES
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if not hasattr(args, name):
        return False
    value = getattr(args, name)
    if name in REGISTRIES:
        return value is not None and value not in REGISTRIES[name]["registry"]
    if field is None:
        return True  # the task, which is among these arguments only if it is unknown
    expected = interpret_dc_type(field.type)
    if inspect.isclass(expected) and issubclass(expected, Enum):
        return value is not None and value not in [one.value for one in expected]
    alone = make_dataclass("Alone", [(name, field.type)])
    try:
        OmegaConf.structured(alone)[name] = value
    except OmegaConfBaseException:
        return True
    return False


def _default(field: Field) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _without(args: Namespace, names: Collection[str], defaults: dict[str, Any]) -> Namespace:
    """A copy in which the names have their defaults; those without one, or with a reference, are left out."""
    held = {name: value for name, value in vars(args).items() if name not in names}
    for name in names:
        default = defaults[name]
        if default is not MISSING and not (isinstance(default, str) and default.startswith(("${", "???"))):
            held[name] = default
    return Namespace(**held)


def _smallest(names: Sequence[str], works: Callable[[frozenset[str]], bool]) -> list[str]:
    """The smallest set of names whose removal is enough; earlier names are preferred.

    Removing all names is enough. Each attempt takes fairseq a fifth of a second, so halves are tried rather than single
    names (Junker's QuickXplain).
    """

    def search(candidates: Sequence[str], removed: Sequence[str]) -> list[str]:
        if works(frozenset(removed)):
            return []
        if len(candidates) == 1:
            return list(candidates)
        middle = len(candidates) // 2
        first, second = candidates[:middle], candidates[middle:]
        needed = search(second, [*removed, *first])
        return [*needed, *search(first, [*removed, *needed])]

    return search(names, [])


def _unreadable(args: Namespace, error: Exception) -> UserError:
    from fairseq.models import ARCH_MODEL_REGISTRY

    arch = getattr(args, "arch", None)
    if arch not in ARCH_MODEL_REGISTRY:
        return UserError(
            f"the checkpoint's argument arch is {str(arch)[:80]!r}, which the installed fairseq does not know; "
            "give a checkpoint of a Transformer, or the --user-dir that it was trained with"
        )
    words = str(error).split("\n", maxsplit=1)[0][:200]
    return UserError(f"the checkpoint's arguments cannot be read ({words}); give a file written by fairseq-train")


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Silences a logger: fairseq logs all arguments before it raises."""
    noisy = logging.getLogger(name)
    was, noisy.disabled = noisy.disabled, True
    try:
        yield
    finally:
        noisy.disabled = was
