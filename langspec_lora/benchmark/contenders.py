"""The ways to fine-tune and to translate that the benchmark compares; Hugging Face's are in ``huggingface.py``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from fairseq.criterions import label_smoothed_cross_entropy as stock
from fairseq.optim.adam import FairseqAdam, FairseqAdamConfig
from fairseq.sequence_generator import SequenceGenerator
from torch import Tensor

from langspec_lora.benchmark.workload import PAPER, Ranks, Shape, build_model, dictionaries, make_batch
from langspec_lora.criterion import LabelSmoothedCrossEntropyCriterion
from langspec_lora.lora import LanguageSpecificLinear, packed_parameters
from langspec_lora.tasks.present_languages import PresentLanguages

BEAM = 5
HYPOTHESIS = 30
"""Number of tokens of every hypothesis, because random models rarely end a sentence and all must do the same work."""


@dataclass(frozen=True)
class Setting:
    """The settings that all contenders of a comparison share.

    Attributes:
        shape: size of model and batch.
        device: the device that they run on.
        amp: whether to use autocast to half precision with a scaled loss, as ``--amp`` does.
        languages: number of languages.
        ranks: ranks by level.
    """

    shape: Shape
    device: torch.device
    amp: bool = False
    languages: int = 12
    ranks: Ranks = PAPER

    @property
    def mean_rank(self) -> int:
        """The mean rank of the languages, rounded."""
        return round(sum(self.ranks.of(self.languages)) / self.languages)


class Run(Protocol):
    """One repetition of a contender's work."""

    tokens: int
    """Target tokens of a batch."""

    def __call__(self) -> None:
        """Does it."""


Contender = Callable[[Setting], Run]


class SharedAdapter(LanguageSpecificLinear):
    """One adapter for all languages, written as LoRA usually is; language-specific adapters are compared with it."""

    def forward(self, input: Tensor) -> Tensor:
        """Applies the layer to ``(time, batch, d_in)``."""
        output = F.linear(input, self.weight, self.bias)
        return output + _at_slice(self, F.linear(F.linear(_slice(self, input), self.lora_A), self.lora_B.t()))


