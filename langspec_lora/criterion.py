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
    ``(tokens,)``, ε, and the target id to leave out. Returns the loss and the negative log-likelihood, both sums in
    single precision; only the loss is differentiable, by the features.
    """

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, targets: Tensor, smoothing: float, ignored: int
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
        step = max(LEAST_ROWS, CHUNK_BYTES.get(features.device.type, 2**28) // (4 * size))
        for start in range(0, len(features), step):
            part = slice(start, start + step)
            target, left_out = targets[part].unsqueeze(1), targets[part].eq(ignored)
            logits = F.linear(features[part], weight)
            log_p = F.log_softmax(logits, dim=-1, dtype=torch.float32)
            del logits
            nll = -log_p.gather(1, target).squeeze(1).masked_fill(left_out, 0).sum()
            smooth = -log_p.sum(1).masked_fill(left_out, 0).sum()
            loss, likelihood = loss + certain * nll + spread * smooth, likelihood + nll
            if gradient is not None and everywhere is not None:
                scale = HALF_SCALE if weight.dtype == torch.float16 else 1.0
                p = log_p.exp_().mul_(scale) if scale != 1.0 else log_p.exp_()
                whole = p.to(weight.dtype).mm(weight).float().div_(scale)
                del p
                whole.sub_(F.embedding(targets[part], weight).float(), alpha=certain).sub_(everywhere, alpha=spread)
                gradient[part] = whole.masked_fill_(left_out.unsqueeze(1), 0)
            del log_p  # before the next logits are made
        ctx.save_for_backward(gradient)
        ctx.dtype = features.dtype
        ctx.mark_non_differentiable(likelihood)
        return loss, likelihood

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, grad_likelihood: Tensor) -> tuple[Tensor | None, ...]:
        """Scales the gradient that :meth:`forward` computed."""
        (gradient,) = ctx.saved_tensors
        return (gradient * grad_loss).to(ctx.dtype), None, None, None, None


class LabelSmoothedCrossEntropyCriterion(stock.LabelSmoothedCrossEntropyCriterion):
    """fairseq's criterion, except that it uses :class:`FrozenVocabularyLoss` if the vocabulary is frozen.

    Everything else uses fairseq's code: other models, a vocabulary that trains, adaptive softmax,
    ``--report-accuracy``. It has the name of fairseq's class because checkpoints store the name, and training cannot
    resume under another.
    """

    @classmethod
    def convert(cls, criterion: nn.Module) -> None:
        """Converts fairseq's criterion to this class, in place; any other criterion stays unchanged."""
        if type(criterion) is stock.LabelSmoothedCrossEntropyCriterion:
            criterion.__class__ = cls

    def forward(self, model: nn.Module, sample: dict, reduce: bool = True) -> tuple[Tensor, int, dict[str, Any]]:
        """See fairseq's criterion."""
        if reduce and self._weight(model) is not None:
            sample = {**sample, "net_input": {**sample["net_input"], "features_only": True}}
        return super().forward(model, sample, reduce)

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
        )

    def _weight(self, model: nn.Module) -> Tensor | None:
        """The vocabulary matrix ``(V, width)`` if :class:`FrozenVocabularyLoss` can be used, else None."""
        ours = language_specific(model)
        if ours is None or self.report_accuracy or ours.decoder.adaptive_softmax is not None:
            return None
        weight = ours.decoder.output_projection.weight
        return None if weight.requires_grad else weight
