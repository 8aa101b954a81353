"""Checks that training can resume from a checkpoint: it needs adapters, and an optimizer state that fits."""

from __future__ import annotations

import ast
import logging
from argparse import Namespace
from collections.abc import Iterator, Mapping
from typing import Any

from fairseq.criterions import CRITERION_REGISTRY
from fairseq.optim import OPTIMIZER_DATACLASS_REGISTRY, OPTIMIZER_REGISTRY

from langspec_lora.adapters.entries import is_adapter_entry
from langspec_lora.checkpoints.arguments import pruning_from_stored
from langspec_lora.checkpoints.optimizer_state import check_optimizer_state
from langspec_lora.checkpoints.outline import Outline, read_outline
from langspec_lora.checkpoints.starting_point import starting_checkpoint
from langspec_lora.config import freezes_base
from langspec_lora.errors import UserError, printable
from langspec_lora.parts import trained_parts
from langspec_lora.pruning_flags import pruning_from_args
from langspec_lora.scaling import scaling_of

logger = logging.getLogger(__name__)

_WITHOUT_BEST = ("fixed", "manual", "pass_through")
"""Learning-rate schedules that neither save nor need the best loss; all others do both."""


def check_resumption(args: Namespace, adapts: bool) -> None:
    """Checks that a training which resumes can use its checkpoint's state.

    Warns of optimizer flags that the state overrules.

    Args:
        args: the arguments of the training command.
        adapts: whether the model has adapters.

    Raises:
        UserError: the checkpoint is a base model, was trained with another optimizer, criterion or precision, or with
            other trainable parameters, or its optimizer's state is damaged.
    """
    start = starting_checkpoint(args)
    if start is None or not start[1]:
        return
    outline = read_outline(start[0])
    if adapts and not any(map(is_adapter_entry, outline.shapes)):
        raise _resumes_base(args, outline)
    history = outline.history
    if history is None:
        return
    for what, was, now in _differences(args, outline, history):
        raise UserError(
            f"checkpoint {outline.path} was trained with {what} {was}, which its optimizer state depends on, but "
            f"{now} was given; resume with {what} {was}, or {_reset(args, '--reset-optimizer')}"
        )
    if adapts:
        _check_pruning(args, outline)
    check_optimizer_state(outline, adapts and freezes_base(args))
    _check_schedule(args, outline, history)
    _warn_of_overruled_flags(args, outline, history)


def _resumes_base(args: Namespace, outline: Outline) -> UserError:
    is_last = args.restore_file == "checkpoint_last.pt" and outline.path.name.startswith("checkpoint_last")
    if is_last:
        remedy = "give another --save-dir, and the base as --finetune-from-model"
    else:
        remedy = f"give it as --finetune-from-model {outline.path}"
    return UserError(
        f"checkpoint {outline.path} holds no adapters: it is a base model, and resuming would continue with the epoch "
        f"and the optimizer of its training; to train adapters on it, {remedy}"
    )


def _reset(args: Namespace, flag: str) -> str:
    instead = " instead of --finetune-from-model" if args.finetune_from_model else ""
    return f"start with a new state with {flag}{instead}"


