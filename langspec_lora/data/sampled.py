"""fairseq's sampled training data with less memory for each example: tens of millions of them fit beside a model."""

from __future__ import annotations

from typing import Any

import numpy as np
from fairseq.data.multilingual import sampled_multi_dataset, sampled_multi_epoch_dataset

# fairseq draws examples with a seed that is made from the name of the class, so the names must be fairseq's. What both
# classes have in common is in functions: an object can take only a class that inherits from its own and nothing else.


class SampledMultiDataset(sampled_multi_dataset.SampledMultiDataset):
    """fairseq's class; it draws, sorts and batches the same."""

    _cur_indices: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """Lengths of source and target, ``(examples, 2)``."""
        self._sizes = _in_16_bits(super().sizes)
        return self._sizes

    def _establish_virtual_datasets(self) -> None:
        super()._establish_virtual_datasets()
        self._cur_indices = _in_32_bits(self._cur_indices)

    def _get_dataset_and_index(self, index: int) -> tuple[int, int]:
        dataset, example = super()._get_dataset_and_index(index)
        return dataset, int(example)  # the ids of a batch take their type from it


class SampledMultiEpochDataset(sampled_multi_epoch_dataset.SampledMultiEpochDataset):
    """fairseq's class for ``--virtual-epoch-size``; it draws, sorts and batches the same."""

    _cur_indices: np.ndarray
    _random_global_indices: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """Lengths of source and target of the examples of a virtual epoch, ``(examples, 2)``."""
        self._epoch_sizes = _in_16_bits(super().sizes)
        return self._epoch_sizes

    def _establish_virtual_datasets(self) -> None:
        super()._establish_virtual_datasets()
        self._cur_indices = _in_32_bits(self._cur_indices)

    def _next_global_indices(self, epoch: int) -> None:
        super()._next_global_indices(epoch)
        self._random_global_indices = _in_32_bits(self._random_global_indices)

    def _get_dataset_and_index(self, index: int) -> tuple[int, int]:
        dataset, example = super()._get_dataset_and_index(index)
        return dataset, int(example)  # the ids of a batch take their type from it


def compact(dataset: Any) -> Any:
    """Turns fairseq's sampled data into one of the classes above, in place; returns what it was given."""
    if type(dataset) is sampled_multi_dataset.SampledMultiDataset:
        dataset.__class__ = SampledMultiDataset
    elif type(dataset) is sampled_multi_epoch_dataset.SampledMultiEpochDataset:
        dataset.__class__ = SampledMultiEpochDataset
        dataset._random_global_indices = _in_32_bits(dataset._random_global_indices)
    else:
        return dataset
    dataset._cur_indices = _in_32_bits(dataset._cur_indices)
    return dataset


def _in_16_bits(sizes: np.ndarray) -> np.ndarray:
    """Lengths in half the memory, and of a type that NumPy sorts in linear time, unless one is too long for that."""
    if sizes.dtype == np.uint16 or not sizes.size or sizes.max() > np.iinfo(np.uint16).max:
        return sizes
    return sizes.astype(np.uint16)


def _in_32_bits(indices: Any) -> np.ndarray:
    """Indices in half the memory, unless one is too high for that."""
    indices = np.asarray(indices)
    if indices.dtype == np.int32 or not len(indices) or indices.max() > np.iinfo(np.int32).max:
        return indices
    return indices.astype(np.int32)
