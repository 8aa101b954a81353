"""The ways to fine-tune and to translate that the benchmark compares, each as a function of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from fairseq.criterions import label_smoothed_cross_entropy as stock
from fairseq.optim.adam import FairseqAdam, FairseqAdamConfig
from fairseq.sequence_generator import SequenceGenerator
from torch import Tensor, nn

from langspec_lora.benchmark.huggingface import build_peft_model
from langspec_lora.benchmark.workload import Ranks, Shape, build_model, dictionaries, make_batch
from langspec_lora.criterion import LabelSmoothedCrossEntropyCriterion
from langspec_lora.lora import LanguageSpecificLinear, packed_parameters
from langspec_lora.models.transformer import LanguageSpecificTransformer
from langspec_lora.tasks.present_languages import PresentLanguages

BEAM = 5
HYPOTHESIS = 30
"""Tokens of every hypothesis: random models seldom end a sentence, and all must do the same work."""


class SharedAdapter(LanguageSpecificLinear):
    """One adapter for all languages, written as LoRA usually is: what language-specific adapters are held against."""

    def forward(self, input: Tensor) -> Tensor:
        """Applies the layer to ``(time, batch, d_in)``."""
        output = F.linear(input, self.weight, self.bias)
        if self.slice is None:
            return output + F.linear(F.linear(input, self.lora_A), self.lora_B.t())
        update = F.linear(F.linear(input[..., self.slice], self.lora_A), self.lora_B.t())
        return output + F.pad(update, (self.slice.start, self.out_features - self.slice.stop))


class LoopOverLanguages(LanguageSpecificLinear):
    """A plain loop over all languages, each applied to its own sentences: the reference for how it is usually done."""

    def forward(self, input: Tensor) -> Tensor:
        """Applies the layer to ``(time, batch, d_in)``."""
        output = F.linear(input, self.weight, self.bias)
        part = slice(None) if self.slice is None else self.slice
        assert self.routing.current is not None
        ids = self.routing.current.source if self.side == "src" else self.routing.current.target
        ids = ids[:: max(1, len(ids) // input.size(1))].expand(input.size(1))
        for language in range(len(self.routing.layout.ranks)):
            sentences = (ids == language).nonzero().view(-1)
            if len(sentences):
                rows = self.routing.layout.slice(language)
                update = F.linear(input[:, sentences, part], self.lora_A[rows]) @ self.lora_B[rows]
                output = output.index_add(1, sentences, self._in_place(update))
        return output

    def _in_place(self, update: Tensor) -> Tensor:
        if self.slice is None:
            return update
        return F.pad(update, (self.slice.start, self.out_features - self.slice.stop))


@dataclass(frozen=True)
class Setting:
    """What all contenders of one comparison share.

    Attributes:
        shape: size of model and batch.
        languages: number of languages.
        ranks: ranks by level.
        device: where they run.
        amp: autocast to half precision with a scaled loss, as ``--amp`` does.
    """

    shape: Shape
    languages: int
    ranks: Ranks
    device: torch.device
    amp: bool = False


class Update:
    """A whole training update: forward, backward, Adam.

    Args:
        setting: the comparison.
        model: the model; what requires gradients trains.
        loss: computes the loss of a batch.
        mixed: whether its batches mix languages.
        rest: whether languages rest that are absent from a batch, as our task has it.
    """

    def __init__(
        self, setting: Setting, model: nn.Module, loss: Callable[[dict], Tensor], mixed: bool, rest: bool = False
    ) -> None:
        self.model, self._loss, self._amp = model.train(), loss, setting.amp
        self._scaler = torch.cuda.amp.GradScaler(enabled=setting.amp)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.trained = sum(parameter.numel() for parameter in trained)
        config = FairseqAdamConfig(adam_betas="(0.9, 0.98)", lr=[1e-5])
        self._optimizer = FairseqAdam(config, trained)
        self._absent = None
        if rest and isinstance(model, LanguageSpecificTransformer) and model.adapters is not None:
            linears = model.adapters.linears.values()
            self._absent = PresentLanguages(model.adapters.routing, packed_parameters(linears))
        batches = (make_batch(setting.shape, setting.languages, mixed, seed, setting.device) for seed in range(4))
        self._batches = tuple(batches)
        self._done = 0

    @property
    def tokens(self) -> int:
        """Target tokens of a batch."""
        return sum(batch["ntokens"] for batch in self._batches) // len(self._batches)

    def __call__(self) -> None:
        """Does one update."""
        batch = self._batches[self._done % len(self._batches)]
        self._done += 1
        self._optimizer.zero_grad()
        if self._absent:
            self._absent.begin_batch()
        with torch.autocast(batch["target"].device.type, enabled=self._amp):
            loss = self._loss(batch)
        self._scaler.scale(loss / batch["ntokens"]).backward()
        if self._absent:
            self._absent.end_batch(batch)
            self._absent.begin_update(self._optimizer)
        self._scaler.step(self._optimizer.optimizer)
        self._scaler.update()


def _fairseq_update(setting: Setting, model: nn.Module, mixed: bool = True, rest: bool = False) -> Update:
    criterion = stock.LabelSmoothedCrossEntropyCriterion(dictionaries(setting.shape), False, 0.2)
    LabelSmoothedCrossEntropyCriterion.convert(criterion)  # as our task does
    return Update(setting, model, lambda batch: criterion(model, batch)[0], mixed, rest)


def frozen_base(setting: Setting) -> Update:
    """The frozen base model; two bias vectors train, so that the backward pass goes all the way."""
    model = _model(setting, None).requires_grad_(False)
    for stack in (model.encoder, model.decoder):
        stack.layers[0].self_attn_layer_norm.bias.requires_grad_(True)
    return _fairseq_update(setting, model)


def full_fine_tuning(setting: Setting) -> Update:
    """Every weight of the base model trains."""
    return _fairseq_update(setting, _model(setting, None))


def shared_adapter(setting: Setting) -> Update:
    """One adapter of the mean rank for all languages."""
    return _fairseq_update(replace(setting, languages=1), _shared_model(setting))


def ours(setting: Setting, mixed: bool = True, rest: bool = True) -> Update:
    """Language-specific adapters; those of languages that a batch lacks rest."""
    return _fairseq_update(setting, _model(setting, setting.ranks.of(setting.languages)), mixed, rest)


def loop(setting: Setting) -> Update:
    """Language-specific adapters by a loop over languages."""
    model = _model(setting, setting.ranks.of(setting.languages))
    return _fairseq_update(setting, _as(LoopOverLanguages, model))


def peft(setting: Setting) -> Update:
    """Hugging Face's M2M100 of the same shape with one LoRA by PEFT, of the mean rank, at the same positions."""
    model = build_peft_model(setting.shape, _mean(setting), setting.device)

    def loss(batch: dict) -> Tensor:
        sources, targets = batch["net_input"]["src_tokens"], batch["target"]
        output = model(
            input_ids=sources,
            attention_mask=sources.ne(1),
            decoder_input_ids=batch["net_input"]["prev_output_tokens"],
            labels=targets.masked_fill(targets.eq(1), -100),
        )
        return output.loss * batch["ntokens"]

    return Update(setting, model, loss, mixed=True)


