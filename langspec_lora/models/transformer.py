"""The fairseq model: a stock Transformer with language-specific adapters in its linears."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Collection
from typing import Any

import torch
from fairseq.models import register_model
from fairseq.models.transformer import TransformerDecoder, TransformerEncoder, TransformerModel
from torch import Tensor, nn

from langspec_lora.adapters.entries import is_fast_path_copy
from langspec_lora.checkpoints.left_out_base import SavedBase
from langspec_lora.config import AdapterConfig, freezes_base, has_adapters
from langspec_lora.errors import UserError, exit_on_user_error
from langspec_lora.flags import add_adapter_flags
from langspec_lora.languages import languages_to_json
from langspec_lora.lora import (
    LanguageRouting,
    Languages,
    LanguageSpecificLinear,
    adapter_parameters,
    mark_trainable,
    remove,
)
from langspec_lora.models.injected import InjectedAdapters
from langspec_lora.models.layers import LeanEncoderLayer, checkpoint_activations, inject_at_sites
from langspec_lora.models.loaded_state import complete_state
from langspec_lora.models.structure import check_structure
from langspec_lora.parts import PARTS, part_of, trained_parts
from langspec_lora.settings import check_values

NAME = "langspec_m2m100_lora"
"""The model's name in fairseq."""

NO_LAYER = -1
"""Means no ``alignment_layer``, because fairseq takes None to mean the last layer."""


class RoutedEncoder(TransformerEncoder):
    """fairseq's encoder, which also takes the languages of the batch and passes them on to the decoder."""

    routing: LanguageRouting | None = None

    def forward(
        self,
        src_tokens: Tensor,
        src_lengths: Tensor | None = None,
        return_all_hiddens: bool = False,
        token_embeddings: Tensor | None = None,
        src_lang_id: Tensor | None = None,
        tgt_lang_id: Tensor | None = None,
    ) -> dict[str, list[Tensor]]:
        """See fairseq's encoder.

        Args:
            src_tokens: ``(batch, src_len)``.
            src_lengths: ``(batch,)``.
            return_all_hiddens: also return the output of every layer.
            token_embeddings: used instead of the embedding of ``src_tokens``.
            src_lang_id: source language ids, ``(batch,)`` or ``(batch, 1)``; a single id is for all sentences. If left
                out, the ids that the model has set are used.
            tgt_lang_id: target language ids, likewise.

        Returns:
            fairseq's dictionary with ``languages``: the model's ids of source and target, each ``(batch,)`` or
            ``(1,)``.
        """
        if self.routing is not None and (src_lang_id is not None or tgt_lang_id is not None):
            self.routing.set_batch(src_lang_id, tgt_lang_id, len(src_tokens))
        output = super().forward(src_tokens, src_lengths, return_all_hiddens, token_embeddings)
        if self.routing is not None and self.routing.current is not None:
            output["languages"] = [self.routing.current.source, self.routing.current.target]
        return output

    def reorder_encoder_out(self, encoder_out: dict[str, Any], new_order: Tensor) -> dict[str, Any]:
        """Reorders the output of :meth:`forward` as beam search asks, ``new_order (new_batch,)``.

        fairseq's generator first repeats each sentence for its beams. After that it permutes the beams within their
        sentences and removes finished sentences. So as long as the number of beams stays the same, nothing has to move.

        Returns:
            The dictionary, with the number of ``beams`` once there are beams.
        """
        batch = encoder_out["encoder_out"][0].size(1)
        if "beams" in encoder_out and len(new_order) == batch:
            return encoder_out
        output = super().reorder_encoder_out(encoder_out, new_order)
        if "languages" in encoder_out:
            # A single id is for all sentences, whatever their order.
            output["languages"] = [
                ids if len(ids) == 1 else ids.index_select(0, new_order) for ids in encoder_out["languages"]
            ]
        if "beams" in encoder_out:
            output["beams"] = encoder_out["beams"]
        elif len(new_order) > batch and _repeats(new_order, batch):
            output["beams"] = len(new_order) // batch
        return output


