"""Which differences between two runs are significant: paired bootstrap or randomization, corrected over the directions.

The tests are sacrebleu's ``--paired-bs`` (Koehn, EMNLP 2004) and ``--paired-ar`` (Riezler and Maxwell, ACL 2005
workshop) to the printed digit of their p-values.
``sacrebleu.significance.PairedTest`` itself would take gigabytes and hours for hundreds of directions: it copies the
counts of all sentences for each resample and scores them one by one. Here a resample is the number of times that it
holds each sentence, so that the sums of all resamples are a product of matrices.
"""

# Imports in functions: sacrebleu takes start-up time, and often only the constants are needed.

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.evaluation.metrics import METRICS, SACREBLEU_METRICS
from langspec_lora.evaluation.results import Run

ALPHA = 0.05
SEED = 12345
"""sacrebleu's own, so that its command line draws the same resamples."""

TESTS = ("bootstrap", "randomization")
"""What tells whether a difference is more than chance."""

Seed = int | tuple[int, ...]
"""What a generator of random numbers starts from."""

Resampled = tuple[float, NDArray]
"""A score, and the scores of its resamples, ``(samples,)``."""

_CHUNK = 1000  # resamples drawn at a time
_SWAPS_AT_ONCE = 1024  # bits are drawn 32 at a time: whatever the number of sentences, these use all of them


@dataclass(frozen=True)
class MetricSettings:
    """A metric of sacrebleu, in a form that can be sent to another process.

    Attributes:
        name: of :data:`~langspec_lora.evaluation.metrics.SACREBLEU_METRICS`.
        signature: sacrebleu's signature without the version.
        arguments: of sacrebleu's class, as (name, value).
    """

    name: str
    signature: str
    arguments: tuple[tuple[str, Any], ...] = ()

    def build(self, references: Sequence[str]) -> Any:
        """Sacrebleu's metric, which prepares the references once for any number of runs."""
        return SACREBLEU_METRICS[self.name].build(dict(self.arguments), references)


@dataclass(frozen=True)
class Comparison:
    """One later run against the first, direction by direction.

    Attributes:
        p_values: of sacrebleu's paired bootstrap.
        corrected: the same by Holm over these directions.
        verdicts: ``win``, ``tie`` or ``loss`` of the later run.
    """

    p_values: Mapping[Direction, float]
    corrected: Mapping[Direction, float]
    verdicts: Mapping[Direction, str]

    def count(self, members: Collection[Direction]) -> str:
        """Wins, ties and losses among some directions: ``3 / 1 / 0``."""
        found = Counter(self.verdicts[direction] for direction in members if direction in self.verdicts)
        return f"{found['win']} / {found['tie']} / {found['loss']}"


def comparable(signature: str) -> str:
    """A signature without what does not change scores: the version, and the older name of one tokenizer.

    Returns:
        The rest; an empty string for signatures of sacrebleu before 2.0, which had another format.
    """
    if ":" not in signature:
        return ""
    parts = [part for part in signature.replace("tok:spm", "tok:flores101").split("|") if part]
    return "|".join(part for part in parts if not part.startswith("version:"))


def metric_settings(run: Run, metric: str) -> MetricSettings:
    """The metric by which a run was scored, from its signature.

    Raises:
        UserError: the run does not say how it was scored, or sacrebleu cannot score like that here.
    """
    if metric not in SACREBLEU_METRICS:
        raise UserError(
            f"{METRICS[metric].label}'s scores of single sentences are not kept; use --metric "
            f"{' or '.join(SACREBLEU_METRICS)} for significance"
        )
    signature = comparable(run.signatures.get(metric, ""))
    parts = dict(part.partition(":")[::2] for part in signature.split("|"))
    arguments = SACREBLEU_METRICS[metric].arguments_from(parts, run.tokenize) if signature else None
    if arguments is None:
        raise UserError(f"{run.name} does not say how it was scored; score it with 'langspec-lora evaluate'")
    settings = MetricSettings(metric, signature, tuple(arguments.items()))
    trial = settings.build(["a"])
    trial.corpus_score(["a"], None)
    if comparable(trial.get_signature().format()) != settings.signature:
        raise UserError(f"{run.name} was scored as {settings.signature}, which cannot be repeated here")
    return settings


def default_samples(directions: int) -> int:
    """How many resamples the test needs.

    The least p-value that N resamples give is 1 / (N + 1), and Holm's correction multiplies the least of M p-values by
    M: with sacrebleu's 1,000 and the paper's 132 directions no difference could ever be significant. 25 for each
    direction leave room for it, in whole thousands.
    """
    return 1000 * max(1, math.ceil(25 * directions / 1000))


@lru_cache(maxsize=2)  # those of the tests of directions, and those of the means
def _draws(sentences: int, samples: int, seed: Seed) -> list[NDArray]:
    """How often each resample holds each sentence: chunks ``(resamples, sentences)``, in the order sacrebleu draws."""
    generator = np.random.default_rng(seed)
    chunks = []
    for start in range(0, samples, _CHUNK):
        size = min(_CHUNK, samples - start)
        rows = generator.choice(sentences, size=(size, sentences), replace=True)
        cells = rows + sentences * np.arange(size)[:, None]
        counts = np.bincount(cells.ravel(), minlength=size * sentences).reshape(size, sentences)
        chunks.append(counts.astype(np.min_scalar_type(int(counts.max()))))
    return chunks


