"""Decoding of many directions of a binarised folder with one loaded model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from langspec_lora.errors import UserError
from langspec_lora.evaluation.directions import Direction
from langspec_lora.translation.loaded import LoadedModel
from langspec_lora.translation.settings import MAX_TOKENS, Generation, Model

if TYPE_CHECKING:
    from fairseq.data import FairseqDataset

_BATCHES_IN_A_GROUP = 8
"""Directions are decoded together until they fill so many batches: enough for batches of equally long sentences."""


class Decoder:
    """Loads a model once and translates any of the given directions.

    Args:
        data_bin: the binarised folder.
        subset: ``test``, ``valid``, …
        directions: the directions that may be asked for.
        model: which model.
        generation: beam and the like.
        max_tokens: tokens in a batch, padding included, as ``fairseq-generate`` counts them.
        batch_size: sentences in a batch at most; no limit where None.
        mixed: directions share batches. Otherwise the batches are those of ``fairseq-generate`` for each direction.

    Raises:
        UserError: a precision does not fit the device.
        SystemExit: with one line, if a checkpoint is damaged, or the dictionary or languages do not fit it.
    """

    def __init__(
        self,
        data_bin: Path,
        subset: str,
        directions: Sequence[Direction],
        model: Model,
        generation: Generation,
        max_tokens: int = MAX_TOKENS,
        batch_size: int | None = None,
        mixed: bool = True,
    ) -> None:
        self.subset, self.data_bin = subset, data_bin
        self.mixed = mixed and not generation.depends_on_batch
        self._loaded = LoadedModel(model, generation, directions, max_tokens, batch_size)

    def load(self, direction: Direction) -> FairseqDataset:
        """Opens the data of one direction.

        Raises:
            UserError: a sentence is longer than the model can take.
        """
        source, target = direction
        task = self._loaded.task
        dataset = task.data_manager.load_a_dataset(
            self.subset,
            str(self.data_bin),
            source,
            task.source_dictionary,
            target,
            task.target_dictionary,
            combine=False,
            data_category="main",
            langtok_spec=task.args.langtoks["main"],
        )
        limits = self._loaded.max_positions
        for side, sizes, limit in zip(direction, np.asarray(dataset.sizes).T, limits, strict=True):
            too_long = np.flatnonzero(sizes > limit)
            if len(too_long):
                raise UserError(
                    f"{self.subset} data of {direction}, {side}, line {too_long[0] + 1}: {sizes[too_long[0]]} tokens, "
                    f"but the model takes {limit}; shorten the sentence in the data"
                )
        return dataset

    def translate(
        self, directions: Sequence[Direction], progress: Callable[[int], None] = lambda sentences: None
    ) -> Iterator[tuple[Direction, list[str]]]:
        """Translates directions; each is yielded as soon as it is complete.

        Args:
            directions: what to translate.
            progress: called with the number of sentences after each batch.

        Yields:
            A direction and its hypotheses in the order of the data.
        """
        for group in self._groups(directions):
            yield from zip(group, self._translate_group(group, progress), strict=True)

    def _groups(self, directions: Sequence[Direction]) -> Iterator[list[Direction]]:
        group, tokens = [], 0
        for direction in directions:
            group.append(direction)
            tokens += int(np.asarray(self.load(direction).sizes).max(axis=1).sum()) if self.mixed else 0
            if not self.mixed or tokens >= _BATCHES_IN_A_GROUP * self._loaded.max_tokens:
                yield group
                group, tokens = [], 0
        if group:
            yield group

    def _translate_group(self, group: Sequence[Direction], progress: Callable[[int], None]) -> list[list[str]]:
        datasets = [(direction, self.load(direction)) for direction in group]
        return self._loaded.decode(datasets, not self.mixed, progress)
