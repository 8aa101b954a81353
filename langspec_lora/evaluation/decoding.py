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
    def loaded(self) -> LoadedModel:
        """The model."""
        return self._loaded

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
        self._check(direction)
        dataset = self._open(direction)
        self._check_lengths(direction, np.asarray(dataset.sizes).T)
        return dataset

    def _check(self, direction: Direction) -> dict[str, str] | None:
        manager = self._loaded.task.data_manager
        return manager.check_direction(str(self.data_bin), self.subset, *direction, needs_target=True)

    def _open(self, direction: Direction) -> FairseqDataset:
        task, (source, target) = self._loaded.task, direction
        return task.data_manager.load_a_dataset(
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

    def _sizes(self, direction: Direction) -> np.ndarray:
        """Checks the data of a direction, and returns the lengths of both sides, ``(2, sentences)``.

        To open a direction as :meth:`load` does takes ten times as long, and there may be tens of thousands.
        """
        prefixes = self._check(direction)
        if prefixes is None:
            sizes = np.asarray(self._open(direction).sizes).T
        else:
            sizes = np.stack(self._loaded.task.data_manager.lengths(prefixes, "main"))
        self._check_lengths(direction, sizes)
        return sizes

    def _check_lengths(self, direction: Direction, sizes: np.ndarray) -> None:
        positions, tokens = self._loaded.max_positions, self._loaded.limits.max_tokens
        for language, lengths, limit in zip(direction, sizes, positions, strict=True):
            longest = lengths.max(initial=0)
            for most, remedy in (
                (limit, f"the model takes {limit}; shorten the sentence in the data"),
                (tokens, f"--max-tokens is {tokens}; give at least the length of the longest sentence"),
            ):
                if longest > most:
                    line = int(np.argmax(lengths > most))
                    label = f"{self.subset} data of {direction}, {language}, line {line + 1}"
                    raise UserError(f"{label}: {lengths[line]} tokens, but {remedy}")

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
            sizes = self._sizes(direction)
            sentences = sizes.shape[1]
            filled = [float(sizes.max(axis=0).sum()) / limits.max_tokens]
            if limits.batch_size is not None:
                filled.append(sentences / limits.batch_size)
            if self._batching == "direction" or (self._batching == "auto" and max(filled) >= 1):
                yield {direction: sentences}
                continue
            group[direction] = sentences
            batches += max(filled)
            if batches >= _BATCHES_IN_A_GROUP:
                yield group
                group, batches = {}, 0.0
        if group:
            yield group
