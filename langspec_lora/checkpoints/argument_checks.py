"""Checks that model arguments are valid, and that they describe the same model in a checkpoint and a command."""

# Imports in functions: command-line modules import this one and start faster without fairseq.

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch

from langspec_lora.checkpoints.loading import load_entries
from langspec_lora.checkpoints.outline import Outline
from langspec_lora.errors import UserError, collect_errors
from langspec_lora.naming import some_of
from langspec_lora.sites import POSITIONS

_WHOLE: Mapping[str, tuple[int, int]] = {
    "layers": (0, 1000),
    "embed_dim": (1, 2**16),
    "ffn_embed_dim": (1, 2**20),
    "attention_heads": (1, 2**10),
}
"""Least and greatest value of each size of a stack; larger models would fill the memory before they fail."""

_MOST_POSITIONS = 10**6
_SIDE_OF = {"encoder": "source", "decoder": "target"}
_SHARES = ("dropout", "attention_dropout", "activation_dropout", "relu_dropout")
_COMPUTED: Mapping[str, Any] = {
    "encoder_attention_heads": None,
    "decoder_attention_heads": None,
    "activation_fn": "relu",
    "encoder_normalize_before": None,
    "decoder_normalize_before": None,
    "no_scale_embedding": False,
    "no_token_positional_embeddings": False,
    "encoder_learned_pos": None,
    "decoder_learned_pos": None,
    "layernorm_embedding": None,
    "cross_self_attention": None,
}
"""Arguments that decide what a model computes with its weights, and their value if a checkpoint does not say.

None: not known, or visible in the weights. Those with a value leave no trace in the weights.
"""

_OUTPUT = ("decoder.embed_tokens.weight", "decoder.output_projection.weight")
_SHARED: Mapping[str, tuple[str, ...]] = {
    "share_all_embeddings": ("encoder.embed_tokens.weight", *_OUTPUT),
    "share_decoder_input_output_embed": _OUTPUT,
}
"""Flags that share one matrix under several names, and these names."""


def check_model_arguments(args: Namespace, of_command: bool = False) -> None:
    """Checks the arguments of a Transformer before one is built from them.

    Missing arguments have fairseq's defaults and are not checked.

    Args:
        args: the arguments of a checkpoint or a command.
        of_command: whether they are a command's; messages then name flags.

    Raises:
        UserError: an argument has a wrong type or is out of range, or two contradict each other.
    """
    with collect_errors() as errors:
        for name, value, expected in _wrong_arguments(args):
            with errors.check():
                if of_command:
                    raise UserError(f"{_flag(name)} {value}: expected {expected}")
                raise UserError(
                    f"the checkpoint's argument {name} is {str(value)[:80]!r}; expected {expected}; download it again, "
                    "or correct it with --model-overrides"
                )


def _wrong_arguments(args: Namespace) -> Iterator[_WrongArgument]:
    from fairseq.utils import get_available_activation_fns

    for stack in POSITIONS:
        for name, (least, most) in _WHOLE.items():
            yield from _wrong_number(args, f"{stack}_{name}", least, most)
        yield from _wrong_number(args, f"max_{_SIDE_OF[stack]}_positions", 1, _MOST_POSITIONS)
        yield from _wrong_number(args, f"{stack}_layerdrop", 0.0, 1.0)
        width, heads = (getattr(args, f"{stack}_{name}", None) for name in ("embed_dim", "attention_heads"))
        if isinstance(width, int) and isinstance(heads, int) and heads > 0 and width % heads:
            expected = f"a number that divides {stack}_embed_dim {width}"
            yield _WrongArgument(f"{stack}_attention_heads", heads, expected)
    for name in _SHARES:
        yield from _wrong_number(args, name, 0.0, 1.0)
    activation = getattr(args, "activation_fn", None)
    known = get_available_activation_fns()
    if activation is not None and activation not in known:
        yield _WrongArgument("activation_fn", activation, some_of(known))
    yield from _wrong_shared_widths(args)


