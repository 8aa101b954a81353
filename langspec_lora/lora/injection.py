"""Functions for a whole model: inject adapters, remove or merge them, and choose what trains."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import cast

import torch
from torch import nn

from langspec_lora.keys import KeyLayout
from langspec_lora.lora.linear import LanguageSpecificLinear
from langspec_lora.lora.merging import merged_weight
from langspec_lora.lora.mixture import SideMixture
from langspec_lora.lora.routing import LanguageRouting
from langspec_lora.scaling import Scaling
from langspec_lora.sites import LEARNED


def inject(
    model: nn.Module,
    sides: Mapping[str, str],
    ranks: Sequence[int] | KeyLayout,
    *,
    dim: int = 0,
    start: int = 0,
    init: str = "rank",
    layer_of: Callable[[str], Hashable] = lambda path: path,
    layers: Sequence[Hashable] = (),
    rate: float = 1.0,
    scaling: Scaling | None = None,
    dropout: float = 0.0,
) -> LanguageRouting:
    """Adds an adapter for every language, or every other key, to linears of a model, in place.

    The adapters have no effect until they are trained. Example::

        routing = inject(model, {"encoder.fc": "src", "decoder.fc": "tgt"}, ranks=[2, 2, 8])
        mark_trainable(model)
        routing.set_batch(source_ids, target_ids)  # for each batch, before the forward pass

    Args:
        model: any model with linears that get ``(time, batch, features)``.
        sides: the linears to adapt, by their path in the model (as in ``named_modules``), each with what selects its
            adapter: ``"src"`` or ``"tgt"``, the source or the target language; or another of
            :data:`~langspec_lora.sites.SIDES` that the layout has. A linear that the model has under several paths gets
            one adapter for all of them.
        ranks: rank of each language's adapter; a language's id is its position. Or the layout of other keys.
        dim: 0 adapts whole layers; otherwise the adapters read ``dim`` features of each input, and add to the same
            features of the output.
        start: first of these features.
        init: how LoRA A is drawn, see :func:`~langspec_lora.lora.linear.draw_a`.
        layer_of: for linears of the side ``learned``: the layer of a path; those of one layer share their weights of
            source and target.
        layers: these layers, in the order of the mixture's rows; by default as they first appear in ``sides``.
        rate: how fast these weights learn, see :class:`~langspec_lora.lora.mixture.SideMixture`.
        scaling: what the adapters' products are multiplied by; None for no factor.
        dropout: in training, the share of the entries that A reads which are zero.

    Returns:
        The routing of the model; pass the languages of every batch to its ``set_batch``. The weights of source and
        target are its parameters.

    Raises:
        ValueError: a path is not that of a plain linear, the layout has no such side, or one linear is given two.
    """
    layout = ranks if isinstance(ranks, KeyLayout) else KeyLayout.by_language(ranks, LEARNED in sides.values())
    side_of: dict[nn.Module, str] = {}
    for path, side in sides.items():
        if side not in layout.packed:
            raise ValueError(f"side {side!r} of {path}: expected {' or '.join(layout.packed)}")
        linear = _module(model, path)
        if not isinstance(linear, nn.Linear) or isinstance(linear, LanguageSpecificLinear):
            raise ValueError(f"{path} is not a plain linear of the model")
        if side_of.setdefault(linear, side) != side:
            raise ValueError(f"side {side} of {path}: another path of the same linear has side {side_of[linear]}")
    mixed = dict.fromkeys(layer_of(path) for path, side in sides.items() if side == LEARNED)
    layers = [layer for layer in layers if layer in mixed] or list(mixed)
    place_of = {_module(model, path): layers.index(layer_of(path)) for path, side in sides.items() if side == LEARNED}
    routing = LanguageRouting(layout, SideMixture(len(layers), rate) if layers else None, scaling)
    _replace(
        model,
        {
            linear: LanguageSpecificLinear(
                cast(nn.Linear, linear), routing, side, dim, start, init, place_of.get(linear), dropout
            )
            for linear, side in side_of.items()
        },
    )
    return routing


def remove(model: nn.Module) -> None:
    """Removes the adapters, in place: the original modules replace the adapted linears.

    The base weights have not changed, so the model computes what it computed before :func:`inject`, bit for bit.
    """
    _replace(model, {linear: linear.without_adapters() for linear in adapted_linears(model)})


@torch.no_grad()
def merge(model: nn.Module, source: int, target: int) -> None:
    """Adds the adapters of one direction permanently to the weights, in place, and removes all adapters.

    To switch between directions and keep the adapters, see
    :class:`~langspec_lora.lora.merging.MergedWeights`.

    Args:
        model: a model with adapters.
        source: the source language's id.
        target: the target language's id.

    Raises:
        ValueError: an id is not that of a language.
    """
    plain_of: dict[nn.Module, nn.Module] = {}
    for linear in adapted_linears(model):
        languages = linear.routing.layout.languages
        if not (0 <= source < languages and 0 <= target < languages):
            raise ValueError(f"languages {source} and {target}: expected ids from 0 to {languages - 1}")
        merged = merged_weight(linear, source, target)
        plain = linear.without_adapters()
        plain.weight = nn.Parameter(merged, requires_grad=linear.weight.requires_grad)
        plain_of[linear] = plain
    _replace(model, plain_of)


def adapted_linears(model: nn.Module) -> Iterator[LanguageSpecificLinear]:
    """All adapted linears of a model."""
    return (module for module in model.modules() if isinstance(module, LanguageSpecificLinear))


def adapter_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """The packed matrices of all adapters of a model: ``A (R, d_in)`` and ``B (R, d_out)`` of every adapted linear.

    The weights of source and target follow, where they are learned.
    """
    mixtures: dict[SideMixture, None] = {}
    for linear in adapted_linears(model):
        yield from (linear.lora_A, linear.lora_B)
        if linear.mixes is not None and linear.routing.mixture is not None:
            mixtures[linear.routing.mixture] = None
    for mixture in mixtures:
        yield mixture.logits


def mark_trainable(model: nn.Module) -> None:
    """Makes the adapters trainable and freezes everything else, in place."""
    trainable = set(map(id, adapter_parameters(model)))
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in trainable)


def _module(model: nn.Module, path: str) -> nn.Module | None:
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None


def _replace(model: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> None:
    """Puts other modules in the place of some, wherever the model has them."""
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if module in replacements:
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, replacements[module])
