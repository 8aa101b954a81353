"""Label-smoothed cross-entropy over a vocabulary that does not train; computes the logits a few sentences at a time."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from fairseq.criterions import label_smoothed_cross_entropy as stock
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from langspec_lora.lora.functional import compute_type
from langspec_lora.models.transformer import language_specific

CHUNK_BYTES = {"cpu": 2**25, "cuda": 2**28}
"""Bytes of single-precision logits that are held at once, by device; 4,000 tokens of M2M100 have 4 GB of logits. A GPU
needs more rows at once, so that it computes for longer than it takes to read the vocabulary matrix."""

BY_SENTENCE = "by_sentence"
"""The key of a logging output with the sums over the tokens of each sentence, ``(3, batch)`` float32: loss, negative
log-likelihood, both in nats, and the number of tokens."""

LEAST_ROWS = 64
"""The least number of rows of logits per chunk, because each chunk reads the whole vocabulary matrix."""

HALF_SCALE = 4096.0
"""Scales probabilities above the smallest number of half precision (6e-8) before a matrix product."""


class FrozenVocabularyLoss(torch.autograd.Function):
    """Loss and gradient of label-smoothed cross-entropy in one pass over chunks of tokens.

    With a vocabulary matrix ``W (V, width)`` that does not train, only the gradient of the features is needed, and it
    is known as soon as the logits are. With ``p`` the softmax, ``y`` the target, ``ε`` the smoothing and fairseq's
    ``ε' = ε / (V - 1)`` it is

        W^T p - (1 - ε - ε') W_y - ε' Σ_v W_v

    so neither logits nor their gradient are kept. Arguments of ``apply``: features ``(tokens, width)``, W, targets
    ``(tokens,)``, ε, the target id to leave out, and optionally a list, which receives loss and negative
    log-likelihood of each token, ``(2, tokens)``. Returns the loss and the negative log-likelihood, both sums in
    single precision; only the loss is differentiable, by the features.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        targets: Tensor,
        smoothing: float,
        ignored: int,
        of_tokens: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Computes both sums, and the gradient of the features if it is needed."""
        size = weight.size(0)
        spread = smoothing / (size - 1)
        certain = 1.0 - smoothing - spread
        wants_gradient = ctx.needs_input_grad[0]
        gradient = everywhere = None
        if wants_gradient:
            gradient = torch.empty_like(features, dtype=torch.float32)
            everywhere = weight.sum(0, dtype=torch.float32)
        loss = likelihood = torch.zeros((), device=features.device)
        parts: list[Tensor] = []
        step = max(LEAST_ROWS, CHUNK_BYTES.get(features.device.type, 2**28) // (4 * size))
        for start in range(0, len(features), step):
            part = slice(start, start + step)
            target, left_out = targets[part].unsqueeze(1), targets[part].eq(ignored)
            logits = F.linear(features[part], weight)
            log_p = F.log_softmax(logits, dim=-1, dtype=torch.float32)
            del logits
            nlls = -log_p.gather(1, target).squeeze(1).masked_fill(left_out, 0)
            smooths = -log_p.sum(1).masked_fill(left_out, 0)
            nll, smooth = nlls.sum(), smooths.sum()
            loss, likelihood = loss + certain * nll + spread * smooth, likelihood + nll
            if of_tokens is not None:
                parts.append(torch.stack([certain * nlls + spread * smooths, nlls]))
            if gradient is not None and everywhere is not None:
                scale = HALF_SCALE if weight.dtype == torch.float16 else 1.0
                p = log_p.exp_().mul_(scale) if scale != 1.0 else log_p.exp_()
                whole = p.to(weight.dtype).mm(weight).float().div_(scale)
                del p
                whole.sub_(F.embedding(targets[part], weight).float(), alpha=certain).sub_(everywhere, alpha=spread)
                gradient[part] = whole.masked_fill_(left_out.unsqueeze(1), 0)
            del log_p  # before the next logits are made
        if of_tokens is not None:
            of_tokens.append(torch.cat(parts, dim=1))
        ctx.save_for_backward(gradient)
        ctx.dtype = features.dtype
        ctx.mark_non_differentiable(likelihood)
        return loss, likelihood

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, grad_likelihood: Tensor) -> tuple[Tensor | None, ...]:
        """Scales the gradient that :meth:`forward` computed."""
        (gradient,) = ctx.saved_tensors
        return (gradient * grad_loss).to(ctx.dtype), None, None, None, None, None


class LabelSmoothedCrossEntropyCriterion(stock.LabelSmoothedCrossEntropyCriterion):
    """fairseq's criterion, except that it uses :class:`FrozenVocabularyLoss` if the vocabulary is frozen.

    Everything else uses fairseq's code: other models, a vocabulary that trains, adaptive softmax,
    ``--report-accuracy``. It has the name of fairseq's class because checkpoints store the name, and training cannot
    resume under another.

    Attributes:
        by_sentence: whether the logging output gets the sums of each sentence, see :data:`BY_SENTENCE`.
    """

    by_sentence = False
    _of_tokens: list[Tensor] | None = None

    @classmethod
    def convert(cls, criterion: nn.Module) -> None:
        """Converts fairseq's criterion to this class, in place; any other criterion stays unchanged."""
        if type(criterion) is stock.LabelSmoothedCrossEntropyCriterion:
            criterion.__class__ = cls

    def forward(self, model: nn.Module, sample: dict, reduce: bool = True) -> tuple[Tensor, int, dict[str, Any]]:
        """See fairseq's criterion."""
        if reduce and self._weight(model) is not None:
            sample = {**sample, "net_input": {**sample["net_input"], "features_only": True}}
        if not (self.by_sentence and reduce):
            return super().forward(model, sample, reduce)
        self._of_tokens = []
        try:
            loss, size, log = super().forward(model, sample, reduce)
            return loss, size, {**log, BY_SENTENCE: self._sums_of_sentences(sample["target"])}
        finally:
            self._of_tokens = None

    def compute_loss(self, model: Any, net_output: tuple, sample: dict, reduce: bool = True) -> tuple[Tensor, Tensor]:
        """See fairseq's criterion; for a frozen vocabulary ``net_output`` starts with the decoder's features."""
        weight = self._weight(model)
        if weight is None or not reduce:
            return super().compute_loss(model, net_output, sample, reduce)
        features, targets = net_output[0], model.get_targets(sample, net_output)
        features, targets = features[:, self.ignore_prefix_size :], targets[:, self.ignore_prefix_size :]
        dtype = compute_type(features)
        return FrozenVocabularyLoss.apply(
            features.reshape(-1, features.size(-1)).to(dtype),
            weight.to(dtype),
            targets.reshape(-1),
            self.eps,
            self.padding_idx,
            self._of_tokens,
        )

    def get_lprobs_and_target(self, model: Any, net_output: tuple, sample: dict) -> tuple[Tensor, Tensor]:
        """See fairseq's criterion, which computes its loss from them."""
        log_p, targets = super().get_lprobs_and_target(model, net_output, sample)
        if self._of_tokens == []:  # and not asked again, for the accuracy
            with torch.no_grad():
                self._of_tokens.append(self._losses_of_tokens(log_p, targets))
        return log_p, targets

    def _losses_of_tokens(self, log_p: Tensor, targets: Tensor) -> Tensor:
        """Loss and negative log-likelihood of each token, ``(2, tokens)``, by fairseq's formula."""
        left_out, spread = targets.eq(self.padding_idx), self.eps / (log_p.size(-1) - 1)
        nlls = -log_p.gather(1, targets.unsqueeze(1)).squeeze(1).float()
        losses = (1.0 - self.eps - spread) * nlls
        if self.eps:
            losses = losses - spread * log_p.sum(1, dtype=torch.float32)
        return torch.stack([losses, nlls]).masked_fill(left_out, 0)

    def _sums_of_sentences(self, targets: Tensor) -> Tensor:
        assert self._of_tokens
        targets = targets[:, self.ignore_prefix_size :]  # (batch, length)
        sums = self._of_tokens[0].view(2, *targets.shape).sum(2)  # (2, batch)
        return torch.cat([sums, targets.ne(self.padding_idx).sum(1, keepdim=True).t().to(sums)])

    def _weight(self, model: nn.Module) -> Tensor | None:
        """The vocabulary matrix ``(V, width)`` if :class:`FrozenVocabularyLoss` can be used, else None."""
        ours = language_specific(model)
        if ours is None or self.report_accuracy or ours.decoder.adaptive_softmax is not None:
            return None
        weight = ours.decoder.output_projection.weight
        return None if weight.requires_grad else weight