@lru_cache(maxsize=2)
def _kept(sentences: int, samples: int, seed: Seed) -> list[NDArray]:
    """Which sentences two runs do not swap: chunks of truth values ``(trials, sentences)``, as sacrebleu draws them."""
    generator = np.random.default_rng(seed)
    sizes = (min(_SWAPS_AT_ONCE, samples - start) for start in range(0, samples, _SWAPS_AT_ONCE))
    return [generator.integers(2, size=(size, sentences), dtype=bool) for size in sizes]


def _sums(table: NDArray, factors: Sequence[NDArray]) -> NDArray:
    """Sums of a table, ``(sentences, counts)``, over its sentences, each as often as a sample's factors say.

    Args:
        table: whole numbers.
        factors: chunks ``(samples, sentences)``.

    Returns:
        ``(samples, counts)``.
    """
    # Single precision holds whole numbers up to 16 million exactly: characters of a test set.
    table = table.astype(np.float32)
    return np.concatenate([chunk.astype(np.float32) @ table for chunk in factors]).astype(np.float64)


def resampled_sums(statistics: Sequence[Sequence[float]], samples: int, seed: Seed = SEED) -> NDArray:
    """Sums over resamples, ``(samples, counts)``, of what a metric counted in sentences, ``(sentences, counts)``."""
    return _sums(np.array(statistics), _draws(len(statistics), samples, seed))


def resample(
    settings: MetricSettings, metric: Any, hypotheses: Sequence[str], samples: int, seed: Seed = SEED
) -> Resampled:
    """Scores hypotheses and resamples of them with ``metric``, which was built from the settings and the references."""
    return resample_statistics(settings, metric, metric._extract_corpus_statistics(hypotheses, None), samples, seed)


def resample_statistics(
    settings: MetricSettings, metric: Any, statistics: Sequence[Sequence[float]], samples: int, seed: Seed = SEED
) -> Resampled:
    """The same of what ``metric`` has counted in each sentence of the hypotheses, ``(sentences, counts)``."""
    sums = resampled_sums(statistics, samples, seed)
    return metric._aggregate_and_compute(statistics).score, SACREBLEU_METRICS[settings.name].scores_from_sums(sums)


def swap_statistics(
    settings: MetricSettings,
    base: Sequence[Sequence[float]],
    later: Sequence[Sequence[float]],
    samples: int,
    seed: Seed = SEED,
) -> tuple[NDArray, NDArray]:
    """Scores of two runs that swap their hypotheses of each sentence at random, ``(samples,)`` each.

    Args:
        settings: the metric.
        base: what it has counted in each sentence of one run, ``(sentences, counts)``.
        later: likewise of the other.
        samples: trials.
        seed: of the trials.
    """
    one, other = np.array(base, dtype=np.float64), np.array(later, dtype=np.float64)
    kept = _sums(one - other, _kept(len(one), samples, seed))
    scores = SACREBLEU_METRICS[settings.name].scores_from_sums
    return scores(other.sum(axis=0) + kept), scores(one.sum(axis=0) - kept)


def randomized_p_value(difference: float, trials: NDArray) -> float:
    """Tests a difference against those of trials, ``(samples,)``, in which the two runs swap sentences at random."""
    from sacrebleu.significance import _compute_p_value

    return _compute_p_value(np.abs(trials), abs(difference)) if difference else 1.0


def p_value(base: Resampled, later: Resampled) -> float:
    """Tests two runs' hypotheses of the same sentences against each other.

    Returns:
        The p-value. It is 1 where both score the same: sacrebleu's formula, which compares the spread of equal scores
        with a difference of nothing, would call that significant.
    """
    from sacrebleu.significance import _compute_p_value

    difference, spread = abs(later[0] - base[0]), np.abs(later[1] - base[1])
    return _compute_p_value(spread - spread.mean(), difference) if difference else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects p-values for their number (Holm, Scandinavian Journal of Statistics 6, 1979).

    What is significant at a level has a corrected value below that level.
    """
    corrected = np.array(p_values, dtype=float)
    order = corrected.argsort()
    scaled = corrected[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.maximum.accumulate(scaled).clip(max=1.0)
    return corrected.tolist()


def compare(
    p_values: Mapping[Direction, float], differences: Mapping[Direction, float], higher_is_better: bool = True
) -> Comparison:
    """Corrects the p-values of a run, and says which of its differences from the first run are significant."""
    corrected = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    signs = {
        direction: "win" if (difference > 0) == higher_is_better else "loss"
        for direction, difference in differences.items()
    }
    verdicts = {direction: signs[direction] if value < ALPHA else "tie" for direction, value in corrected.items()}
    return Comparison(p_values, corrected, verdicts)
