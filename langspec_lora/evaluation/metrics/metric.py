"""What evaluation and report need from a metric: one number for a direction."""

# NumPy is imported for types only: the command line reads names and labels from here.

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Metric(ABC):
    """Scores hypotheses against references.

    Attributes:
        name: its key in ``scores.json``, and its name for ``langspec-lora report --metric``.
        label: what people call it.
        bounds: the lowest and the highest score.
        higher_is_better: whether a higher score is a better one.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    bounds: ClassVar[tuple[float, float]] = (0.0, 100.0)
    higher_is_better: ClassVar[bool] = True

    def short_label(self, tokenize: str) -> str:
        """Its name on the terminal after an evaluation with this tokenizer."""
        return self.label

    def title(self, signature: str) -> str:
        """Its name in a report on scores with this signature."""
        return self.label

    @abstractmethod
    def explanation(self, title: str) -> str:
        """How the score of a direction is computed, as a clause for the report's reader."""


class SacrebleuMetric(Metric):
    """A metric of sacrebleu, whose differences the report tests for significance.

    Attributes:
        always: whether every evaluation computes it; else ``langspec-lora evaluate --metrics NAME`` does.
    """

    always: ClassVar[bool] = True

    @abstractmethod
    def build(self, arguments: Mapping[str, Any], references: Sequence[str]) -> Any:
        """Sacrebleu's metric, which prepares the references once for any number of hypotheses.

        Args:
            arguments: of sacrebleu's class.
            references: one for each sentence.
        """

    @abstractmethod
    def arguments(self, tokenize: str) -> dict[str, Any]:
        """How ``langspec-lora evaluate --tokenize`` builds it."""

    @abstractmethod
    def arguments_from(self, signature: Mapping[str, str], tokenize: str) -> dict[str, Any] | None:
        """How a run was scored; None if the signature does not say.

        Args:
            signature: the parts of sacrebleu's signature.
            tokenize: the tokenizer that the results name, or an empty string.

        Raises:
            UserError: sacrebleu's tokenizer cannot be used.
        """

    @abstractmethod
    def scores_from_sums(self, sums: NDArray) -> NDArray:
        """The scores of many test sets at once, as sacrebleu computes each.

        Args:
            sums: sacrebleu's statistics, summed over the sentences of each test set, ``(samples, counts)``.

        Returns:
            The scores in percent, ``(samples,)``.
        """

    def explanation(self, title: str) -> str:
        """See :class:`Metric`."""
        return f"{title} is sacrebleu's corpus score of each direction"


class Scorer(Protocol):
    """Scores directions by a metric that not every evaluation computes."""

    name: str
    label: str

    @property
    def signature(self) -> str:
        """Model and version, in sacrebleu's format."""

    def score(self, sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[str]) -> float:
        """The score of a direction; all three have as many sentences."""


class RequestedScorer:
    """Scores directions by a metric of sacrebleu that not every evaluation computes.

    Args:
        metric: the metric.
        tokenize: sacrebleu's name of the BLEU tokenizer.
    """

    def __init__(self, metric: SacrebleuMetric, tokenize: str) -> None:
        self.name, self.label = metric.name, metric.label
        self._metric, self._arguments = metric, metric.arguments(tokenize)

    @property
    def signature(self) -> str:
        """Sacrebleu's."""
        trial = self._metric.build(self._arguments, ["a"])
        trial.corpus_score(["a"], None)
        return trial.get_signature().format()

    def score(self, sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[str]) -> float:
        """The score of a direction in percent."""
        return self._metric.build(self._arguments, references).corpus_score(list(hypotheses), None).score


class ModelMetric(Metric):
    """A metric that a model computes, only on request: ``langspec-lora evaluate --NAME MODEL``.

    Attributes:
        package: the package that it needs.
        extra: the extra of this package that installs that; empty if there is none.
        install: how to install it otherwise.
        help: what its flag takes.
    """

    package: ClassVar[str]
    extra: ClassVar[str] = ""
    install: ClassVar[str] = ""
    help: ClassVar[str]

    @property
    def flag(self) -> str:
        """The flag that asks for it."""
        return f"--{self.name}"

    @abstractmethod
    def load(self, model: str, cpu: bool) -> Scorer:
        """Finds a model.

        Args:
            model: what the flag was given.
            cpu: whether a GPU may not be used.

        Raises:
            UserError: the package or the model is missing.
        """
