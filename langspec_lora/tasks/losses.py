"""Sums of losses by language and by direction, on the device of the model, without waiting for it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langspec_lora.languages import LEVELS

BY_LANGUAGE = "by_language"
"""The key of a logging output with the sums of a batch, float64 ``(3, entries)``; fairseq adds them up over batches and
processes. The rows are loss, negative log-likelihood (both in nats) and tokens. The entries are the languages as
sources, then as targets, and in validation then all directions, source by source."""

MOST_LANGUAGES = 256
"""Languages up to which a validation keeps the sums of directions, which are as many as their square."""


def sums_by_language(by_sentence: Tensor, sources: Tensor, targets: Tensor, languages: int, directions: bool) -> Tensor:
    """Adds up the sums of sentences.

    Args:
        by_sentence: ``(3, batch)``.
        sources: source language ids, ``(batch,)`` or ``(batch, 1)`` int64.
        targets: target language ids, likewise.
        languages: the number of languages.
        directions: whether to add the entries of directions.

    Returns:
        See :data:`BY_LANGUAGE`.
    """
    sources, targets, values = sources.reshape(-1), targets.reshape(-1), by_sentence.double()
    entries = 2 * languages + (languages * languages if directions else 0)
    sums = values.new_zeros(3, entries)
    sums.index_add_(1, sources, values)
    sums.index_add_(1, targets + languages, values)
    if directions:
        sums.index_add_(1, sources * languages + targets + 2 * languages, values)
    return sums


class LossSums:
    """The sums of the updates or validation batches since the last reset, for several purposes at once.

    Args:
        languages: names by id.
    """

    def __init__(self, languages: Sequence[str]) -> None:
        self._languages = list(languages)
        self._sums: dict[str, Tensor] = {}

    def add(self, name: str, sums: Tensor) -> None:
        """Adds the sums of a batch, of all processes, to those for a purpose."""
        known = self._sums.get(name)
        self._sums[name] = sums if known is None else known.to(sums) + sums

    def get(self, name: str) -> Losses | None:
        """The losses for a purpose; waits for the device. None if no batch had any."""
        sums = self._sums.get(name)
        return None if sums is None else Losses(self._languages, sums.cpu().numpy())

    def reset(self, name: str) -> None:
        """Starts again."""
        self._sums.pop(name, None)

    def state(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {"languages": self._languages, "sums": {name: sums.tolist() for name, sums in self._sums.items()}}

    def restore(self, state: Mapping[str, Any], without: str | None = None) -> None:
        """Continues from a checkpoint's state, if that is of the same languages; ``without`` names sums to drop."""
        self._sums = {}
        if state.get("languages") == self._languages:
            sums = {name: torch.tensor(rows, dtype=torch.float64) for name, rows in state.get("sums", {}).items()}
            self._sums = {name: rows for name, rows in sums.items() if name != without}


class Losses:
    """Losses for each token in base 2, as fairseq logs them.

    Args:
        languages: names by id.
        sums: see :data:`BY_LANGUAGE`.
    """

    def __init__(self, languages: Sequence[str], sums: NDArray) -> None:
        self._languages = languages
        count = len(languages)
        self._sides = {"from": sums[:, :count], "into": sums[:, count : 2 * count]}
        directions = sums[:, 2 * count :]
        self._directions = directions.reshape(3, count, count) if directions.size else None

    def by_language(self, side: str, row: int = 1) -> dict[str, float]:
        """By language; only languages with tokens.

        Args:
            side: ``from`` or ``into``.
            row: 0 for the loss that trains, 1 for the negative log-likelihood.
        """
        return self._present(self._languages, self._sides[side], row)

    def by_level(self, levels: Mapping[str, str]) -> dict[str, float]:
        """Negative log-likelihood by the level of the target language, of those that have a level."""
        return self._grouped([levels.get(name) for name in self._languages], self._sides["into"])

    def by_direction(self) -> dict[str, float]:
        """Negative log-likelihood by direction, such as ``en-fr``; empty for training, or for very many languages."""
        if self._directions is None:
            return {}
        names = [f"{source}-{target}" for source in self._languages for target in self._languages]
        return self._present(names, self._directions.reshape(3, -1), 1)

    def by_group(self, levels: Mapping[str, str]) -> dict[str, float]:
        """Negative log-likelihood by the levels of source and target, such as ``high-low``."""
        if self._directions is None:
            return {}
        known = [levels.get(name) for name in self._languages]
        pairs = [f"{a}-{b}" if a and b else None for a in known for b in known]
        return self._grouped(pairs, self._directions.reshape(3, -1))

    def _grouped(self, groups: Sequence[str | None], sums: NDArray) -> dict[str, float]:
        known = {group for group in groups if group}
        names = [name for name in (*LEVELS, *(f"{a}-{b}" for a in LEVELS for b in LEVELS)) if name in known]
        belongs = np.array([[group == name for name in names] for group in groups], dtype=float)
        return self._present(names, sums @ belongs, 1) if names else {}

    @staticmethod
    def _present(names: Sequence[str], sums: NDArray, row: int) -> dict[str, float]:
        def pairs() -> Iterator[tuple[str, float]]:
            for name, value, tokens in zip(names, sums[row], sums[2], strict=True):
                if tokens:
                    yield name, round(float(value / tokens / math.log(2)), 4)

        return dict(pairs())
