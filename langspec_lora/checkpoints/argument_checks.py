"""Arguments of a checkpoint that describe no model, another one than the checkpoint holds, or than a command builds."""

from __future__ import annotations

import math
import re
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import torch

from langspec_lora.checkpoints.loading import load_entries
from langspec_lora.checkpoints.outline import Outline
from langspec_lora.errors import UserError
from langspec_lora.sites import POSITIONS

_WHOLE: Mapping[str, tuple[int, int]] = {
    "layers": (0, 1000),
    "embed_dim": (1, 2**16),
    "ffn_embed_dim": (1, 2**20),
    "attention_heads": (1, 2**10),
}
"""Least and greatest value of each size of a stack: what is beyond would take all memory before it fails."""
_MOST_POSITIONS = 10**6
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
"""What a model computes with its weights, and what it is where a checkpoint does not say. None: not known, or the
weights tell. Those with a value leave no trace in the weights."""
_OUTPUT = ("decoder.embed_tokens.weight", "decoder.output_projection.weight")
_SHARED: Mapping[str, tuple[str, ...]] = {
    "share_all_embeddings": ("encoder.embed_tokens.weight", *_OUTPUT),
    "share_decoder_input_output_embed": _OUTPUT,
}
"""Flags that make one matrix of several, and which."""
_LAYER = re.compile(r"^(encoder|decoder)\.layers\.(\d+)\.")


def check_model_arguments(args: Namespace, of_command: bool = False) -> None:
    """Makes sure that arguments can be those of a Transformer, before one is built from them.

    Arguments that are missing have fairseq's defaults.

    Args:
        args: those of a checkpoint.
        of_command: they are those of a command, which a message then calls flags.

    Raises:
        UserError: an argument is of a wrong type or out of its range, or two contradict each other.
    """
    try:
        _check_arguments(args)
    except _WrongArgument as error:
        name, value, expected = error.args
        if of_command:
            raise UserError(f"{_flag(name)} {value}: expected {expected}") from None
        raise UserError(
            f"the checkpoint's argument {name} is {str(value)[:80]!r}; expected {expected}; take it from its source "
            "again, or mend it with --model-overrides"
        ) from None


def _check_arguments(args: Namespace) -> None:
    from fairseq.utils import get_available_activation_fns

    for stack in POSITIONS:
        for name, (least, most) in _WHOLE.items():
            _check_number(args, f"{stack}_{name}", least, most)
        _check_number(args, f"max_{'source' if stack == 'encoder' else 'target'}_positions", 1, _MOST_POSITIONS)
        _check_number(args, f"{stack}_layerdrop", 0.0, 1.0)
        width, heads = (getattr(args, f"{stack}_{name}", None) for name in ("embed_dim", "attention_heads"))
        if width is not None and heads is not None and width % heads:
            raise _WrongArgument(f"{stack}_attention_heads", heads, f"a number that divides {stack}_embed_dim {width}")
    for name in _SHARES:
        _check_number(args, name, 0.0, 1.0)
    activation = getattr(args, "activation_fn", None)
    known = get_available_activation_fns()
    if activation is not None and activation not in known:
        raise _WrongArgument("activation_fn", activation, ", ".join(known))
    _check_shared_widths(args)


def _check_shared_widths(args: Namespace) -> None:
    """A matrix of word embeddings that serves several ends has one width."""
    width = getattr(args, "decoder_embed_dim", None)
    shares = [name for name in _SHARED if getattr(args, name, False)]
    for name, flags in (
        ("encoder_embed_dim", ("share_all_embeddings",)),
        ("decoder_output_dim", ("share_all_embeddings", "share_decoder_input_output_embed")),
    ):
        other = getattr(args, name, None)
        if None not in (width, other) and other != width and (given := [flag for flag in flags if flag in shares]):
            raise _WrongArgument(name, other, f"decoder_embed_dim {width}, for {given[0]} makes one matrix of several")


def check_model_sizes(outline: Outline) -> None:
    """Makes sure that a checkpoint's arguments have the sizes of the Transformer that it holds.

    Raises:
        UserError: one of them has another.
    """
    args = outline.model_args
    for stack in POSITIONS:
        matches = (_LAYER.match(name) for name in outline.shapes)
        layers = {int(match[2]) for match in matches if match and match[1] == stack}
        if not layers:
            continue
        ffn, width = (*outline.shapes.get(f"{stack}.layers.{min(layers)}.fc1.weight", ()), None, None)[:2]
        for name, held in (("layers", len(layers)), ("ffn_embed_dim", ffn), ("embed_dim", width)):
            stored = getattr(args, f"{stack}_{name}", None)
            # What is no number is refused before a model is built.
            if isinstance(stored, int) and held is not None and stored != held:
                raise UserError(
                    f"checkpoint {outline.path} is damaged: its argument {stack}_{name} is {str(stored)[:80]}, but it "
                    f"holds a model of {held}; take it from its source again"
                )


def check_same_model(outline: Outline, args: Namespace) -> None:
    """Makes sure that the weights that a training starts from mean in its model what they meant in theirs.

    Most of such arguments leave no trace in the weights: with another number of heads they fit all the same, and the
    model computes something else. Sizes are compared with the weights themselves, by
    :func:`~langspec_lora.checkpoints.compatibility.check_training_checkpoint`.

    Args:
        outline: the checkpoint.
        args: the arguments of the training command, those of its architecture filled in.

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
    """Whether a checkpoint holds the same numbers under all of these names, whatever its arguments say."""
    state = load_entries(outline.path)
    held = [state[name] for name in names if name in state]
    return bool(held) and all(one.shape == held[0].shape and torch.equal(one, held[0]) for one in held)


def _value(args: Namespace, name: str, default: Any) -> Any:
    value = getattr(args, name, None)
    return default if value is None else value


def _other_model(outline: Outline, name: str, was: Any, now: Any) -> UserError:
    flag = _flag(name)
    if isinstance(now, bool):
        found = f"was trained with{'' if was else 'out'} {flag}, and this command has it{'' if now else ' not'}"
        remedy = "give it too" if was else "leave it out"
    else:
        found, remedy = f"was trained with {flag} {was}, and this command has {now}", f"give {flag} {was}"
    return UserError(
        f"checkpoint {outline.path} {found}: its weights would mean something else; {remedy}, or the --arch of its "
        "model"
    )


def _check_number(args: Namespace, name: str, least: float, most: float) -> None:
    value = getattr(args, name, None)
    if value is None:
        return
    whole = isinstance(least, int)
    is_number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not least <= value <= most:
        raise _WrongArgument(name, value, f"a {'whole ' if whole else ''}number from {least} to {most}")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


class _WrongArgument(Exception):
    """An argument's name, its value and what is expected of it."""
