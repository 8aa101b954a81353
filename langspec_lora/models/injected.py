"""The adapters of one model: their configuration, their linears, and the languages of the batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from langspec_lora.adapters.entries import SCALING, language_manifest, scaling_entry
from langspec_lora.config import AdapterConfig
from langspec_lora.errors import UserError
from langspec_lora.lora import LanguageRouting, LanguageSpecificLinear, MergedWeights
from langspec_lora.naming import some_of
from langspec_lora.sites import Site


class InjectedAdapters(nn.Module):
    """The adapters of one model.

    The manifest and the epoch of the masks are buffers, so that every tool that copies a model's state keeps them. They
    are integers, so that averaging checkpoints does not change them.

    Args:
        config: which adapters the model has.
        routing: the languages of the current batch.
        linears: the adapted linears by site.

    Attributes:
        manifest: names, levels and ranks of the languages: the UTF-8 bytes of a JSON text, int64.
        mask_epoch: the epoch in which the pruning masks were chosen, 0 for none, int64 ``(1,)``.
        scaling: what the adapters' products are multiplied by, as the manifest; only there if they are scaled.
    """

    manifest: Tensor
    mask_epoch: Tensor

    def __init__(
        self, config: AdapterConfig, routing: LanguageRouting, linears: Mapping[Site, LanguageSpecificLinear]
    ) -> None:
        super().__init__()
        self.config = config
        self.routing = routing
        self.linears = dict(linears)  # no ModuleDict: the model's layers register them
        self.register_buffer("manifest", language_manifest(config.languages))
        self.register_buffer("mask_epoch", torch.zeros(1, dtype=torch.int64))
        if config.scaling is not None:
            self.register_buffer(SCALING.rpartition(".")[2], scaling_entry(config.scaling))
        self._merged = MergedWeights(self.linears.values())

    @property
    def count(self) -> int:
        """The number of entries of all LoRA A and B."""
        mixture = 0 if self.routing.mixture is None else self.routing.mixture.logits.numel()
        return mixture + sum(linear.lora_A.numel() + linear.lora_B.numel() for linear in self.linears.values())

    def bind_languages(self, names: Sequence[str], used: Sequence[str]) -> None:
        """Sets which language each id in the batches means.

        Args:
            names: the languages of the task, by id.
            used: those of them that batches will use.

        Raises:
            UserError: there are no adapters for a used language.
        """
        ids = {name: number for number, name in enumerate(self.config.languages.names)}
        unknown = [name for name in used if name not in ids]
        if unknown:
            raise UserError(f"the checkpoint has no adapters for {some_of(unknown)}; it knows {some_of(ids)}")
        self.routing.translate_ids([ids.get(name) for name in names])

    def mixture_weights(self) -> dict[tuple[str, int], tuple[float, float]]:
        """The weights of source and target by stack and layer, of the layers that mix their adapters."""
        if self.routing.mixture is None:
            return {}
        with torch.no_grad():
            weights = self.routing.mixture.weights().tolist()
        return {
            layer: (source, target) for layer, (source, target) in zip(self.config.mixed_layers, weights, strict=True)
        }

    def leave_out_smaller(self, hard: bool) -> None:
        """Sets whether layers that mix the adapters of source and target leave out the one of smaller weight."""
        if self.routing.mixture is not None:
            self.routing.mixture.hard = hard

    @contextmanager
    def merged(self, source: int, target: int) -> Iterator[None]:
        """Translates one direction at the speed of the base model, within a ``with`` block.

        Inside, every sentence is of this direction, whatever ids its batch carries. See :class:`MergedWeights`.

        Args:
            source: source language id, as :meth:`bind_languages` numbers them.
            target: target language id, likewise.
        """
        ids = self.routing.model_ids
        with self._merged.using(ids[source], ids[target]):
            yield

    def forget_merged(self) -> None:
        """Frees the merged weights of the last direction."""
        self._merged.forget()
