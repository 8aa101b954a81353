"""The adapters of a checkpoint as plain data: whose pair stands where, apart from any model."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from langspec_lora.checkpoints.adapter_state import (
    MANIFEST,
    MASK_EPOCH,
    check_shapes,
    check_values,
    is_adapter_entry,
    read_manifest,
)
from langspec_lora.checkpoints.preflight import adapter_shapes, check_adapters_are_whole, stored_config
from langspec_lora.config import POSITIONS, AdapterConfig
from langspec_lora.errors import UserError
from langspec_lora.languages import LanguageTable
from langspec_lora.lora import PairLayout
from langspec_lora.pruning.magnitude import AdaptedPlace


class PackedPairs(NamedTuple):
    """The pairs of all languages at one place, ``R`` the sum of all ranks.

    Attributes:
        a: ``(R, f_in)``.
        b: ``(R, f_out)``.
        mask: uint8, ``(R, f_out)``: 1 where an entry of ``b`` lives, 0 where pruning has removed it.
    """

    a: Tensor
    b: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Adapters:
    """All pairs of a model.

    Attributes:
        languages: names, levels and ranks, in the order of the rows.
        directions: for ``encoder`` and ``decoder``, by layer ``src`` or ``tgt``: whose language selects its pair.
        dim: 0: the pairs cover whole layers; else features ``start`` to ``start + dim`` of input and output.
        start: first feature of that slice.
        pairs: the pairs by their place.
        mask_epoch: the epoch in which the masks were chosen, 0 for none.
    """

    languages: LanguageTable
    directions: Mapping[str, tuple[str, ...]]
    dim: int
    start: int
    pairs: Mapping[AdaptedPlace, PackedPairs]
    mask_epoch: int

    def rows(self, language: str) -> slice:
        """The rows of a language in every packed tensor.

        Raises:
            UserError: the language has no pairs.
        """
        return PairLayout(self.languages.ranks).slice(self.languages.id(language))

    def pair(self, place: AdaptedPlace, language: str) -> tuple[Tensor, Tensor]:
        """One language's pair, views.

        Args:
            place: where.
            language: the language's name.

        Returns:
            ``A (r, f_in)`` and ``B (r, f_out)``; what it adds to the weight is ``B.T @ A``.

        Raises:
            UserError: the language has no pairs.
        """
        rows = self.rows(language)
        return self.pairs[place].a[rows], self.pairs[place].b[rows]

    @property
    def features(self) -> slice | None:
        """The features of input and output that the pairs cover; None for all."""
        return slice(self.start, self.start + self.dim) if self.dim else None

    def direction(self, place: AdaptedPlace) -> str:
        """Whose language selects the pair at a place: ``src`` or ``tgt``."""
        return self.directions[place.stack][place.layer]


def adapters_of(state: Mapping[str, Tensor], args: Namespace, source: str) -> Adapters:
    """Takes the adapters out of a model's state.

    Args:
        state: the model's entries by name.
        args: the arguments that the model was built from.
        source: how to call the checkpoint in a message.

    Raises:
        UserError: there are no adapters, only part of them, or others than the arguments say, or wrong numbers.
    """
    if not any(is_adapter_entry(name) for name in state):
        raise UserError(f"{source} holds no adapters; give one that was trained with them")
    config = stored_config(args, source)
    shapes = {name: tuple(value.shape) for name, value in state.items() if is_adapter_entry(name)}
    expected = adapter_shapes(args, config)
    check_adapters_are_whole(shapes, expected, source)
    check_shapes(shapes, expected, source)
    check_values({name: value for name, value in state.items() if is_adapter_entry(name)}, source)
    pairs = {}
    for place, prefix in places(config).items():
        pairs[place] = PackedPairs(*(state[f"{prefix}.lora_{part}"] for part in ("A", "B", "mask")))
    directions = {stack: settings.directions for stack, settings in config.stacks.items()}
    languages = read_manifest(state[MANIFEST])
    return Adapters(languages, directions, config.dim, config.start, pairs, int(state[MASK_EPOCH].flatten()[0]))


def places(config: AdapterConfig) -> dict[AdaptedPlace, str]:
    """The adapted places, each with the name of its linear in a fairseq model."""
    return {
        place: linear_name(place)
        for stack, settings in config.stacks.items()
        for layer in settings.layers
        for position in settings.positions
        for place in (AdaptedPlace(stack, layer, position),)
    }


def linear_name(place: AdaptedPlace) -> str:
    """The name of a place's linear in a fairseq model, such as ``encoder.layers.0.self_attn.q_proj``."""
    return f"{place.stack}.layers.{place.layer}.{POSITIONS[place.stack][place.position]}"
