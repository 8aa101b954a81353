"""Changes stock transformer layers so that their linears can be adapted."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

from fairseq.modules import MultiheadAttention, transformer_layer
from fairseq.modules.checkpoint_activations import checkpoint_wrapper
from torch import nn

from langspec_lora.adapters.entries import FAST_PATH_COPIES
from langspec_lora.config import AdapterConfig
from langspec_lora.keys import key_layout
from langspec_lora.lora import LanguageRouting, Languages, LanguageSpecificLinear, inject
from langspec_lora.models.attention import AdaptedAttention
from langspec_lora.sites import Site


class LeanEncoderLayer(transformer_layer.TransformerEncoderLayerBase):
    """fairseq 0.12.2's encoder layer without its fused inference path.

    That path (post-norm, evaluation mode) uses copies of the weights instead of the adapted linears. The copies also
    double the encoder's memory and would count as trainable. fairseq's main branch has neither, so it needs no
    conversion.
    """

    _load_from_state_dict = nn.Module._load_from_state_dict  # the stock one fills the copies

    @classmethod
    def convert(cls, layer: transformer_layer.TransformerEncoderLayerBase) -> None:
        """Converts a stock encoder layer to this class, in place."""
        if not hasattr(layer, "can_use_fastpath"):
            return
        layer.__class__ = cls
        layer.can_use_fastpath = False
        for name in FAST_PATH_COPIES:
            delattr(layer, name)


def inject_at_sites(
    model: nn.Module, config: AdapterConfig
) -> tuple[LanguageRouting, dict[Site, LanguageSpecificLinear]]:
    """Adds adapters to the linears that the configuration names, in place.

    Args:
        model: a Transformer of fairseq.
        config: which sites are adapted.

    Returns:
        The model's routing, and the adapted linears by site.
    """
    for site in config.sites:
        parent = model.get_submodule(site.path.rpartition(".")[0])
        if isinstance(parent, MultiheadAttention):
            AdaptedAttention.convert(parent)
    layers = {site.path: site[:2] for site in config.sites}
    sides = {site.path: config.side(site) for site in config.sites}
    routing = inject(
        model,
        sides,
        key_layout(config.languages, config.sides),
        dim=config.dim,
        start=config.start,
        init=config.init,
        layer_of=layers.__getitem__,
        layers=config.mixed_layers,
        rate=config.mixture_rate,
        scaling=config.scaling,
        dropout=config.dropout,
    )
    return routing, {site: cast(LanguageSpecificLinear, model.get_submodule(site.path)) for site in config.sites}


def checkpoint_activations(layer: nn.Module, routing: LanguageRouting | None, offload: bool) -> None:
    """Recomputes a layer's activations in the backward pass, with the languages of its forward pass.

    fairseq's ``checkpoint_wrapper`` runs the layer again when the routing may already have the languages of another
    batch, so the languages are passed along as an argument. It also gives no gradient to a layer if the layer's input
    needs none, as above frozen embeddings.

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
