"""COMET, where ``unbabel-comet`` is installed (Rei et al., 2020): a learned metric that reads the source as well."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from langspec_lora.errors import UserError

BATCH_SIZE = 16
"""Sentences that the metric reads at once."""


class CometScorer:
    """Scores directions by a COMET model that needs references, such as ``Unbabel/wmt22-comet-da``.

    Args:
        name: name of the model on the Hugging Face hub, or path of its ``.ckpt`` file.
        cpu: do not use a GPU.

    Raises:
        UserError: the package is not installed, or the model is neither there nor to be had.
    """

    def __init__(self, name: str, cpu: bool = False) -> None:
        if find_spec("comet") is None:
            raise UserError(
                "--comet needs the package unbabel-comet: pip install 'langspec_lora[comet]', or leave it out"
            )
        self.name, self._cpu = name, cpu
        self._path = self._find(name)

    @staticmethod
    def _find(name: str) -> str:
        if Path(name).suffix == ".ckpt":
            if not Path(name).is_file():
                raise UserError(f"--comet {name}: there is no such file; give a COMET model's .ckpt, or its name")
            return name
        from comet import download_model

        try:
            return download_model(name)
        except Exception as error:  # of the hub, the network or the file system, by turns
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"--comet {name} cannot be downloaded ({reason}); download it where there is a network, and give the "
                "path of its .ckpt file"
            ) from error

    @property
    def signature(self) -> str:
        """What the scores were made with, in sacrebleu's manner."""
        return f"model:{self.name}|scale:100|version:{metadata.version('unbabel-comet')}"

    @cached_property
    def _model(self) -> Any:
        from comet import load_from_checkpoint

        return load_from_checkpoint(self._path)

    def score(self, sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[str]) -> float:
        """The system score, times 100 as the other metrics."""
        import torch

        triples = [
            {"src": source, "mt": hypothesis, "ref": reference}
            for source, hypothesis, reference in zip(sources, hypotheses, references, strict=True)
        ]
        gpus = 1 if torch.cuda.is_available() and not self._cpu else 0
        predicted = self._model.predict(triples, batch_size=BATCH_SIZE, gpus=gpus, progress_bar=False)
        return 100 * float(predicted.system_score)
