"""The fairseq model: a stock Transformer whose linears carry language-specific adapters, and its architectures."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from fairseq.models import register_model
from fairseq.models.transformer import TransformerDecoder, TransformerEncoder, TransformerModel
from torch import Tensor, nn

from langspec_lora.checkpoints.base import BaseFile, fill_base, stated_base, without_base
from langspec_lora.checkpoints.fingerprint import base_fingerprint
from langspec_lora.config import AdapterConfig, freezes_base, has_adapters
from langspec_lora.errors import UserError, exit_on_user_error
from langspec_lora.flags import add_adapter_flags
from langspec_lora.languages import languages_to_json
from langspec_lora.lora import LanguageRouting, Languages, LanguageSpecificLinear, MergedWeights, PackedLayout
from langspec_lora.models.layers import FAST_PATH_COPIES, LeanEncoderLayer, adapt_layers, checkpoint_activations
from langspec_lora.models.saved_state import AdapterState, complete_state
from langspec_lora.models.structure import check_structure
from langspec_lora.sites import Site

logger = logging.getLogger(__name__)

NAME = "langspec_m2m100_lora"
"""What fairseq calls the model."""

NO_LAYER = -1
"""An ``alignment_layer`` that is none; fairseq takes None for the last one."""


class RoutedEncoder(TransformerEncoder):
    """fairseq's encoder, which also takes the languages of the batch and hands them on to the decoder."""

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
            token_embeddings: in place of the embedding of ``src_tokens``.
            src_lang_id: source language ids, ``(batch,)`` or ``(batch, 1)``; a single one holds for all sentences.
                Left out, the languages that the model has set hold.
            tgt_lang_id: target language ids, likewise.

        Returns:
            fairseq's dictionary, with ``languages``: source and target ids, each ``(batch,)`` or ``(1,)``, as the
            model's own ids.
        """
        if self.routing is not None and (src_lang_id is not None or tgt_lang_id is not None):
            self.routing.set_batch(src_lang_id, tgt_lang_id, len(src_tokens))
        output = super().forward(src_tokens, src_lengths, return_all_hiddens, token_embeddings)
        if self.routing is not None and self.routing.current is not None:
            output["languages"] = [self.routing.current.source, self.routing.current.target]
        return output

    def reorder_encoder_out(self, encoder_out: dict[str, Any], new_order: Tensor) -> dict[str, Any]:
        """Reorders the output of :meth:`forward` as beam search asks, ``new_order (new_batch,)``.

        fairseq's generator first repeats each sentence for its beams. From then on it permutes the beams within their
        sentences and leaves out sentences that are finished, so that as long as there are as many, every beam already
        finds its sentence's output in its place.

        Returns:
            The dictionary, with ``beams``, the number of them, once there are any.
        """
        batch = encoder_out["encoder_out"][0].size(1)
        if "beams" in encoder_out and len(new_order) == batch:
            return encoder_out
        output = super().reorder_encoder_out(encoder_out, new_order)
        if "languages" in encoder_out:
            # A single id holds for all sentences, whatever their order.
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
        anchor: an adapted linear, in a tuple so that it is not registered again; none where there are no adapters.
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
    ):
        """See fairseq's decoder; ``prev_output_tokens`` is ``(batch, tgt_len)``.

        Attention weights are returned where they are asked for: not by default in training, nor in decoding unless
        ``make_generation_fast_`` has been told that alignments will be printed.
        """
        encoder_out = encoder_out or {}
        if "languages" in encoder_out:
            self.routing.set(Languages(*encoder_out["languages"]))
        # Keys and values of the source once per sentence: fairseq's attention can, but only its BART asks for it.
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
        """The features ``(batch, tgt_len, width)``; where layer drop has left no adapter on their way, tied to one.

        Its gradient is zero then, so that the backward pass, and what several processes exchange after it, go on.
        """
        if not torch.is_grad_enabled() or features.requires_grad or not self.anchor:
            return features
        return features + self.anchor[0].lora_B.flatten()[:0].sum()

    def output_layer(self, features: Tensor) -> Tensor:
        """Projects ``features (batch, tgt_len, width)`` onto the vocabulary.

        They come transposed in memory. With a weight that does not train, torch would then multiply sentence by
        sentence, reading the largest matrix of the model each time (``should_fold`` in its matmul).
        """
        output = super().output_layer(features.flatten(0, 1))
        return output.view(*features.shape[:-1], output.size(-1))


@register_model(NAME)
class LanguageSpecificTransformer(TransformerModel):
    """A many-to-many Transformer (M2M100) with language-specific LoRA (Cao et al., EMNLP 2024).

    Attributes:
        config: which adapters the model has, or None for the plain model.
        routing: the languages of the current batch, or None.
        adapted: the adapted linears by their site.
    """

    def __init__(self, args: Namespace, encoder: RoutedEncoder, decoder: RoutedDecoder) -> None:
        super().__init__(args, encoder, decoder)
        self.config: AdapterConfig | None = None
        self.routing: LanguageRouting | None = None
        self.adapted: dict[Site, LanguageSpecificLinear] = {}
        self._merged_weights = MergedWeights(())
        self._base_checkpoint: str | None = None
        self._base_fingerprint: str | None = None
        self._base_file: BaseFile | None = None

    @classmethod
    def add_args(cls, parser) -> None:
        """Adds fairseq's flags of a Transformer and ours."""
        super().add_args(parser)
        add_adapter_flags(parser)

    @classmethod
    def build_model(cls, args: Namespace, task: Any) -> LanguageSpecificTransformer:
        """Builds the stock model and swaps its linears.

        Args:
            args: fairseq's arguments; the resolved languages are written into them, and so into every checkpoint.
            task: gives the dictionaries.

        Raises:
            SystemExit: with one line, for wrong flags.
        """
        with exit_on_user_error():
            config = AdapterConfig.from_args(args) if has_adapters(args) else None
            if config is not None:
                check_structure(args, config)
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
            model.freeze_base()
        model._base_checkpoint = getattr(args, "base_checkpoint", None)
        if getattr(args, "save_adapters_only", False):
            model._base_file = BaseFile(args.base_checkpoint)
        if recompute:
            for layer in (*model.encoder.layers.children(), *model.decoder.layers.children()):
                checkpoint_activations(layer, model.routing, offload)
        return model

    @classmethod
    def build_encoder(cls, args: Namespace, src_dict: Any, embed_tokens: nn.Embedding) -> RoutedEncoder:
        """Builds the encoder."""
        return RoutedEncoder(args, src_dict, embed_tokens)

    @classmethod
    def build_decoder(cls, args: Namespace, tgt_dict: Any, embed_tokens: nn.Embedding) -> RoutedDecoder:
        """Builds the decoder."""
        return RoutedDecoder(args, tgt_dict, embed_tokens, no_encoder_attn=args.no_cross_attention)

    def inject_adapters(self, config: AdapterConfig) -> None:
        """Swaps the linears that the configuration names, in place."""
        self.config = config
        self.routing = LanguageRouting(PackedLayout(config.languages.ranks))
        self.adapters = AdapterState(config.languages)
        # Past nn.Module's registration: the one routing belongs to the model.
        self.encoder.__dict__["routing"] = self.decoder.__dict__["routing"] = self.routing
        layers = {"encoder": self.encoder.layers, "decoder": self.decoder.layers}
        self.adapted = adapt_layers(layers, config, self.routing)
        self._merged_weights = MergedWeights(self.adapted.values())
        self.decoder.anchor = tuple(self.adapted.values())[:1]

    def freeze_base(self) -> None:
        """Leaves only the adapters to train."""
        own = {id(parameter) for linear in self.adapted.values() for parameter in (linear.lora_A, linear.lora_B)}
        for parameter in self.parameters():
            parameter.requires_grad_(id(parameter) in own)

    @torch.no_grad()
    def clear_adapters(self) -> None:
        """Leaves the base model: sets all of B to zero, so that no adapter adds anything."""
        for linear in self.adapted.values():
            linear.lora_B.zero_()

    def bind_languages(self, names: Sequence[str], used: Sequence[str]) -> None:
        """Says what the language ids of the batches mean, by name.

        Args:
            names: the languages of the task, by id.
            used: those of them that batches will use.

        Raises:
            UserError: the model has no adapters for a used language.
        """
        if self.config is None:
            return
        own = {name: index for index, name in enumerate(self.config.languages.names)}
        unknown = [name for name in used if name not in own]
        if unknown:
            raise UserError(f"the checkpoint has no adapters for {', '.join(unknown)}; it knows {', '.join(own)}")
        self.routing.translate_ids([own.get(name) for name in names])

    def merged(self, source: int, target: int) -> AbstractContextManager[None]:
        """Translates one direction at the base model's speed for the length of a ``with`` block.

        Inside, every sentence is of this direction, whatever ids its batch carries. See :class:`MergedWeights`.

        Args:
            source: source language id, as :meth:`bind_languages` numbers them.
            target: target language id, likewise.
        """
        if self.routing is None:
            return nullcontext()
        own = self.routing.own_ids
        return self._merged_weights.using(own[source], own[target])

    def train(self, mode: bool = True) -> LanguageSpecificTransformer:
        """Sets the mode; see torch. Training changes the adapters, so it also frees merged weights."""
        if mode:
            self._merged_weights.forget()
        return super().train(mode)

    def forward(
        self,
        src_tokens: Tensor,
        src_lengths: Tensor,
        prev_output_tokens: Tensor,
        src_lang_id: Tensor | None = None,
        tgt_lang_id: Tensor | None = None,
        **kwargs: Any,
    ):
        """Runs the model.

        Args:
            src_tokens: ``(batch, src_len)``.
            src_lengths: ``(batch,)``.
            prev_output_tokens: ``(batch, tgt_len)``.
            src_lang_id: source language ids, ``(batch,)`` or ``(batch, 1)``, as :meth:`bind_languages` numbers them; a
                single one holds for all sentences, and is the fastest.
            tgt_lang_id: target language ids, likewise.
            **kwargs: see fairseq's Transformer.

        Returns:
            Logits ``(batch, tgt_len, vocabulary)`` and a dictionary, as fairseq's Transformer.

        Raises:
            UserError: an adapter's side has no language ids, or they are not as many as sentences, or no languages.
        """
        if self.routing is not None:
            if src_lang_id is None and tgt_lang_id is None:
                self.routing.set(None)  # never the languages of an earlier batch
            else:
                self.routing.set_batch(src_lang_id, tgt_lang_id, len(src_tokens))
        return super().forward(src_tokens, src_lengths, prev_output_tokens, **kwargs)

    def upgrade_state_dict_named(self, state_dict: dict[str, Any], name: str) -> None:
        """Prepares a checkpoint's state for strict loading, in place.

        Adapters are filled in where the checkpoint holds none at all (a base model); those of another order of
        languages are sorted by name. Copies of weights that fairseq 0.12.2 writes are dropped.

        Raises:
            SystemExit: with one line, if the checkpoint holds other adapters, or only part of them.
        """
        with exit_on_user_error():
            stated = stated_base(state_dict)
            fill_base(state_dict, self._base_checkpoint)
        if self._base_file is not None:
            self._base_fingerprint = stated or base_fingerprint(state_dict)
        super().upgrade_state_dict_named(state_dict, name)
        for index in range(len(self.encoder.layers)):
            for copy in FAST_PATH_COPIES:
                state_dict.pop(f"encoder.layers.{index}.{copy}", None)
        with exit_on_user_error():
            complete_state(state_dict, super().state_dict(), None if self.config is None else self.config.languages)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The model's entries; without the base where it is not saved. See torch."""
        state = super().state_dict(*args, **kwargs)
        if self._base_file is None or self._base_fingerprint is None:
            return state
        if self._base_file.has_changed():
            logger.warning("%s is not what it was: checkpoints hold their base from now on", self._base_file.path)
            self._base_file = None
            return state
        return without_base(state, self._base_fingerprint)

    def load_state_dict(self, *args: Any, **kwargs: Any):
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

    def parameter_summary(self, trained: Sequence[int] | None = None) -> str:
        """Says in one line how many parameters the base has, how many train, and how many each language owns.

        Args:
            trained: ids of the languages that train; None for all.
        """
        adapters = sum(linear.lora_A.numel() + linear.lora_B.numel() for linear in self.adapted.values())
        base = sum(parameter.numel() for parameter in self.parameters()) - adapters
        trainable = sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)
        if trained is not None:
            trainable = adapters * sum(self.config.languages.ranks[own] for own in trained) // self.routing.layout.rows
        text = f"parameters | base {base:,} | adapters {adapters:,} | trainable {trainable:,}"
        if self.config is None:
            return text
        per_rank = sum(linear.lora_A.size(1) + linear.lora_B.size(1) for linear in self.adapted.values())
        table = self.config.languages
        counts = (f"{name} {rank * per_rank:,}" for name, rank in zip(table.names, table.ranks, strict=True))
        return f"{text} | per language: {', '.join(counts)}"
