"""What has to change in stock transformer layers before their linears can be adapted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from fairseq.modules import MultiheadAttention, transformer_layer
from fairseq.modules.checkpoint_activations import checkpoint_wrapper
from torch import nn

from langspec_lora.config import AdapterConfig
from langspec_lora.lora import LanguageRouting, Languages, LanguageSpecificLinear
from langspec_lora.models.attention import AdaptedAttention
from langspec_lora.sites import Site

FAST_PATH_COPIES = tuple(
    f"{name}_{kind}" for name in ("in_proj", "out_proj", "fc1", "fc2") for kind in ("weight", "bias")
)
"""Parameters of fairseq 0.12.2's encoder layer that repeat its weights for a fused inference path."""


class LeanEncoderLayer(transformer_layer.TransformerEncoderLayerBase):
    """fairseq 0.12.2's encoder layer without its fused inference path.

    That path (post-norm, evaluation mode) computes on copies of the weights, past the adapted linears. The copies also
    double the encoder's memory and would count as trainable. Main has neither, and needs no conversion.
    """

    _load_from_state_dict = nn.Module._load_from_state_dict  # the stock one fills the copies

    @classmethod
    def convert(cls, layer: transformer_layer.TransformerEncoderLayerBase) -> None:
        """Turns a stock encoder layer into this class in place."""
        if not hasattr(layer, "can_use_fastpath"):
            return
        layer.__class__ = cls
        layer.can_use_fastpath = False
        for name in FAST_PATH_COPIES:
            delattr(layer, name)


def adapt_layers(
    layers: Mapping[str, nn.ModuleList], config: AdapterConfig, routing: LanguageRouting
) -> dict[Site, LanguageSpecificLinear]:
    """Swaps the linears that the configuration names for language-specific ones, in place.

    Args:
        layers: the encoder's and the decoder's layers.
        config: where the adapters stand.
        routing: the languages of the current batch.

    Returns:
        The new linears by their site.
    """
    adapted = {}
    for site in config.sites:
        parent, name = _parent(layers[site.stack][site.layer], site.path_in_layer)
        if isinstance(parent, MultiheadAttention):
            AdaptedAttention.convert(parent)
        linear = LanguageSpecificLinear(
            getattr(parent, name), routing, config.side(site), config.dim, config.start, config.init
        )
        setattr(parent, name, linear)
        adapted[site] = linear
    return adapted


def _parent(layer: nn.Module, path: str) -> tuple[nn.Module, str]:
    *parents, name = path.split(".")
    for parent in parents:
        layer = getattr(layer, parent)
    return layer, name


def adapted_linears(model: nn.Module) -> Iterator[LanguageSpecificLinear]:
    """All adapted linears of a model."""
    return (module for module in model.modules() if isinstance(module, LanguageSpecificLinear))


def checkpoint_activations(layer: nn.Module, routing: LanguageRouting | None, offload: bool) -> None:
    """Recomputes a layer's activations in the backward pass, with the languages of its forward pass.

    fairseq's ``checkpoint_wrapper`` runs the layer again when another batch may have been routed since, so the
    languages go along as an argument. It also gives no gradient to a layer whose input needs none, which is the case
    above frozen embeddings.

    Args:
        layer: an encoder or decoder layer; its ``forward`` is replaced.
        routing: the languages of the current batch, or None for a model without adapters.
        offload: keep the saved inputs in CPU memory.
    """
    if routing is not None:
        layer.forward = partial(_with_languages, layer.forward, routing)
    checkpoint_wrapper(layer, offload_to_cpu=offload)
    layer.forward = partial(_remember_languages, layer.forward, routing)


def _with_languages(
    forward: Callable, routing: LanguageRouting, *args: Any, languages: Languages | None, **kwargs: Any
) -> Any:
    with routing.using(languages):
        return forward(*args, **kwargs)


def _remember_languages(forward: Callable, routing: LanguageRouting | None, x: Any, *args: Any, **kwargs: Any) -> Any:
    if not x.requires_grad:
        x = x.detach().requires_grad_()
    if routing is not None:
        kwargs["languages"] = routing.current
    return forward(x, *args, **kwargs)