UPDATES: Mapping[str, Callable[[Setting], Update]] = {
    "frozen base": frozen_base,
    "one shared adapter": shared_adapter,
    "ours, mixed": ours,
    "ours, one language": partial(ours, mixed=False),
    "ours, absent languages move": partial(ours, rest=False),
    "loop over languages": loop,
    "full fine-tuning": full_fine_tuning,
    "Hugging Face + PEFT": peft,
}
"""Training contenders by name."""


class Translation:
    """Translates batches at beam 5 with fairseq's generator.

    Args:
        setting: the comparison.
        model: the model.
        mixed: whether its batches mix languages.
        merges: whether it merges the adapter of a direction into the weights first.
    """

    def __init__(self, setting: Setting, model: Any, mixed: bool = False, merges: bool = False) -> None:
        model = model.eval()
        model.make_generation_fast_(beamable_mm_beam_size=BEAM, need_attn=False)  # as fairseq-generate does
        if setting.amp:
            model.half()
        self.model, self._merges = model, merges
        self._batch = make_batch(setting.shape, setting.languages, mixed, 0, setting.device)
        for name in ("prev_output_tokens", *(() if model.adapters else ("src_lang_id", "tgt_lang_id"))):
            del self._batch["net_input"][name]
        lengths = {"max_len_a": 0, "max_len_b": HYPOTHESIS, "min_len": HYPOTHESIS}
        dictionary = dictionaries(setting.shape).target_dictionary
        self._generator = SequenceGenerator([model], dictionary, beam_size=BEAM, **lengths)

    @property
    def tokens(self) -> int:
        """Tokens of the hypotheses of a batch."""
        return self._batch["nsentences"] * HYPOTHESIS

    @torch.no_grad()
    def __call__(self) -> None:
        """Translates one batch."""
        if self._merges:
            with self.model.adapters.merged(0, 1):
                self._generator.generate([self.model], self._batch)
        else:
            self._generator.generate([self.model], self._batch)


class PeftTranslation:
    """Translates batches at beam 5 with Hugging Face's generation, LoRA beside the weights.

    Args:
        setting: the comparison.
    """

    def __init__(self, setting: Setting) -> None:
        self.model = build_peft_model(setting.shape, _mean(setting), setting.device).eval()
        if setting.amp:
            self.model.half()
        self._batch = make_batch(setting.shape, setting.languages, False, 0, setting.device)
        self.tokens = self._batch["nsentences"] * HYPOTHESIS

    @torch.no_grad()
    def __call__(self) -> None:
        """Translates one batch."""
        sources = self._batch["net_input"]["src_tokens"]
        lengths = {"max_new_tokens": HYPOTHESIS, "min_new_tokens": HYPOTHESIS}
        self.model.generate(input_ids=sources, attention_mask=sources.ne(1), num_beams=BEAM, do_sample=False, **lengths)


def _translate_ours(setting: Setting, **how: bool) -> Translation:
    return Translation(setting, _model(setting, setting.ranks.of(setting.languages)), **how)


TRANSLATIONS: Mapping[str, Callable[[Setting], Callable[[], None]]] = {
    "base model": lambda setting: Translation(setting, _model(setting, None)),
    "one shared adapter": lambda setting: Translation(replace(setting, languages=1), _shared_model(setting)),
    "ours, merged": partial(_translate_ours, merges=True),
    "ours, one language": _translate_ours,
    "ours, mixed": partial(_translate_ours, mixed=True),
    "loop over languages": lambda setting: Translation(
        setting, _as(LoopOverLanguages, _model(setting, setting.ranks.of(setting.languages))), mixed=True
    ),
    "Hugging Face + PEFT": PeftTranslation,
}
"""Translating contenders by name."""


def _as(linear_class: type[LanguageSpecificLinear], model: Any) -> Any:
    """The model with its adapted linears computing in another way."""
    for linear in model.adapters.linears.values():
        linear.__class__ = linear_class
    return model


def _model(setting: Setting, ranks: tuple[int, ...] | None) -> LanguageSpecificTransformer:
    return build_model(setting.shape, ranks, setting.device)


def _shared_model(setting: Setting) -> Any:
    return _as(SharedAdapter, _model(setting, (_mean(setting),)))


def _mean(setting: Setting) -> int:
    return setting.ranks.mean(setting.languages)
