"""Ranges of the numbers of a training command that fairseq does not check."""

from __future__ import annotations

import ast
import math
import sys
from argparse import Namespace
from collections.abc import Mapping

from langspec_lora.errors import UserError, collect_errors

_LEAST = sys.float_info.min
_RANGES: Mapping[str, tuple[float, float, str]] = {
    "lr": (0, math.inf, "rates of at least 0"),
    "update_freq": (1, math.inf, "whole numbers of at least 1"),
    "clip_norm": (0, math.inf, "a norm of at least 0; 0 turns clipping off"),
    "label_smoothing": (0, 1, "a number from 0 to 1"),
    "dropout": (0, 1, "a number from 0 to 1"),
    "attention_dropout": (0, 1, "a number from 0 to 1"),
    "activation_dropout": (0, 1, "a number from 0 to 1"),
    "encoder_layerdrop": (0, 1, "a number from 0 to 1"),
    "decoder_layerdrop": (0, 1, "a number from 0 to 1"),
    "weight_decay": (0, math.inf, "a number of at least 0"),
    "max_tokens": (1, math.inf, "a number of tokens of at least 1"),
    "batch_size": (1, math.inf, "a number of sentences of at least 1"),
    "max_epoch": (0, math.inf, "a number of epochs of at least 0; 0 means no limit"),
    "sampling_temperature": (_LEAST, math.inf, "a number above 0"),
    "virtual_data_size": (1, math.inf, "a number of examples of at least 1"),
    "virtual_epoch_size": (1, math.inf, "a number of examples of at least 1"),
    "max_update": (0, math.inf, "a number of updates of at least 0; 0 means no limit"),
}
"""The lowest and highest value of each flag, and their description in messages."""


def check_training_numbers(args: Namespace) -> None:
    """Checks that the numbers of a training command are finite and within their ranges.

    Args:
        args: the arguments; some may be missing.

    Raises:
        UserError: numbers are not, or ``--optimizer-overrides`` is not a dictionary; all mistakes are listed.
    """
    with collect_errors() as errors:
        for name, (least, most, expected) in _RANGES.items():
            value = getattr(args, name, None)
            for number in value if isinstance(value, (list, tuple)) else [value]:
                with errors.check():
                    if isinstance(number, (int, float)) and not (math.isfinite(number) and least <= number <= most):
                        raise UserError(f"--{name.replace('_', '-')} {number}: expected {expected}")
        try:
            overrides = ast.literal_eval(args.optimizer_overrides)
        except (SyntaxError, ValueError):
            overrides = None
        if not isinstance(overrides, dict):
            raise UserError(
                f"--optimizer-overrides {args.optimizer_overrides}: expected a dictionary, such as {{'lr': 0.1}}"
            )
