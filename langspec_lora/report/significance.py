"""Which differences between two runs are more than chance: paired bootstrap, corrected over the directions.

The test is sacrebleu's ``--paired-bs`` (Koehn, EMNLP 2004) to the printed digit of its p-values. It is not run by
``sacrebleu.significance.PairedTest``, which for hundreds of directions would take gigabytes and hours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from langspec_lora.errors import UserError
from langspec_lora.evaluation.results import Run
from langspec_lora.evaluation.tokenizers import require_tokenizer
from langspec_lora.report.resampling import bleu_scores, chrf_scores, resampled_sums

ALPHA = 0.05

_SCORES = {"bleu": bleu_scores, "chrf": chrf_scores}


@dataclass(frozen=True)
class MetricSettings:
    """A metric of sacrebleu, in a form that can be sent to another process.

    Attributes:
        name: ``bleu`` or ``chrf``.
        signature: its signature without the version.
        arguments: what its class is called with, as pairs of name and value.
    """

    name: str
    signature: str
    arguments: tuple[tuple[str, object], ...] = ()

    def build(self, references: Sequence[str]):
        """The metric with these references, prepared once for any number of runs."""
        from sacrebleu.metrics import BLEU, CHRF

        kind = BLEU if self.name == "bleu" else CHRF
        return kind(**dict(self.arguments), references=[list(references)])


def comparable(signature: str) -> str:
    """A signature without what does not change scores: the version, and the older name of one tokenizer.

    Signatures of sacrebleu before 2.0 were written otherwise; they give nothing.
    """
    if ":" not in signature:
        return ""
    parts = [part for part in signature.replace("tok:spm", "tok:flores101").split("|") if part]
    return "|".join(part for part in parts if not part.startswith("version:"))


def metric_settings(run: Run, metric: str) -> MetricSettings:
    """The metric by which a run was scored, from its signature.

    Raises:
        UserError: the run does not say how it was scored, or in a way that is not known here, or the tokenizer lacks
            its model.
    """
    if metric == "comet":
        raise UserError("COMET's scores of single sentences are not kept; use --metric bleu or chrf for significance")
    signature = comparable(run.signatures.get(metric, ""))
    parts = dict(part.partition(":")[::2] for part in signature.split("|"))
    tokenizer = run.tokenize or parts.get("tok", "")
    if not signature or (metric == "bleu" and not tokenizer):
        raise UserError(f"{run.name} does not say how it was scored; score it with 'langspec-lora evaluate'")
    if metric == "chrf":
        orders = (("word_order", "nw"), ("char_order", "nc"))
        arguments = {name: int(parts[part]) for name, part in orders if parts.get(part, "").isdecimal()}
    else:
        require_tokenizer(tokenizer)
        # `force` only silences a warning about text that looks tokenized.
        arguments = {"tokenize": tokenizer, "lowercase": parts.get("case") == "lc", "force": True}
    settings = MetricSettings(metric, signature, tuple(arguments.items()))
    trial = settings.build(["a"])
    trial.corpus_score(["a"], None)
    if comparable(trial.get_signature().format()) != settings.signature:
        raise UserError(f"{run.name} was scored as {settings.signature}, which is not repeated here")
    return settings


def default_samples(directions: int) -> int:
    """How many resamples the test needs.

    The least p-value that N resamples give is 1 / (N + 1), and Holm's correction multiplies the least of M p-values by
    M: with sacrebleu's 1,000 and the paper's 132 directions no difference could ever be significant. 25 for each
    direction leave room for it, in whole thousands.
    """
    return 1000 * max(1, math.ceil(25 * directions / 1000))


def paired_p_values(
    settings: MetricSettings, metric, base: Sequence[str], others: Sequence[Sequence[str]], samples: int
) -> list[float]:
    """Tests other hypotheses of the same sentences against those of a base.

    Args:
        settings: the metric.
        metric: the same, built with the references.
        base: hypotheses to compare with.
        others: hypotheses of each other run.
        samples: number of resamples.

    Returns:
        One p-value for each of the others. It is 1 where both score the same: sacrebleu's formula, which compares the
        spread of equal scores with a difference of nothing, would call that significant.
    """
    from sacrebleu.significance import _compute_p_value

    base_statistics = metric._extract_corpus_statistics(base, None)
    base_score = metric._aggregate_and_compute(base_statistics).score
    resampled_scores = _SCORES[settings.name]
    base_scores = resampled_scores(resampled_sums(base_statistics, samples))
    p_values = []
    for hypotheses in others:
        statistics = metric._extract_corpus_statistics(hypotheses, None)
        difference = abs(metric._aggregate_and_compute(statistics).score - base_score)
        spread = np.abs(resampled_scores(resampled_sums(statistics, samples)) - base_scores)
        p_values.append(_compute_p_value(spread - spread.mean(), difference) if difference else 1.0)
    return p_values


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects p-values for their number (Holm, Scandinavian Journal of Statistics 6, 1979).

    Returns:
        The corrected values in the same order: what is significant at a level has a value below that level.
    """
    corrected = list(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected


def verdict(difference: float, corrected: float) -> str:
    """``win`` or ``loss`` of the later run where the difference is significant, else ``tie``."""
    if corrected >= ALPHA:
        return "tie"
    return "win" if difference > 0 else "loss"
