"""The metrics. To add one, write its module and name its class in :data:`METRICS`."""

from __future__ import annotations

from langspec_lora.evaluation.metrics.bleu import Bleu
from langspec_lora.evaluation.metrics.bleurt import Bleurt
from langspec_lora.evaluation.metrics.chrf import Chrf
from langspec_lora.evaluation.metrics.comet import Comet
from langspec_lora.evaluation.metrics.metric import Metric, ModelMetric, RequestedScorer, SacrebleuMetric, Scorer
from langspec_lora.evaluation.metrics.ter import Ter

METRICS: dict[str, Metric] = {metric.name: metric for metric in (Bleu(), Chrf(), Ter(), Comet(), Bleurt())}
"""By the name in ``scores.json``, in the order of the columns of ``scores.csv``."""

SACREBLEU_METRICS = {name: metric for name, metric in METRICS.items() if isinstance(metric, SacrebleuMetric)}
"""Those of sacrebleu, whose scores can be computed for resamples."""

USUAL_METRICS = {name: metric for name, metric in SACREBLEU_METRICS.items() if metric.always}
"""Those that every evaluation computes."""

MODEL_METRICS = {name: metric for name, metric in METRICS.items() if isinstance(metric, ModelMetric)}
"""Those that need a model, and are computed on request."""

__all__ = [
    "METRICS",
    "MODEL_METRICS",
    "SACREBLEU_METRICS",
    "USUAL_METRICS",
    "Metric",
    "ModelMetric",
    "RequestedScorer",
    "SacrebleuMetric",
    "Scorer",
]
