"""Decodes directions with one loaded model, in groups: those that share batches, which a process takes together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.evaluation.options import EvaluationOptions
from langspec_lora.inference.model import LoadedModel
from langspec_lora.inference.model_files import ModelFiles

if TYPE_CHECKING:
    from fairseq.data import FairseqDataset

_BATCHES_IN_A_GROUP = 8
"""Short directions are decoded together until they fill this many batches, which then hold equally long sentences. A
process takes one such group at a time; a direction that fills a batch is a group of its own (``--batching auto``)."""


class Decoder:
    """Loads a model once and translates any of the given directions.

    Args:
        options: the data, and how to decode it. Its ``batching`` is ``direction``: the batches are those of
            ``fairseq-generate``, and the adapters of each direction are merged into the weights; ``mixed``: directions
            share batches; or ``auto``: the directions that fill no batch share them.
        files: the model's files.
        directions: the directions that may be asked for.

    Raises:
        UserError: the device does not exist, or does not compute in the dtype.
        SystemExit: with one line, if a checkpoint is damaged, or the dictionary or languages do not fit it.
    """

    def __init__(self, options: EvaluationOptions, files: ModelFiles, directions: Sequence[Direction]) -> None:
        self.subset, self.data_bin = options.subset, options.data_bin
        self._batching = "direction" if options.generation.depends_on_batch else options.batching
        self._loaded = LoadedModel(files, options.generation, options.limits, directions)

    @property
    def has_adapters(self) -> bool:
        """Whether a model has language-specific adapters."""
        return self._loaded.has_adapters

    def load(self, direction: Direction) -> FairseqDataset:
        """Opens the data of one direction.

        Raises:
            UserError: the data are missing, damaged or of another dictionary, or a sentence is longer than the model
                takes, or than a batch.
        """
        source, target = direction
        task = self._loaded.task
        task.data_manager.check_direction(str(self.data_bin), self.subset, source, target, needs_target=True)
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
        positions, tokens = self._loaded.max_positions, self._loaded.limits.max_tokens
        for side, sizes, limit in zip(direction, np.asarray(dataset.sizes).T, positions, strict=True):
            for most, remedy in (
                (limit, f"the model takes {limit}; shorten the sentence in the data"),
                (tokens, f"--max-tokens is {tokens}; give at least the length of the longest sentence"),
            ):
                too_long = np.flatnonzero(sizes > most)
                if len(too_long):
                    label = f"{self.subset} data of {direction}, {side}, line {too_long[0] + 1}"
                    raise UserError(f"{label}: {sizes[too_long[0]]} tokens, but {remedy}")
        return dataset

    def translate(
        self, directions: Sequence[Direction], progress: Callable[[int], object] = lambda sentences: None
    ) -> Iterator[tuple[Direction, list[str]]]:
        """Translates directions in batches that they share.

        Args:
            directions: a group, or a part of one.
            progress: called with the number of sentences after each batch.

        Returns:
            The directions, each with its hypotheses in the order of the data.
        """
        datasets = [(direction, self.load(direction)) for direction in directions]
        return zip(directions, self._loaded.decode(datasets, len(datasets) == 1, progress), strict=True)

    def groups(self, directions: Sequence[Direction]) -> Iterator[dict[Direction, int]]:
        """Checks the data of all directions, and says which of them are decoded together.

        Yields:
            The directions that share batches, each with its number of sentences.

        Raises:
            UserError: see :meth:`load`.
        """
        group: dict[Direction, int] = {}
        batches, limits = 0.0, self._loaded.limits
        for direction in directions:
            dataset = self.load(direction)
            filled = [float(np.asarray(dataset.sizes).max(axis=1).sum()) / limits.max_tokens]
            if limits.batch_size is not None:
                filled.append(len(dataset) / limits.batch_size)
            if self._batching == "direction" or (self._batching == "auto" and max(filled) >= 1):
                yield {direction: len(dataset)}
                continue
            group[direction] = len(dataset)
            batches += max(filled)
            if batches >= _BATCHES_IN_A_GROUP:
                yield group
                group, batches = {}, 0.0
        if group:
            yield group