def _differences(args: Namespace, outline: Outline, history: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The settings that keep fairseq or torch from loading the optimizer's state: name, old value, new value."""
    was = outline.model_args or Namespace()
    criterion = getattr(CRITERION_REGISTRY.get(args.criterion), "__name__", None)
    if history.get("criterion_name") not in (None, criterion):
        yield "--criterion", getattr(was, "criterion", history["criterion_name"]), args.criterion
    if getattr(was, "optimizer", args.optimizer) != args.optimizer:  # half precision hides its class behind its own
        yield "--optimizer", was.optimizer, args.optimizer
    wrapper = _optimizer_class(args)
    if wrapper is not None and history.get("optimizer_name") not in (None, wrapper):
        yield "the precision", _precision(was), _precision(args)
    flattens = "fp16_no_flatten_grads"
    if wrapper == "FP16Optimizer" and getattr(was, flattens, False) != getattr(args, flattens, False):
        yield "--fp16-no-flatten-grads", str(getattr(was, flattens, False)), str(getattr(args, flattens, False))
    if not (hasattr(was, "add_lora") and hasattr(args, "add_lora")):
        return
    if scaling_of(was) != scaling_of(args):
        yield "the scaling", str(scaling_of(was) or "none"), str(scaling_of(args) or "none")
    if freezes_base(was) != freezes_base(args):
        yield "--freeze-original-parameters", str(freezes_base(was)), str(freezes_base(args))
    elif trained_parts(was) != trained_parts(args):
        yield "--train-parts", ",".join(trained_parts(was)), ",".join(trained_parts(args))


def _check_pruning(args: Namespace, outline: Outline) -> None:
    """Refuses to go on with masks of another kind, and warns where what is left is chosen otherwise from now on."""
    before = pruning_from_stored(outline.model_args)
    now = None if before is None else pruning_from_args(args)
    if before is None or now is None:
        return
    for name in ("target", "unit"):
        was, given = getattr(before, name), getattr(now, name)
        if was != given:
            raise UserError(
                f"checkpoint {outline.path} was trained with --pruning-{name} {was}, as which its masks are meant, but "
                f"{given} was given; resume with {was}, or {_reset(args, '--reset-optimizer')}"
            )
    for name in ("scope", "criterion"):
        was, given = getattr(before, name), getattr(now, name)
        if was != given:
            logger.warning(
                "--pruning-%s %s: %s was trained with %s; what is pruned stays pruned, and from the next epoch on %s "
                "decides what else is",
                *(name, given, outline.path, was, given),
            )


def _optimizer_class(args: Namespace) -> str | None:
    """The class that fairseq's trainer saves by name; None if it depends on more than these arguments."""
    if getattr(args, "use_bmuf", False) or args.ddp_backend == "fully_sharded":
        return None
    if args.fp16 or args.bf16 or args.amp:
        if args.memory_efficient_fp16 or args.memory_efficient_bf16:
            return "MemoryEfficientFP16Optimizer"
        return "AMPOptimizer" if args.amp else "FP16Optimizer"
    return getattr(OPTIMIZER_REGISTRY.get(args.optimizer), "__name__", None)


def _precision(args: Namespace) -> str:
    flags = ("fp16", "bf16", "amp", "memory_efficient_fp16", "memory_efficient_bf16")
    return " ".join(f"--{flag.replace('_', '-')}" for flag in flags if getattr(args, flag, False)) or "fp32"


def _check_schedule(args: Namespace, outline: Outline, history: Mapping[str, Any]) -> None:
    state = history.get("lr_scheduler_state") or {}
    if args.reset_lr_scheduler or args.lr_scheduler in _WITHOUT_BEST:
        return
    compares = args.lr_scheduler == "reduce_lr_on_plateau"
    if "best" not in state or (compares and state["best"] is None):
        was = getattr(outline.model_args, "lr_scheduler", "another")
        raise UserError(
            f"checkpoint {outline.path} was trained with --lr-scheduler {was}, whose state --lr-scheduler "
            f"{args.lr_scheduler} cannot use; resume with the former, or {_reset(args, '--reset-lr-scheduler')}"
        )


def _warn_of_overruled_flags(args: Namespace, outline: Outline, history: Mapping[str, Any]) -> None:
    """The optimizer's state includes betas, weight decay and so on; only the learning rate is taken from the flags."""
    overrides = ast.literal_eval(args.optimizer_overrides)
    for name in getattr(OPTIMIZER_DATACLASS_REGISTRY.get(args.optimizer), "__dataclass_fields__", {}):
        key = name.removeprefix(f"{args.optimizer}_")
        was, now = history["options"].get(key), getattr(args, name, None)
        if key == "lr" or key in overrides or None in (was, now) or _number(was) == _number(now):
            continue
        logger.warning(
            "--%s %s has no effect: %s continues with %s; to change it give --optimizer-overrides \"{'%s': %s}\"",
            *(name.replace("_", "-"), now, outline.path, printable(str(was)), key, now),
        )


def _number(value: Any) -> Any:
    """One or several numbers, which fairseq may store as text."""
    value = ast.literal_eval(value) if isinstance(value, str) else value
    return tuple(value) if isinstance(value, (list, tuple)) else value
