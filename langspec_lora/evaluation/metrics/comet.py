"""COMET (Rei et al., EMNLP 2020): a learned metric that reads the source as well; needs ``unbabel-comet``."""

# Imports in functions: comet is an extra, and comet and torch take seconds.

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


class Comet(ModelMetric):
    """COMET times 100, to be read like the other metrics."""

    name, label = "comet", "COMET"
    bounds = (-1e4, 1e4)  # its models have no bounds of their own
    package, extra = "unbabel-comet", "comet"
    help = "score by this COMET model too: its name, or its .ckpt file (needs unbabel-comet)"

    def title(self, signature: str) -> str:
        """With the factor."""
        return "COMET × 100"

    def explanation(self, title: str) -> str:
        """See :class:`Metric`."""
        return "COMET is the mean over the sentences of a direction, times 100"

    def load(self, model: str, cpu: bool) -> Scorer:
        """See :class:`ModelMetric`."""
        return CometScorer(model, cpu)


class CometScorer:
    """Scores directions by a COMET model that needs references, such as ``Unbabel/wmt22-comet-da``.

    Args:
        model: name of the model on the Hugging Face hub, or path of its ``.ckpt`` file.
        cpu: do not use a GPU.

    Raises:
        UserError: the package is not installed, or the model is not found and cannot be downloaded.
    """

    name, label = Comet.name, Comet.label

    def __init__(self, model: str, cpu: bool = False) -> None:
        if find_spec("comet") is None:
            raise UserError(
                "--comet needs the package unbabel-comet: pip install 'langspec_lora[comet]', or leave it out"
            )
        self._name, self._cpu = model, cpu
        self._path = self._find(model)

    @staticmethod
    def _find(model: str) -> str:
        if Path(model).suffix == ".ckpt":
            if not Path(model).is_file():
                raise UserError(f"--comet {model}: file not found; give a COMET model's .ckpt, or its name")
            return model
        from comet import download_model

        try:
            return download_model(model)
        except Exception as error:  # of the hub, the network or the file system
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"--comet {model} cannot be downloaded ({reason}); download it where there is a network, and give the "
                "path of its .ckpt file"
            ) from error

    @property
    def signature(self) -> str:
        """Model, factor and version, in sacrebleu's format."""
        return f"model:{self._name}|scale:100|version:{metadata.version('unbabel-comet')}"

    @cached_property
    def _model(self) -> Any:
        from comet import load_from_checkpoint

        return load_from_checkpoint(self._path)

    def score(self, sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[str]) -> float:
        """The score of a direction, times 100."""
        import torch

        triples = [
            {"src": source, "mt": hypothesis, "ref": reference}
            for source, hypothesis, reference in zip(sources, hypotheses, references, strict=True)
        ]
        gpus = 1 if torch.cuda.is_available() and not self._cpu else 0
        predicted = self._model.predict(triples, batch_size=BATCH_SIZE, gpus=gpus, progress_bar=False)
        return 100 * float(predicted.system_score)