def _wrong_shared_widths(args: Namespace) -> Iterator[_WrongArgument]:
    """Embeddings that are shared must have one width."""
    width = getattr(args, "decoder_embed_dim", None)
    shares = [name for name in _SHARED if getattr(args, name, False)]
    for name, flags in (
        ("encoder_embed_dim", ("share_all_embeddings",)),
        ("decoder_output_dim", ("share_all_embeddings", "share_decoder_input_output_embed")),
    ):
        other = getattr(args, name, None)
        if None not in (width, other) and other != width and (given := [flag for flag in flags if flag in shares]):
            yield _WrongArgument(name, other, f"decoder_embed_dim {width}, since {given[0]} shares one matrix")


def check_model_sizes(outline: Outline) -> None:
    """Checks that a checkpoint's arguments have the sizes of the Transformer that it holds.

    Raises:
        UserError: a size differs.
    """
    args = outline.model_args
    for stack in POSITIONS:
        sizes = outline.stack_sizes(stack)
        for name, held in sizes.items() if sizes["layers"] else ():
            stored = getattr(args, f"{stack}_{name}", None)
            # Anything but a number is refused by check_model_arguments.
            if isinstance(stored, int) and stored != held:
                raise UserError(
                    f"checkpoint {outline.path} is damaged: its argument {stack}_{name} is {str(stored)[:80]}, but it "
                    f"holds a model of {held}; download it again"
                )


def check_same_model(outline: Outline, args: Namespace) -> None:
    """Checks that a training computes the same with the weights of a checkpoint as the checkpoint's model.

    Most of these arguments leave no trace in the weights: weights also fit a model with another number of heads, which
    computes something else. Sizes are compared with the weights themselves, by
    :func:`~langspec_lora.checkpoints.compatibility.check_training_checkpoint`.

    Args:
        outline: the checkpoint.
        args: the arguments of the training command, completed by its architecture.

    Raises:
        UserError: an argument differs.
    """
    stored = outline.model_args
    if stored is None:
        return
    for name, default in _COMPUTED.items():
        was, now = (_value(those, name, default) for those in (stored, args))
        if was is not None and now is not None and was != now:
            raise _other_model(outline, name, was, now)
    for name, matrices in _SHARED.items():
        was = _value(stored, name, False) or _value(stored, "share_all_embeddings", False)
        if _value(args, name, False) and not was and not _are_one(outline, matrices):
            raise _other_model(outline, name, False, True)


def _are_one(outline: Outline, names: tuple[str, ...]) -> bool:
    """Whether a checkpoint holds equal matrices under these names, whatever its arguments say."""
    state = load_entries(outline.path)
    held = [state[name] for name in names if name in state]
    return bool(held) and all(one.shape == held[0].shape and torch.equal(one, held[0]) for one in held)


def _value(args: Namespace, name: str, default: Any) -> Any:
    value = getattr(args, name, None)
    return default if value is None else value


def _other_model(outline: Outline, name: str, was: Any, now: Any) -> UserError:
    flag = _flag(name)
    if isinstance(now, bool):
        both = ("with", "is without it") if was else ("without", "has it")
        found = f"was trained {both[0]} {flag}, but this command {both[1]}"
        remedy = "give it too" if was else "leave it out"
    else:
        found, remedy = f"was trained with {flag} {was}, but this command has {now}", f"give {flag} {was}"
    return UserError(
        f"checkpoint {outline.path} {found}: the model would compute something else; {remedy}, or the --arch of its "
        "model"
    )


def _wrong_number(args: Namespace, name: str, least: float, most: float) -> Iterator[_WrongArgument]:
    value = getattr(args, name, None)
    if value is None:
        return
    whole = isinstance(least, int)
    is_number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not least <= value <= most:
        expected = f"a whole number from {least} to {most}" if whole else f"a number from {least:g} to {most:g}"
        yield _WrongArgument(name, value, expected)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


class _WrongArgument(NamedTuple):
    name: str
    value: Any
    expected: str
