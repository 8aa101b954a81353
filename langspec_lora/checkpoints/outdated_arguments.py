"""Arguments that a checkpoint stores of its training and that the fairseq at hand no longer takes.

A checkpoint holds all arguments of the command that trained it, and fairseq reads every one of them, though of a model
that is only loaded most say nothing: how it was distributed, logged, optimised. Published files were written by older
fairseqs, with values that have since gone: ``ddp_backend='simple'``. Such a value is replaced by today's default.
"""

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

from langspec_lora.errors import UserError, exit_on_user_error

logger = logging.getLogger(__name__)

_READ_TEXT = ("bpe", "tokenizer")
"""Choices that say how raw text is split: without them text that fairseq's hub interface is given stays whole."""


def replace_outdated(args: Namespace) -> dict[str, Any]:
    """Replaces, in place, what this fairseq does not take and what only concerns the run that wrote it.

    Args:
        args: the arguments of a checkpoint.

    Returns:
        What was replaced: names and the values that were there.

    Raises:
        UserError: fairseq does not take an argument that the model depends on.
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
        raise _no_model(args, error)
    outdated = _smallest(names, works)
    replaced = {name: getattr(args, name) for name in outdated}
    readable = _without(args, outdated, defaults)
    vars(args).clear()
    vars(args).update(vars(readable))
    return replaced


def read_outdated_arguments() -> None:
    """Lets fairseq load checkpoints that store outdated arguments, for the rest of the process.

    The seam is the one function through which ``fairseq.checkpoint_utils`` reads the arguments of a checkpoint: there
    is no other before a task or a model is asked.
    """
    from fairseq import checkpoint_utils

    stock = checkpoint_utils.convert_namespace_to_omegaconf
    if getattr(stock, "replaces_outdated", False):
        return

    def convert(args: Namespace) -> Any:
        with suppress(Exception), _quiet("fairseq.dataclass.utils"):
            return stock(args)
        with exit_on_user_error():
            tell_replaced(replace_outdated(args))
        return stock(args)

    convert.replaces_outdated = True
    checkpoint_utils.convert_namespace_to_omegaconf = convert


def tell_replaced(replaced: dict[str, Any]) -> None:
    """Logs what :func:`replace_outdated` returned."""
    if not replaced:
        return
    values = ", ".join(f"{name} {str(value)[:80]!r}" for name, value in replaced.items())
    lost = " and ".join(name for name in replaced if name in _READ_TEXT)
    if lost:
        logger.warning("the checkpoint's %s is unknown to this fairseq: raw text is not split by it", lost)
    logger.info("the checkpoint's %s, which this fairseq does not take, only concerned its run: left out", values)


def _refusal(args: Namespace) -> Exception | None:
    """What fairseq raises on reading the arguments."""
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    try:
        with _quiet("fairseq.dataclass.utils"):
            convert_namespace_to_omegaconf(Namespace(**vars(args)))
    except Exception as error:  # of hydra, omegaconf, ast and registries: whatever a wrong value sets off
        return error
    return None


def _run_defaults(args: Namespace) -> dict[str, Any]:
    """The arguments that only concern a run, as far as this fairseq knows them, and what stands for each of them.

    Choices, of a criterion say, come after single values, which are replaced rather.
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
    """Whether an argument is not among its choices, or of another type: tried first, because it takes next to nothing.

    Args:
        args: all arguments.
        name: that of one.
        field: how fairseq declares it; None of a choice of a class.
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
    if name == "task":
        return True  # it is among the arguments only where it is unknown
    kind = interpret_dc_type(field.type)
    if inspect.isclass(kind) and issubclass(kind, Enum):
        return value is not None and value not in [one.value for one in kind]
    alone = make_dataclass("Alone", [(name, field.type)])
    try:
        OmegaConf.structured(alone)[name] = value
    except OmegaConfBaseException:
        return True
    return False


def _default(field: Field) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _without(args: Namespace, names: Collection[str], defaults: dict[str, Any]) -> Namespace:
    """A copy in which the names have their defaults; those that have none, or refer to others, are left out."""
    held = {name: value for name, value in vars(args).items() if name not in names}
    for name in names:
        default = defaults[name]
        if default is not MISSING and not (isinstance(default, str) and default.startswith(("${", "???"))):
            held[name] = default
    return Namespace(**held)


def _smallest(names: Sequence[str], works: Callable[[frozenset[str]], bool]) -> list[str]:
    """The fewest of some names without which it works, where it works without all of them; early ones rather.

    Each attempt takes fairseq a fifth of a second, so that halves are tried rather than names (Junker's QuickXplain).
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


def _no_model(args: Namespace, error: Exception) -> UserError:
    from fairseq.models import ARCH_MODEL_REGISTRY

    arch = getattr(args, "arch", None)
    if arch not in ARCH_MODEL_REGISTRY:
        return UserError(
            f"the checkpoint's argument arch is {str(arch)[:80]!r}, an architecture that this fairseq does not know; "
            "give a checkpoint of a Transformer, or the --user-dir that it was trained with"
        )
    words = str(error).split("\n", maxsplit=1)[0][:200]
    return UserError(f"the checkpoint's arguments cannot be read ({words}); give a file written by fairseq-train")


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keeps a logger's messages back: fairseq logs all arguments before it raises."""
    noisy = logging.getLogger(name)
    was, noisy.disabled = noisy.disabled, True
    try:
        yield
    finally:
        noisy.disabled = was
