"""Checkpoints without their base: what they hold instead, and how the base is found again."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from langspec_lora.checkpoints.base_location import stored_base_path
from langspec_lora.checkpoints.fingerprint import base_fingerprint
from langspec_lora.checkpoints.left_out_base import (
    BaseFile,
    base_entry,
    fill_base,
    outline_with_base,
    stated_base,
    without_base,
)
from langspec_lora.checkpoints.outline import read_outline
from langspec_lora.errors import UserError

FINGERPRINT = "sha256:" + "0123456789abcdef" * 4
WEIGHTS = {"encoder.embed_tokens.weight": torch.arange(6.0).view(2, 3), "encoder.layers.0.fc1_weight": torch.ones(2)}
PAIRS = {"adapters.mask_epoch": torch.tensor([1]), "encoder.layers.0.fc1.lora_A": torch.ones(2, 3)}


def save(path: Path, model: dict[str, torch.Tensor], **args: object) -> str:
    torch.save({"model": model, "args": Namespace(**args)}, path)
    return str(path)


def test_the_fingerprint_replaces_the_base_and_consists_of_integers() -> None:
    state = without_base({**WEIGHTS, **PAIRS}, FINGERPRINT)
    assert state.keys() == {*PAIRS, "adapters.base"}
    assert all(state[name] is PAIRS[name] for name in PAIRS)
    assert state["adapters.base"].dtype == torch.int64
    assert bytes(state["adapters.base"].tolist()) == FINGERPRINT.encode()
    assert stated_base(state) == FINGERPRINT
    assert stated_base(PAIRS) is None


@pytest.mark.parametrize("value", [[300], [-1], [0.5], [200, 201], 3, 2**50, [*b"md5:abc"], []])
def test_damaged_fingerprint_is_named(value) -> None:
    with pytest.raises(UserError, match=r"adapters\.base is damaged \(.*; download the file again"):
        stated_base({"adapters.base": torch.tensor(value)})


def test_file_of_a_base_has_changed_when_it_is_written_to_replaced_or_removed(tmp_path) -> None:
    path = tmp_path / "base.pt"
    path.write_bytes(b"1234")
    os.utime(path, ns=(10, 10))
    for change in (
        lambda: path.write_bytes(b"12345"),
        lambda: os.utime(path, ns=(10, 11)),
        lambda: path.unlink(),
    ):
        file = BaseFile(str(path))
        assert not file.has_changed()
        change()
        assert file.has_changed()
    gone = BaseFile(str(path))
    assert not gone.has_changed()
    assert not BaseFile("x" * 5000).has_changed()
    path.write_bytes(b"1234")
    assert gone.has_changed()


def test_longer_file_of_the_same_time_has_changed(tmp_path) -> None:
    path = tmp_path / "base.pt"
    path.write_bytes(b"1234")
    os.utime(path, ns=(10, 10))
    file = BaseFile(str(path))
    path.write_bytes(b"12345")
    os.utime(path, ns=(10, 10))
    assert file.has_changed()


def test_base_is_filled_in_where_it_is_the_stated_one(tmp_path) -> None:
    path = save(tmp_path / "base.pt", {**WEIGHTS, **PAIRS})
    state = {**PAIRS, **base_entry(base_fingerprint(WEIGHTS))}
    fill_base(state, path, "here")
    assert state.keys() == {*PAIRS, "encoder.embed_tokens.weight"}  # neither the fingerprint nor the copy of a weight
    assert torch.equal(state["encoder.embed_tokens.weight"], WEIGHTS["encoder.embed_tokens.weight"])
    whole = dict(state)
    fill_base(whole, None)
    assert whole.keys() == state.keys()


def test_base_that_is_another_or_none_or_not_there_is_named(tmp_path) -> None:
    state = {**PAIRS, **base_entry(FINGERPRINT)}
    other = save(tmp_path / "other.pt", WEIGHTS)
    with pytest.raises(
        UserError, match=rf"^checkpoint {other} is not the base model of here \(fingerprint .*, expected 01234567"
    ):
        fill_base(state, other, "here")
    lean = save(tmp_path / "lean.pt", state)
    with pytest.raises(UserError, match=f"^{lean} holds adapters only and cannot be the base of here; give the base"):
        fill_base(state, lean, "here")
    for path, named in ((None, ""), ("", ""), (str(tmp_path), f" {tmp_path}"), ("a\0b", " a\0b"), ("no.pt", " no.pt")):
        with pytest.raises(UserError) as refusal:
            fill_base(state, path, "here")
        assert str(refusal.value) == (
            f"here holds adapters only, and its base{named} was not found; give the model that the training started "
            "from as --base-checkpoint"
        )
    assert "adapters.base" in state


def test_outline_of_a_checkpoint_takes_in_that_of_its_base(tmp_path) -> None:
    base = save(tmp_path / "base.pt", {**WEIGHTS, "encoder.layers.0.fc1.lora_A": torch.ones(9, 9)})
    moved = save(tmp_path / "moved.pt", {"encoder.embed_tokens.weight": torch.ones(5, 3)})
    path = save(tmp_path / "lean.pt", {**PAIRS, **base_entry(FINGERPRINT)}, base_checkpoint=base)
    own = {"adapters.mask_epoch": (1,), "encoder.layers.0.fc1.lora_A": (2, 3), "adapters.base": (71,)}
    lean = read_outline(path)
    assert outline_with_base(lean).shapes == {**own, "encoder.embed_tokens.weight": (2, 3)}
    assert outline_with_base(lean, moved).shapes == {**own, "encoder.embed_tokens.weight": (5, 3)}
    assert outline_with_base(lean).model_args.base_checkpoint == base
    whole = read_outline(base)
    assert outline_with_base(whole, "nowhere.pt") is whole
    lost = read_outline(save(tmp_path / "lost.pt", {**PAIRS, **base_entry(FINGERPRINT)}))
    with pytest.raises(
        UserError, match=f"^checkpoint {tmp_path / 'lost.pt'} holds adapters only, and its base was not"
    ):
        outline_with_base(lost)


def test_path_of_a_base_is_a_text_or_none() -> None:
    assert stored_base_path(Namespace(base_checkpoint="a.pt")) == "a.pt"
    for args in (None, Namespace(), Namespace(base_checkpoint=None), Namespace(base_checkpoint=3)):
        assert stored_base_path(args) is None
