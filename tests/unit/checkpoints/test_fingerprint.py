"""The short name of a base model, held against SHA-256 sums of its entries' bytes."""

from __future__ import annotations

import hashlib

import pytest
import torch
from torch import Tensor

from langspec_lora.checkpoints.fingerprint import base_fingerprint, check_same_base
from langspec_lora.errors import UserError


def by_hand(entries: dict[str, Tensor]) -> str:
    """From the bytes that NumPy gives of each entry."""
    text = ""
    for name in sorted(entries):
        value = entries[name].numpy()
        text += f"{name} {value.shape} {value.dtype} {hashlib.sha256(value.tobytes()).hexdigest()}\n"
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


ENTRIES = {
    "encoder.layers.0.fc1.weight": torch.arange(12.0).view(3, 4),
    "a.transposed": torch.arange(12.0).view(3, 4).t(),
    "b.whole": torch.tensor([2**40, -1]),
    "c.flag": torch.tensor([True, False]),
    "d.single": torch.tensor(2.5, dtype=torch.float64),
    "e.empty": torch.zeros(2, 0, 3),
    "f.empty": torch.zeros(0, dtype=torch.int64),
}


def test_fingerprint_is_of_names_shapes_types_and_bytes() -> None:
    assert base_fingerprint(ENTRIES) == by_hand(ENTRIES)
    assert base_fingerprint(dict(reversed(ENTRIES.items()))) == by_hand(ENTRIES)
    assert base_fingerprint({}) == by_hand({})


def test_long_entry_is_read_to_its_end() -> None:
    long = torch.zeros(2**22 + 2**20 + 3)  # more bytes than are read at a time
    long[-1] = 1
    assert base_fingerprint({"x": long}) == by_hand({"x": long})


def test_what_fairseq_adds_on_the_way_does_not_count() -> None:
    added = {
        "adapters.manifest": torch.ones(3),
        "decoder.layers.0.fc1.lora_A": torch.ones(3),
        "encoder.layers.0.fc1_weight": torch.ones(3),
        "encoder.embed_positions._float_tensor": torch.ones(1),
        "decoder.version": torch.ones(1),
    }
    assert base_fingerprint({**ENTRIES, **added}) == by_hand(ENTRIES)
    counted = {"encoder.version.weight": torch.ones(1), "float_tensor": torch.ones(1)}
    assert base_fingerprint({**ENTRIES, **counted}) == by_hand({**ENTRIES, **counted})


def test_output_projection_counts_unless_it_repeats_the_embedding() -> None:
    embedding, projection = "decoder.embed_tokens.weight", "decoder.output_projection.weight"
    weight, other = torch.ones(4, 3), torch.zeros(4, 3)
    assert base_fingerprint({embedding: weight, projection: weight.clone()}) == by_hand({embedding: weight})
    for entries in ({embedding: weight, projection: other}, {projection: weight}, {embedding: weight}):
        assert base_fingerprint(entries) == by_hand(entries)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_counts_as_the_same_numbers_in_single_precision(half) -> None:
    value = torch.tensor([1.5, 0.1, -3.0])
    rounded = value.to(half).float()
    assert not torch.equal(value, rounded)
    other = {"counts": torch.tensor([3])}
    wide = {"x": value.double(), **other}
    assert base_fingerprint({"x": value.to(half), **other}) == by_hand({"x": rounded, **other})
    assert base_fingerprint({"x": value, **other}) == by_hand({"x": value, **other})
    assert base_fingerprint({"x": value, **other}, half) == by_hand({"x": rounded, **other})
    assert base_fingerprint(wide) == by_hand(wide)


def test_views_of_one_memory_count_by_what_they_show() -> None:
    values = torch.arange(16.0)
    views = {
        "a": values.view(4, 4), "b": values.view(4, 4).t(), "c": values[:4], "d": values.view(torch.int32)[:4],
        "e": values.view(4, 4)[:, 0], "f": values.view(2, 8),
    }  # fmt: skip
    assert base_fingerprint(views) == by_hand({name: value.clone() for name, value in views.items()})


def test_parameters_are_read_too() -> None:
    assert base_fingerprint({"x": torch.nn.Parameter(torch.ones(2))}) == by_hand({"x": torch.ones(2)})


def test_another_base_is_named_with_twelve_digits() -> None:
    held, wanted = "sha256:" + "0123456789abcdef" * 4, "sha256:" + "fedcba9876543210" * 4
    check_same_base(held, held, "x", "y")
    with pytest.raises(UserError) as refusal:
        check_same_base(held, wanted, "x", "y")
    assert str(refusal.value) == (
        "x is not the base model of y (fingerprint 0123456789ab, expected fedcba987654); give the checkpoint that "
        "the training started from"
    )
