"""Sampled data in less memory: the same examples in the same batches as fairseq's own classes make."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary, LanguagePairDataset, ListDataset, data_utils
from fairseq.data.multilingual.sampled_multi_dataset import SampledMultiDataset
from fairseq.data.multilingual.sampled_multi_epoch_dataset import SampledMultiEpochDataset

from langspec_lora.data import sampled
from langspec_lora.data.language_ids import LanguageIdDataset
from langspec_lora.data.sampled import compact

STOCK = {"all": (SampledMultiDataset, {}), "virtual": (SampledMultiEpochDataset, {"virtual_epoch_size": 100})}


def directions(longest: int = 30) -> OrderedDict:
    """Directions of various sizes, with random lengths."""
    dictionary, draw = Dictionary(), np.random.RandomState(3)
    found = OrderedDict()
    for number, count in enumerate((40, 7, 90, 60)):
        sides = [
            ListDataset([torch.ones(length, dtype=torch.long) for length in lengths], lengths)
            for lengths in (draw.randint(1, 30, count) for _ in range(2))
        ]
        sides[0].sizes[0] = longest
        (source, target) = sides
        pair = LanguagePairDataset(source, source.sizes, dictionary, target, target.sizes, dictionary)
        found[f"main:{number}"] = LanguageIdDataset(pair, number, number + 1)
    return found


def batches(dataset, epoch: int) -> list[list[int]]:
    dataset.set_epoch(epoch)
    with data_utils.numpy_seed(1):
        indices = dataset.ordered_indices()
    indices, _ = dataset.filter_indices_by_size(indices, (28, 28))
    found = dataset.batch_by_size(indices, max_tokens=120, required_batch_size_multiple=4)
    return [batch.tolist() for batch in found]


@pytest.mark.parametrize("kind", STOCK)
@pytest.mark.parametrize("ratios", [None, [0.1, 0.4, 0.3, 0.2]])
def test_the_same_examples_come_in_the_same_batches_as_from_fairseq(kind, ratios) -> None:
    stock_class, more = STOCK[kind]
    made = [stock_class(directions(), sampling_ratios=ratios, shared_collater=True, **more) for _ in range(2)]
    stock, ours = made[0], compact(made[1])
    assert type(ours) is not stock_class
    assert isinstance(ours, stock_class)
    for epoch in (1, 2, 3, 4, 7):
        expected = batches(stock, epoch)
        assert batches(ours, epoch) == expected
        for batch in expected[::5]:
            pairs = [(stock[index], ours[index]) for index in batch]
            assert all(a[0] == b[0] and a[1]["id"] == b[1]["id"] for a, b in pairs)
            collated = [dataset.collater([dataset[index] for index in batch]) for dataset in (stock, ours)]
            assert torch.equal(collated[0]["id"], collated[1]["id"])
            assert collated[0]["id"].dtype == collated[1]["id"].dtype == torch.int64
        assert all(stock.num_tokens(index) == ours.num_tokens(index) for index in range(0, len(stock), 9))


@pytest.mark.parametrize("kind", STOCK)
def test_an_example_takes_eight_bytes_and_not_sixteen(kind) -> None:
    stock_class, more = STOCK[kind]
    ours = compact(stock_class(directions(), sampling_ratios=[0.25] * 4, shared_collater=True, **more))
    for epoch in range(1, 6):  # of four virtual epochs
        ours.set_epoch(epoch)
        assert (ours.sizes.dtype, ours._cur_indices.dtype) == (np.uint16, np.int32)
        assert getattr(ours, "_random_global_indices", ours._cur_indices).dtype == np.int32


@pytest.mark.parametrize(("longest", "dtype"), [(65_535, np.uint16), (65_536, np.int64)])
def test_lengths_that_16_bits_do_not_hold_are_left_as_they_are(longest, dtype) -> None:
    ours = compact(SampledMultiDataset(directions(longest), sampling_ratios=None, shared_collater=True))
    assert (ours.sizes.max(), ours.sizes.dtype) == (longest, dtype)


def test_other_data_are_left_as_they_are() -> None:
    dataset = directions()["main:0"]
    assert compact(dataset) is dataset
    assert type(dataset) is LanguageIdDataset


def test_the_classes_are_named_as_fairseq_s_whose_names_seed_the_drawing() -> None:
    assert sampled.SampledMultiDataset.__name__ == SampledMultiDataset.__name__
    assert sampled.SampledMultiEpochDataset.__name__ == SampledMultiEpochDataset.__name__
