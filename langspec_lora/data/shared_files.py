"""Each real file of the binarised data is opened once, however many directions and splits link to it.

fairseq opens four files for each direction, and holds the lengths of both sides for each of them: twelve languages with
training and validation data meet the usual limit of 1,024 open files, and a hundred languages every limit.
"""

from __future__ import annotations

import os
import resource
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from fairseq.data import FairseqDataset, LanguagePairDataset, PrependTokenDataset
from fairseq.data.indexed_dataset import MMapIndexedDataset, data_file_path, index_file_path

from langspec_lora.data.lengths import Side

_MOST_LENGTHS = 1024
"""Files whose lengths are kept: those of all languages, where the directions into one follow each other."""


def raise_limit_of_open_files() -> int:
    """Raises this process's limit of open files to what the system allows without privileges, and returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS has no hard limit, and refuses to have no soft one
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return hard
    return soft


class SharedDatasets:
    """The datasets that some direction uses, by what they are made of."""

    def __init__(self) -> None:
        self._opened: WeakValueDictionary[tuple, Any] = WeakValueDictionary()
        self._prepended: WeakValueDictionary[tuple, Any] = WeakValueDictionary()
        self._lengths: OrderedDict[tuple, np.ndarray] = OrderedDict()

    def open(self, prefix: str, load: Callable[[], Any]) -> Any:
        """The dataset of one side.

        Args:
            prefix: path of the side, without ``.bin`` and ``.idx``.
            load: opens it.

        Returns:
            The dataset that was opened for another name of the same two files, or else what ``load`` returns.
        """
        key = _identity(prefix)
        dataset = self._opened.get(key)
        if dataset is None:
            dataset = load()
            if isinstance(dataset, MMapIndexedDataset):  # fairseq's other datasets keep what was read last
                self._opened[key] = dataset
        return dataset

    def prepend(self, dataset: FairseqDataset, prepended: FairseqDataset) -> FairseqDataset:
        """The same dataset with a language token before each sentence, made once for each dataset and token.

        Args:
            dataset: one side.
            prepended: a ``PrependTokenDataset`` of it, or the dataset itself.
        """
        if prepended is dataset:
            return dataset
        # While an entry is held, so is the dataset in it, and its id belongs to no other.
        return self._prepended.setdefault((id(dataset), prepended.token), prepended)

    def lengths(self, side: Side) -> np.ndarray:
        """Lengths of the sentences of one side, ``(sentences,)``; those of the files used last are kept."""
        key = (*_identity(side.prefix), side.added, side.cut_at)
        if key not in self._lengths:
            self._lengths[key] = side.lengths
            if len(self._lengths) > _MOST_LENGTHS:
                self._lengths.popitem(last=False)
        self._lengths.move_to_end(key)
        return self._lengths[key]


def _identity(prefix: str) -> tuple[int, ...]:
    """What tells the two files of a side from all others; empty if one is missing."""
    try:
        paths = (data_file_path(prefix), index_file_path(prefix))
        found = [os.stat(path) for path in paths]  # noqa: PTH116  a Path takes twice the time, and there are many
    except OSError:
        return ()
    return tuple(number for file in found for number in (file.st_dev, file.st_ino))


def share_lengths(direction: FairseqDataset) -> None:
    """Drops the copies of the lengths of both sides that a direction's dataset holds.

    Its ``sizes`` are gone; :func:`sizes_of` returns them.
    """
    if isinstance(direction, LanguagePairDataset) and direction.buckets is None and direction.tgt is not None:
        for side in ("src", "tgt"):
            if isinstance(dataset := getattr(direction, side), (PrependTokenDataset, MMapIndexedDataset)):
                setattr(direction, f"{side}_sizes", dataset.sizes)
        del direction.sizes


def sizes_of(direction: FairseqDataset) -> np.ndarray:
    """Lengths of both sides of a direction, ``(examples, 2)``, of one side ``(examples,)``."""
    if isinstance(direction, LanguagePairDataset) and not hasattr(direction, "sizes"):
        return np.stack((direction.src_sizes, direction.tgt_sizes), axis=1)
    return direction.sizes
