"""Decoding of many directions of a binarised folder with one loaded model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.inference.loaded import LoadedModel
from langspec_lora.inference.settings import MAX_TOKENS, Generation, Model

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
        batching: ``direction``: the batches are those of ``fairseq-generate``, and the pairs of each direction are
            merged into the weights. ``mixed``: directions share batches. ``auto``: those do that fill no batch.

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
        batching: str = "auto",
    ) -> None:
        self.subset, self.data_bin = subset, data_bin
        self._batching = "direction" if generation.depends_on_batch else batching
        self._loaded = LoadedModel(model, generation, directions, max_tokens, batch_size)

    @property
    def has_pairs(self) -> bool:
        """Whether the checkpoint has language-specific pairs."""
        return self._loaded.has_pairs

    def load(self, direction: Direction) -> FairseqDataset:
        """Opens the data of one direction.

        Raises:
            UserError: the data are missing, damaged or of another dictionary, or a sentence is longer than the model
                can take, or than a batch may be.
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
        positions, tokens = self._loaded.max_positions, self._loaded.max_tokens
        for side, sizes, limit in zip(direction, np.asarray(dataset.sizes).T, positions, strict=True):
            for most, remedy in (
                (limit, f"the model takes {limit}; shorten the sentence in the data"),
                (tokens, f"--max-tokens is {tokens}; give at least the length of the longest sentence"),
            ):
                too_long = np.flatnonzero(sizes > most)
                if len(too_long):
                    place = f"{self.subset} data of {direction}, {side}, line {too_long[0] + 1}"
                    raise UserError(f"{place}: {sizes[too_long[0]]} tokens, but {remedy}")
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
            datasets, merge = list(group.items()), len(group) == 1
            yield from zip(group, self._loaded.decode(datasets, merge, progress), strict=True)

    def _groups(self, directions: Sequence[Direction]) -> Iterator[dict[Direction, FairseqDataset]]:
        """The data of those directions that share batches, one group after the other."""
        group, batches = {}, 0.0
        for direction in directions:
            dataset = self.load(direction)
            own = self._batches_of(dataset)
            if self._batching == "direction" or (self._batching == "auto" and own >= 1):
                yield {direction: dataset}
                continue
            group[direction] = dataset
            batches += own
            if batches >= _BATCHES_IN_A_GROUP:
                yield group
                group, batches = {}, 0.0
        if group:
            yield group

    def _batches_of(self, dataset: FairseqDataset) -> float:
        """About how many batches a direction fills by itself."""
        filled = [float(np.asarray(dataset.sizes).max(axis=1).sum()) / self._loaded.max_tokens]
        if self._loaded.batch_size is not None:
            filled.append(len(dataset) / self._loaded.batch_size)
        return max(filled)