def _repeats(order: Tensor, batch: int) -> bool:
    """Whether an order repeats each of ``batch`` sentences equally often, one after the other."""
    expected = torch.arange(batch, device=order.device).repeat_interleave(len(order) // batch)
    return torch.equal(order, expected)


class RoutedDecoder(TransformerDecoder):
    """fairseq's decoder, which takes the languages of the batch from the encoder's output.

    Attributes:
        routing: the languages of the current batch.
        anchor: an adapted linear, in a tuple so that it is not registered again; empty if there are no adapters.
    """

    routing: LanguageRouting | None = None
    anchor: tuple[LanguageSpecificLinear, ...] = ()

    def extract_features(
        self,
        prev_output_tokens: Tensor,
        encoder_out: dict | None = None,
        incremental_state: dict | None = None,
        full_context_alignment: bool = False,
        alignment_layer: int | None = None,
        alignment_heads: int | None = None,
    ) -> tuple[Tensor, dict[str, Any]]:
        """See fairseq's decoder; ``prev_output_tokens`` is ``(batch, tgt_len)``.

        Attention weights are returned only on request: not by default in training, and in decoding only if
        ``make_generation_fast_`` was called for printing alignments.
        """
        encoder_out = encoder_out or {}
        if self.routing is not None and "languages" in encoder_out:
            self.routing.set(Languages(*encoder_out["languages"]))
        # Keys and values of the source once per sentence; in fairseq, only BART uses this.
        self.set_beam_size(encoder_out.get("beams", 1) if incremental_state is not None else 1)
        wants_weights = self.layers[0].need_attn if len(self.layers) else False
        if alignment_layer is None and (self.training or (incremental_state is not None and not wants_weights)):
            alignment_layer = NO_LAYER
        features, extra = super().extract_features(
            prev_output_tokens,
            encoder_out or None,
            incremental_state,
            full_context_alignment,
            alignment_layer,
            alignment_heads,
        )
        return self._with_gradient(features), extra

    def _with_gradient(self, features: Tensor) -> Tensor:
        """The features ``(batch, tgt_len, width)``, tied to an adapter if layer drop leaves out all adapters.

        The adapter's gradient is then zero, so that the backward pass and the exchange between processes still work.
        """
        if not torch.is_grad_enabled() or features.requires_grad or not self.anchor:
            return features
        return features + self.anchor[0].lora_B.flatten()[:0].sum()

    def output_layer(self, features: Tensor) -> Tensor:
        """Projects ``features (batch, tgt_len, width)`` onto the vocabulary.

        The features are transposed in memory. With a weight that does not train, torch would then multiply each
        sentence separately and read the largest matrix of the model each time (``should_fold`` in its matmul).
        """
        output = super().output_layer(features.flatten(0, 1))
        return output.view(*features.shape[:-1], output.size(-1))


@register_model(NAME)
class LanguageSpecificTransformer(TransformerModel):
    """A many-to-many Transformer (M2M100) with language-specific LoRA (Cao et al., EMNLP 2024).

    Attributes:
        adapters: the adapters, or None for the plain model.
    """

    adapters: InjectedAdapters | None

    def __init__(self, args: Namespace, encoder: RoutedEncoder, decoder: RoutedDecoder) -> None:
        super().__init__(args, encoder, decoder)
        self.adapters = None
        self._saved_base = SavedBase(None, left_out=False)

    @classmethod
    def add_args(cls, parser: ArgumentParser) -> None:
        """Adds fairseq's flags for a Transformer and ours."""
        super().add_args(parser)
        add_adapter_flags(parser)

    @classmethod
    def build_model(cls, args: Namespace, task: Any) -> LanguageSpecificTransformer:
        """Builds the stock model and injects the adapters.

        Args:
            args: fairseq's arguments; the resolved languages are written into them, and so into every checkpoint.
            task: the task, with its dictionaries.

        Raises:
            SystemExit: with one line, for wrong flags.
        """
        with exit_on_user_error():
            check_values(args)
            config = AdapterConfig.from_args(args) if has_adapters(args) else None
            if config is not None:
                check_structure(args, config)
            parts = trained_parts(args)
        offload = getattr(args, "offload_activations", False)
        recompute = getattr(args, "checkpoint_activations", False) or offload
        args.checkpoint_activations = args.offload_activations = False  # wrapped below, around the adapted layers
        model = super().build_model(args, task)
        args.checkpoint_activations, args.offload_activations = recompute, offload

        for layer in model.encoder.layers.children():  # iterating over the list itself would apply layer drop
            LeanEncoderLayer.convert(layer)
        if config is not None:
            args.adapter_languages = languages_to_json(config.languages)
            model.inject_adapters(config)
        if freezes_base(args):
            mark_trainable(model)
        else:
            model.freeze_parts(set(PARTS).difference(parts))
        base_checkpoint = getattr(args, "base_checkpoint", None)
        model._saved_base = SavedBase(base_checkpoint, getattr(args, "save_adapters_only", False))
        if recompute:
            routing = None if model.adapters is None else model.adapters.routing
            for layer in (*model.encoder.layers.children(), *model.decoder.layers.children()):
                checkpoint_activations(layer, routing, offload)
        return model

    @classmethod
    def build_encoder(cls, args: Namespace, src_dict: Any, embed_tokens: nn.Embedding) -> RoutedEncoder:
        """Builds the encoder."""
        return RoutedEncoder(args, src_dict, embed_tokens)

    @classmethod
    def build_decoder(cls, args: Namespace, tgt_dict: Any, embed_tokens: nn.Embedding) -> RoutedDecoder:
        """Builds the decoder."""
        return RoutedDecoder(args, tgt_dict, embed_tokens, no_encoder_attn=args.no_cross_attention)

    def freeze_parts(self, parts: Collection[str]) -> None:
        """Freezes parts of the base, see :data:`~langspec_lora.parts.PARTS`."""
        own = set(map(id, adapter_parameters(self)))
        for name, parameter in self.named_parameters():
            if id(parameter) not in own and part_of(name) in parts:
                parameter.requires_grad_(False)

    def remove_adapters(self) -> None:
        """Removes the adapters, in place, so that the model computes what its base computes, for any languages."""
        remove(self)
        self.adapters = self.encoder.routing = self.decoder.routing = None
        self.decoder.anchor = ()

    def inject_adapters(self, config: AdapterConfig) -> None:
        """Adds adapters to the linears that the configuration names, in place."""
        routing, linears = inject_at_sites(self, config)
        self.adapters = InjectedAdapters(config, routing, linears)
        # Bypasses nn.Module's registration: the one routing belongs to the adapters.
        self.encoder.__dict__["routing"] = self.decoder.__dict__["routing"] = routing
        self.decoder.anchor = tuple(linears.values())[:1]

    def train(self, mode: bool = True) -> LanguageSpecificTransformer:
        """Sets the mode; see torch. Training changes the adapters, so it also frees merged weights."""
        if mode and self.adapters is not None:
            self.adapters.forget_merged()
        return super().train(mode)

    def forward(
        self,
        src_tokens: Tensor,
        src_lengths: Tensor,
        prev_output_tokens: Tensor,
        src_lang_id: Tensor | None = None,
        tgt_lang_id: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Runs the model.

        Args:
            src_tokens: ``(batch, src_len)``.
            src_lengths: ``(batch,)``.
            prev_output_tokens: ``(batch, tgt_len)``.
            src_lang_id: source language ids, ``(batch,)`` or ``(batch, 1)``, as
                :meth:`~langspec_lora.models.injected.InjectedAdapters.bind_languages` numbers them; a single id is for
                all sentences, and is the fastest.
            tgt_lang_id: target language ids, likewise.
            **kwargs: see fairseq's Transformer.

        Returns:
            Logits ``(batch, tgt_len, vocabulary)`` and a dictionary, as fairseq's Transformer does.

        Raises:
            UserError: language ids are missing, are unknown, or are neither one nor one per sentence.
        """
        if self.adapters is not None:
            if src_lang_id is None and tgt_lang_id is None:
                self.adapters.routing.set(None)  # never the languages of an earlier batch
            else:
                self.adapters.routing.set_batch(src_lang_id, tgt_lang_id, len(src_tokens))
        return super().forward(src_tokens, src_lengths, prev_output_tokens, **kwargs)

    def upgrade_state_dict_named(self, state_dict: dict[str, Any], name: str) -> None:
        """Prepares a checkpoint's state for strict loading, in place.

        If the checkpoint has no adapters (a base model), fresh ones are added. If its languages have another order,
        its adapters are sorted by name. Copies of weights that fairseq 0.12.2 writes are dropped.

        Raises:
            SystemExit: with one line, if the checkpoint holds other adapters, or only part of them.
        """
        with exit_on_user_error():
            self._saved_base.fill_in(state_dict)
        super().upgrade_state_dict_named(state_dict, name)
        for entry in [entry for entry in state_dict if is_fast_path_copy(entry)]:
            del state_dict[entry]
        config = None if self.adapters is None else self.adapters.config
        with exit_on_user_error():
            complete_state(state_dict, super().state_dict(), config)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The model's entries, without the base if it is not saved. See torch."""
        return self._saved_base.leave_out(super().state_dict(*args, **kwargs))

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Loads a checkpoint's state; see fairseq's model.

        Raises:
            SystemExit: with one line, if the state does not fit the model.
        """
        with exit_on_user_error():
            try:
                return super().load_state_dict(*args, **kwargs)
            except RuntimeError as error:
                first = next((line.strip() for line in str(error).splitlines()[1:]), str(error))
                raise UserError(
                    f"the checkpoint does not fit the model: {first[:200]}; give the --arch and flags of its model"
                ) from error


def language_specific(model: nn.Module) -> LanguageSpecificTransformer | None:
    """Takes our model out of fairseq's distributed wrappers; None for any other model."""
    while isinstance(inner := getattr(model, "module", None), nn.Module):
        model = inner
    return model if isinstance(model, LanguageSpecificTransformer) else None
