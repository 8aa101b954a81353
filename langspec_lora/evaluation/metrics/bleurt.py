"""BLEURT (Sellam et al., ACL 2020): a learned metric that compares with the reference only; needs ``BLEURT``."""

# Imports in functions: bleurt is not in our requirements, and it and TensorFlow take seconds.

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from langspec_lora.errors import UserError
from langspec_lora.evaluation.metrics.metric import ModelMetric, Scorer

BATCH_SIZE = 16
"""Sentences that the model reads at once."""

_INSTALL = "pip install git+https://github.com/google-research/bleurt.git"


class Bleurt(ModelMetric):
    """BLEURT times 100, to be read like the other metrics."""

    name, label = "bleurt", "BLEURT"
    bounds = (-1e4, 1e4)  # its models have no bounds of their own
    package = "BLEURT"
    install = _INSTALL
    help = "score by this BLEURT checkpoint too: its folder, such as BLEURT-20 (needs BLEURT)"

    def title(self, signature: str) -> str:
        """With the factor."""
        return "BLEURT × 100"

    def explanation(self, title: str) -> str:
        """See :class:`Metric`."""
        return "BLEURT is the mean over the sentences of a direction, times 100"

    def load(self, model: str, cpu: bool) -> Scorer:
        """See :class:`ModelMetric`."""
        return BleurtScorer(model)


class BleurtScorer:
    """Scores directions by a BLEURT checkpoint.

    Args:
        model: the checkpoint's folder.

    Raises:
        UserError: the package is not installed, or the folder is no checkpoint.
    """

    name, label = Bleurt.name, Bleurt.label

    def __init__(self, model: str) -> None:
        if find_spec("bleurt") is None:
            raise UserError(f"--bleurt needs the package BLEURT: {_INSTALL}, or leave it out")
        if not (Path(model) / "bleurt_config.json").is_file():
            raise UserError(f"--bleurt {model} is no BLEURT checkpoint; give the unpacked folder, such as BLEURT-20")
        self._path = Path(model)

    @property
    def signature(self) -> str:
        """Checkpoint, factor and version, in sacrebleu's format."""
        return f"model:{self._path.resolve().name}|scale:100|version:{metadata.version(Bleurt.package)}"

    @cached_property
    def _model(self) -> Any:
        from bleurt.score import BleurtScorer

        return BleurtScorer(str(self._path))

    def score(self, sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[str]) -> float:
        """The score of a direction, times 100."""
        scores = self._model.score(references=list(references), candidates=list(hypotheses), batch_size=BATCH_SIZE)
        return 100 * sum(map(float, scores)) / len(hypotheses)
