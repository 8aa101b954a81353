"""Arguments of a checkpoint that describe no model, or another one than the checkpoint holds."""

from __future__ import annotations

import math
import re
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from langspec_lora.checkpoints.layout import CheckpointLayout
from langspec_lora.config import POSITIONS
from langspec_lora.errors import UserError

_WHOLE: Mapping[str, tuple[int, int]] = {
    "layers": (0, 1000),
    "embed_dim": (1, 2**16),
    "ffn_embed_dim": (1, 2**20),
    "attention_heads": (1, 2**10),
}
"""Least and greatest value of each size of a stack: what is beyond would take all memory before it fails."""
_MOST_POSITIONS = 10**6
_SHARES = ("dropout", "attention_dropout", "activation_dropout", "relu_dropout")
_LAYER = re.compile(r"^(encoder|decoder)\.layers\.(\d+)\.")


def check_model_arguments(args: Namespace) -> None:
    """Makes sure that the arguments of a checkpoint can be those of a Transformer, before one is built from them.

    Arguments that are missing have fairseq's defaults.

    Raises:
        UserError: an argument is of a wrong type or out of its range.
    """
    from fairseq.utils import get_available_activation_fns

    for stack in POSITIONS:
        for name, (least, most) in _WHOLE.items():
            _check_number(args, f"{stack}_{name}", least, most)
        _check_number(args, f"max_{'source' if stack == 'encoder' else 'target'}_positions", 1, _MOST_POSITIONS)
        _check_number(args, f"{stack}_layerdrop", 0.0, 1.0)
        width, heads = (getattr(args, f"{stack}_{name}", None) for name in ("embed_dim", "attention_heads"))
        if width is not None and heads is not None and width % heads:
            raise _wrong(f"{stack}_attention_heads", heads, f"a number that divides {stack}_embed_dim {width}")
    for name in _SHARES:
        _check_number(args, name, 0.0, 1.0)
    activation = getattr(args, "activation_fn", None)
    known = get_available_activation_fns()
    if activation is not None and activation not in known:
        raise _wrong("activation_fn", activation, ", ".join(known))


def check_model_sizes(layout: CheckpointLayout) -> None:
    """Makes sure that a checkpoint's arguments have the sizes of the Transformer that it holds.

    Raises:
        UserError: one of them has another.
    """
    args = layout.model_args
    for stack in POSITIONS:
        matches = (_LAYER.match(name) for name in layout.shapes)
        layers = {int(match[2]) for match in matches if match and match[1] == stack}
        if not layers:
            continue
        ffn, width = (*layout.shapes.get(f"{stack}.layers.{min(layers)}.fc1.weight", ()), None, None)[:2]
        for name, held in (("layers", len(layers)), ("ffn_embed_dim", ffn), ("embed_dim", width)):
            stored = getattr(args, f"{stack}_{name}", None)
            # What is no number is refused before a model is built.
            if isinstance(stored, int) and held is not None and stored != held:
                raise UserError(
                    f"checkpoint {layout.path} is damaged: its argument {stack}_{name} is {str(stored)[:80]}, but it "
                    f"holds a model of {held}; take it from its source again"
                )


def _check_number(args: Namespace, name: str, least: float, most: float) -> None:
    value = getattr(args, name, None)
    if value is None:
        return
    whole = isinstance(least, int)
    is_number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not least <= value <= most:
        raise _wrong(name, value, f"a {'whole ' if whole else ''}number from {least} to {most}")


def _wrong(name: str, value: Any, expected: str) -> UserError:
    return UserError(
        f"the checkpoint's argument {name} is {str(value)[:80]!r}; expected {expected}; take it from its source again, "
        "or mend it with --model-overrides"
    )
