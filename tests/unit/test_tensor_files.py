"""Files of torch and of safetensors are whole, or it is said why they are not."""

from __future__ import annotations

import os
import stat

import pytest
import torch
from safetensors import SafetensorError, safe_open

from langspec_lora import tensor_files
from langspec_lora.errors import UserError
from langspec_lora.tensor_files import write_checkpoint, write_tensors


def test_error_that_torch_hides_is_told_in_one_short_line(tmp_path, monkeypatch) -> None:
    def save(state, path):
        path.write_bytes(b"half")
        raise RuntimeError("[enforce fail]\n  unexpected pos 64 vs 0" + " x" * 500)

    write_checkpoint({"a": torch.ones(2)}, tmp_path / "whole.pt")
    assert torch.equal(torch.load(tmp_path / "whole.pt")["a"], torch.ones(2))
    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(UserError) as refusal:
        write_checkpoint({}, tmp_path / "out.pt")
    message = str(refusal.value)
    assert message.startswith(f"{tmp_path / 'out.pt'} cannot be written: [enforce fail] unexpected pos 64 vs 0 x x")
    reason = message.partition("written: ")[2].partition(";")[0]
    assert len(reason) == 200
    assert [path.name for path in tmp_path.iterdir()] == ["whole.pt"]


def test_tensors_are_readable_for_whom_other_new_files_are(tmp_path) -> None:
    path = tmp_path / "a.safetensors"
    before = os.umask(0o027)
    try:
        write_tensors(path, {"a": torch.arange(6).view(2, 3).t()}, {"note": "x"})
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    with safe_open(str(path), framework="pt") as file:
        assert file.metadata() == {"format": "pt", "note": "x"}
        assert torch.equal(file.get_tensor("a"), torch.arange(6).view(2, 3).t())
    write_tensors(path, {"a": torch.ones(1)})
    with safe_open(str(path), framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_error_of_safetensors_is_one_of_the_system(tmp_path, monkeypatch) -> None:
    def fail(*args):
        raise SafetensorError("No space left on device (os error 28)")

    monkeypatch.setattr(tensor_files, "save_file", fail)
    with pytest.raises(OSError, match="No space left on device"):
        write_tensors(tmp_path / "a.safetensors", {})
