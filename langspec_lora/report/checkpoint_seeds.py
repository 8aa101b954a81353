"""Checkpoints that differ in their seed only, so that the spread of a figure over them says how stable it is."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from langspec_lora.adapters.averaging import check_same_keys
from langspec_lora.adapters.edit import check_alike
from langspec_lora.adapters.packed import Adapters
from langspec_lora.checkpoints.stored_model import StoredModel
from langspec_lora.errors import UserError
from langspec_lora.report.inspection import check_not_released, trained_pruning

MOST_DIFFERENCE = 0.001
"""Of the shares of B that survive in two checkpoints, or in one and by its schedule."""

_REMEDY = "give checkpoints of trainings that differ in --seed only"


class SeedCheckpoint(NamedTuple):
    """What is needed of a checkpoint or an adapter folder: its base need not stay in memory.

    Attributes:
        name: how messages call it.
        args: the arguments of its training; None for an adapter folder.
        adapters: its adapters.
        base: the fingerprint of its base; None if that is in the file, where it may have been trained.
    """

    name: str
    args: Namespace | None
    adapters: Adapters
    base: str | None

    @property
    def pruning(self) -> dict[str, Any] | None:
        """Schedule and scope of its pruning, if they are known."""
        return trained_pruning(self.args) if self.args else None

    def flag(self, name: str) -> Any:
        """An argument of its training; None if it is not known."""
        return getattr(self.args, name, None)

    @property
    def surviving(self) -> float:
        """The share of B's entries that are not pruned."""
        masks = [packed.mask for packed in self.adapters.packed.values()]
        return sum(int(mask.count_nonzero()) for mask in masks) / sum(mask.numel() for mask in masks)


def read_checkpoint(path: Path) -> SeedCheckpoint:
    """Reads the adapters of a checkpoint or an adapter folder.

    Raises:
        UserError: it is missing or damaged, or holds no adapters.
    """
    stored = StoredModel(path)
    check_not_released(stored)
    adapters, args = stored.adapters, stored.args if stored.is_checkpoint else None
    return SeedCheckpoint(str(stored), args, adapters, None if stored.holds_base else stored.fingerprint)


def check_one_configuration(read: Sequence[SeedCheckpoint]) -> None:
    """Checks that checkpoints differ in nothing but what training has made of their adapters.

    Raises:
        UserError: they differ otherwise, or two hold the same adapters.
    """
    first = read[0]
    for number, other in enumerate(read):
        for earlier in read[:number]:
            if _same_values(earlier.adapters, other.adapters):
                raise UserError(
                    f"{other.name} holds the same adapters as {earlier.name}; give the checkpoint of each seed once"
                )
    for other in read[1:]:
        check_alike(first.adapters, other.adapters, first.name, other.name, _REMEDY)
        check_same_keys(first.adapters, other.adapters, first.name, other.name, _REMEDY)
        if first.adapters.languages.levels != other.adapters.languages.levels:
            raise UserError(f"{other.name} gives other resource levels to the languages than {first.name}; {_REMEDY}")
        if first.args and other.args:
            _check_arguments(first, other)
        if first.base and other.base and first.base != other.base:
            raise UserError(f"{other.name} and {first.name} have different base models; {_REMEDY}")
        if abs(first.surviving - other.surviving) > MOST_DIFFERENCE:
            raise UserError(
                f"in {other.name}, {100 * other.surviving:.1f} % of B survives, but {100 * first.surviving:.1f} % in "
                f"{first.name}; give checkpoints that are pruned as far as each other"
            )


def _check_arguments(first: SeedCheckpoint, other: SeedCheckpoint) -> None:
    scopes = [(one.pruning or {}).get("scope", "none") for one in (first, other)]
    if scopes[0] != scopes[1]:
        raise UserError(
            f"{other.name} was pruned with --pruning-scope {scopes[1]}, but {first.name} with {scopes[0]}; {_REMEDY}"
        )
    if first.flag("train_languages") != other.flag("train_languages"):
        raise UserError(f"{other.name} trained other languages (--train-languages) than {first.name}; {_REMEDY}")


def _same_values(first: Adapters, second: Adapters) -> bool:
    return first.packed.keys() == second.packed.keys() and all(
        torch.equal(here.b, second.packed[site].b) and torch.equal(here.a, second.packed[site].a)
        for site, here in first.packed.items()
    )


def seed_remarks(read: Sequence[SeedCheckpoint]) -> list[str]:
    """Whether several checkpoints may be of one training, which say little of how stable the figures are."""
    seeds: dict[Any, SeedCheckpoint] = {}
    for one in read:
        seed = one.flag("seed")
        if seed is not None and seed in seeds:
            return [
                f"{one.name} and {seeds[seed].name} were both trained with --seed {seed}: if they are epochs of one "
                "training, they agree more than trainings do"
            ]
        seeds[seed] = one
    return []
