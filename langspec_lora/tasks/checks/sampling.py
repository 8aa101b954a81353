"""How fairseq draws training examples from the directions: sizes, and weights for each direction."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from langspec_lora.errors import UserError
from langspec_lora.files import parse_json
from langspec_lora.naming import some_of


def check_sampling(manager: Any) -> None:
    """Checks ``--sampling-weights`` and ``--sampling-weights-from-file``.

    Args:
        manager: fairseq's data manager.

    Raises:
        UserError: a direction of the training has no weight, or a weight is no number or belongs to no direction.
    """
    args = manager.args
    if args.sampling_weights_from_file:
        flag = f"--sampling-weights-from-file {args.sampling_weights_from_file}"
        if args.sampling_weights:
            raise UserError("--sampling-weights and --sampling-weights-from-file were both given; give one of them")
        weights = _read(args.sampling_weights_from_file, flag)
    elif args.sampling_weights is not None:
        flag, weights = "--sampling-weights", args.sampling_weights
    else:
        return
    _, pairs = manager.get_data_paths_and_lang_pairs(args.train_subset)
    keys = [
        manager.get_dataset_key(category, pair.split("-")[0], pair.split("-")[-1])
        for category, several in pairs.items()
        if not category.startswith("mono_")
        for pair in several
    ]
    partly = len(keys) < sum(map(len, pairs.values()))  # monolingual data have keys of their own
    _check(flag, weights, keys, partly)


def _read(path: str, flag: str) -> Any:
    example = 'give a JSON file such as {"main:en-fr": 0.5}'
    try:
        return parse_json(Path(path).read_text(encoding="utf-8"), flag, example)
    except OSError as error:
        raise UserError(f"{flag} cannot be read: {error.strerror}; {example}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{flag} is damaged ({error}); {example}") from error


def _check(flag: str, weights: Any, keys: Iterable[str], partly: bool) -> None:
    if not isinstance(weights, Mapping):
        raise UserError(f"{flag}: expected a dictionary of directions and weights, such as {{'main:en-fr': 0.5}}")
    keys = dict.fromkeys(keys)
    if missing := [key for key in keys if key not in weights]:
        raise UserError(f"{flag} has no weight for {some_of(missing)}; name every training direction")
    if not partly and (unknown := [str(key) for key in weights if key not in keys]):
        raise UserError(
            f"{flag} names {some_of(unknown)}, which the training does not have; it has {some_of(list(keys))}"
        )
    for key, weight in weights.items():
        is_number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not is_number or not 0 <= weight < math.inf:
            raise UserError(f"{flag} gives {key} the weight {weight}; expected a number of at least 0")
    if not sum(weights[key] for key in keys):
        raise UserError(f"{flag} gives every direction the weight 0; give at least one more")