class LoopOverLanguages(LanguageSpecificLinear):
    """A plain loop that applies the adapter of each language to its sentences, as implementations usually do."""

    def forward(self, input: Tensor) -> Tensor:
        """Applies the layer to ``(time, batch, d_in)``."""
        output, features = F.linear(input, self.weight, self.bias), _slice(self, input)
        assert self.routing.current is not None
        ids = self.routing.current.source if self.side == "src" else self.routing.current.target
        ids = ids[:: max(1, len(ids) // input.size(1))].expand(input.size(1))
        for language in range(self.routing.layout.languages):
            sentences = (ids == language).nonzero().view(-1)
            if len(sentences):
                rows = self.layout.slice(language)
                update = F.linear(features[:, sentences], self.lora_A[rows]) @ self.lora_B[rows]
                output = output.index_add(1, sentences, _at_slice(self, update))
        return output


def _slice(linear: LanguageSpecificLinear, input: Tensor) -> Tensor:
    """The features that the adapter reads."""
    return input if linear.slice is None else input[..., linear.slice]


def _at_slice(linear: LanguageSpecificLinear, update: Tensor) -> Tensor:
    """An adapter's output among all features of the layer's."""
    if linear.slice is None:
        return update
    return F.pad(update, (linear.slice.start, linear.out_features - linear.slice.stop))


def base(setting: Setting) -> Any:
    """The base model; every weight trains."""
    return build_model(setting.shape, None, setting.device)


def frozen_base(setting: Setting) -> Any:
    """The frozen base model; two bias vectors train, so that the backward pass covers all layers."""
    model = base(setting).requires_grad_(False)
    for stack in (model.encoder, model.decoder):
        stack.layers[0].self_attn_layer_norm.bias.requires_grad_(True)
    return model


def ours(setting: Setting) -> Any:
    """Language-specific adapters."""
    return build_model(setting.shape, setting.ranks.of(setting.languages), setting.device)


def loop_over_languages(setting: Setting) -> Any:
    """Language-specific adapters by a loop over languages."""
    return with_linears(LoopOverLanguages, ours(setting))


def shared_adapter(setting: Setting) -> Any:
    """One adapter of the mean rank for all languages."""
    return with_linears(SharedAdapter, build_model(setting.shape, (setting.mean_rank,), setting.device))


def with_linears(linear_class: type[LanguageSpecificLinear], model: Any) -> Any:
    """The model with its adapted linears computing in another way."""
    for linear in model.adapters.linears.values():
        linear.__class__ = linear_class
    return model


def _languages(model: Any, setting: Setting) -> int:
    adapters = getattr(model, "adapters", None)
    return adapters.routing.layout.languages if adapters else setting.languages


class Update:
    """A whole training update: forward, backward, Adam.

    Args:
        build: builds the model; what requires gradients trains.
        setting: the comparison.
        mixed: whether batches mix languages.
        rest: whether languages rest that are absent from a batch, as our task has it.
    """

    def __init__(
        self, build: Callable[[Setting], Any], setting: Setting, mixed: bool = True, rest: bool = False
    ) -> None:
        self.model, self._amp = build(setting).train(), setting.amp
        self._criterion = stock.LabelSmoothedCrossEntropyCriterion(dictionaries(setting.shape), False, 0.2)
        LabelSmoothedCrossEntropyCriterion.convert(self._criterion)  # as our task does
        self._scaler = torch.cuda.amp.GradScaler(enabled=setting.amp)
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.trained = sum(parameter.numel() for parameter in trained)
        self._optimizer = FairseqAdam(FairseqAdamConfig(adam_betas="(0.9, 0.98)", lr=[1e-5]), trained)
        self._present = None
        if rest:
            adapters = self.model.adapters
            self._present = PresentLanguages(adapters.routing, packed_parameters(adapters.linears.values()))
        languages = _languages(self.model, setting)
        batches = [make_batch(setting.shape, languages, mixed, seed, setting.device) for seed in range(4)]
        self.tokens = sum(batch["ntokens"] for batch in batches) // len(batches)
        self._batches = cycle(batches)

    def loss(self, batch: dict) -> Tensor:
        """The loss of a batch, summed over its tokens."""
        return self._criterion(self.model, batch)[0]

    def __call__(self) -> None:
        """Does one update."""
        batch = next(self._batches)
        self._optimizer.zero_grad()
        if self._present:
            self._present.begin_batch(self._optimizer)
        with torch.autocast(batch["target"].device.type, enabled=self._amp):
            loss = self.loss(batch)
        self._scaler.scale(loss / batch["ntokens"]).backward()
        if self._present:
            self._present.end_batch(batch)
            self._present.begin_update(self._optimizer)
        self._scaler.step(self._optimizer.optimizer)
        self._scaler.update()


class Translation:
    """Translates a batch at beam 5 with fairseq's generator.

    Args:
        build: builds the model.
        setting: the comparison.
        mixed: whether its batch mixes languages.
        merges: whether it merges the adapter of a direction into the weights first.
    """

    def __init__(
        self, build: Callable[[Setting], Any], setting: Setting, mixed: bool = False, merges: bool = False
    ) -> None:
        self.model, self._merges = build(setting).eval(), merges
        self.model.make_generation_fast_(beamable_mm_beam_size=BEAM, need_attn=False)  # as fairseq-generate does
        if setting.amp:
            self.model.half()
        self._batch = make_batch(setting.shape, _languages(self.model, setting), mixed, 0, setting.device)
        for name in ("prev_output_tokens", *(() if self.model.adapters else ("src_lang_id", "tgt_lang_id"))):
            del self._batch["net_input"][name]
        lengths = {"max_len_a": 0, "max_len_b": HYPOTHESIS, "min_len": HYPOTHESIS}
        dictionary = dictionaries(setting.shape).target_dictionary
        self._generator = SequenceGenerator([self.model], dictionary, beam_size=BEAM, **lengths)
        self.tokens = self._batch["nsentences"] * HYPOTHESIS

    @torch.no_grad()
    def __call__(self) -> None:
        """Translates the batch."""
        with self.model.adapters.merged(0, 1) if self._merges else nullcontext():
            self._generator.generate([self.model], self._batch)


# Partial functions and not lambdas: they are handed to other processes.
UPDATES: Mapping[str, Callable[[Setting], Update]] = {
    "frozen base": partial(Update, frozen_base),
    "one shared adapter": partial(Update, shared_adapter),
    "ours, mixed": partial(Update, ours, rest=True),
    "ours, one language": partial(Update, ours, rest=True, mixed=False),
    "ours, absent languages move": partial(Update, ours),
    "loop over languages": partial(Update, loop_over_languages),
    "full fine-tuning": partial(Update, base),
}
"""Training contenders by name."""

TRANSLATIONS: Mapping[str, Callable[[Setting], Translation]] = {
    "base model": partial(Translation, base),
    "one shared adapter": partial(Translation, shared_adapter),
    "ours, merged": partial(Translation, ours, merges=True),
    "ours, one language": partial(Translation, ours),
    "ours, mixed": partial(Translation, ours, mixed=True),
    "loop over languages": partial(Translation, loop_over_languages, mixed=True),
}
"""Translating contenders by name."""
