"""Whether two descriptions of adapters mean the same: what decides what their numbers stand for, compared in one place.

The entries of a checkpoint say which layers and positions are adapted and how wide, but not whose language selects
the adapter of a layer nor which features it covers: with another ``--encoder-activation-direction`` they fit all the
same, and each adapter serves another language.
"""

from __future__ import annotations

import ast
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import dataclass

from langspec_lora.checkpoints.adapter_state import is_adapter_entry
from langspec_lora.checkpoints.adapters import Adapters, places
from langspec_lora.checkpoints.layout import read_layout
from langspec_lora.checkpoints.preflight import starting_checkpoint, stored_config
from langspec_lora.config import AdapterConfig, add_adapter_flags
from langspec_lora.errors import UserError
from langspec_lora.lora import SOURCE
from langspec_lora.pruning.magnitude import AdaptedPlace


@dataclass(frozen=True)
class Standing:
    """Where the adapters of a model stand.

    Attributes:
        sides: for each adapted site ``src`` or ``tgt``: whose language selects the adapter.
        dim: width of the slice of features, 0 for whole layers.
        start: first feature of that slice.
    """

    sides: Mapping[AdaptedPlace, str]
    dim: int
    start: int

    @classmethod
    def of_config(cls, config: AdapterConfig) -> Standing:
        """Of the flags of a command, or of the arguments of a checkpoint."""
        sides = {place: config.stacks[place.stack].directions[place.layer] for place in places(config)}
        return cls(sides, config.dim, config.start)

    @classmethod
    def of_adapters(cls, adapters: Adapters) -> Standing:
        """Of adapters as plain data."""
        return cls({place: adapters.direction(place) for place in adapters.pairs}, adapters.dim, adapters.start)


def check_same_standing(one: Standing, other: Standing, one_name: str, other_name: str, remedy: str) -> None:
    """Makes sure that adapters stand alike, so that the numbers of one mean the same in the other.

    Args:
        one: where the first stand.
        other: where the others stand.
        one_name: how to call the first in a message.
        other_name: how to call the others.
        remedy: what to do where they do not.

    Raises:
        UserError: they do not; the first difference is named.
    """
    for flag, own, their in (("--dim", one.dim, other.dim), ("--start-idx", one.start, other.start)):
        if own != their:
            raise UserError(f"{one_name} has {flag} {own} and {other_name} {their}; {remedy}")
    for site in sorted(one.sides.keys() ^ other.sides.keys()):
        lacking, having = (other_name, one_name) if site in one.sides else (one_name, other_name)
        raise UserError(f"{lacking} has no adapters at {'.'.join(map(str, site))}, where {having} has some; {remedy}")
    for site, side in one.sides.items():
        if other.sides[site] != side:
            own, their = ("source" if name == SOURCE else "target" for name in (side, other.sides[site]))
            raise UserError(
                f"the {own} language selects the adapters of {site.stack} layer {site.layer} in {one_name}, the "
                f"{their} language in {other_name} (--{site.stack}-activation-direction); {remedy}"
            )


def check_start_agrees(args: Namespace, config: AdapterConfig) -> None:
    """Makes sure that the adapters that a training starts from mean in its model what they meant before.

    Names, ranks and sizes are compared by :func:`~langspec_lora.checkpoints.preflight.check_training_checkpoint`.

    Args:
        args: the arguments of the training command.
        config: which adapters its model will have.

    Raises:
        UserError: they stand elsewhere, or another language selects them.
    """
    start = starting_checkpoint(args)
    layout = None if start is None else read_layout(start[0])
    if layout is None or not any(map(is_adapter_entry, layout.shapes)) or layout.model_args is None:
        return
    source = f"checkpoint {layout.path}"
    check_same_standing(
        Standing.of_config(stored_config(layout.model_args, source)),
        Standing.of_config(config),
        source,
        "this command",
        "give the flags of its training, or start from the base model",
    )


def check_overrides(text: str) -> None:
    """Refuses fairseq's ``--model-overrides`` where they would change what the adapters of a checkpoint mean.

    Args:
        text: the flag's value, a Python dictionary.

    Raises:
        UserError: it is none, or changes a flag of the adapters.
    """
    try:
        names = ast.literal_eval(text).keys()
    except (ValueError, SyntaxError, TypeError, AttributeError, MemoryError, RecursionError) as error:
        raise UserError(
            f"--model-overrides {text[:80]}: expected a dictionary, such as \"{{'dropout': 0.1}}\""
        ) from error
    parser = ArgumentParser()
    add_adapter_flags(parser)
    changed = sorted(names & {*vars(parser.parse_args([])), "adapter_languages"})
    if changed:
        raise UserError(
            f"--model-overrides changes {changed[0]}, which belongs to the adapters of the checkpoint; leave it out"
        )
