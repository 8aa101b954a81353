"""Copies of checkpoints are whole, or the target is as it was."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fairseq.file_io import PathManager

from langspec_lora.checkpoints.whole_copies import copy_whole, write_checkpoints_whole


def test_copy_is_whole_and_replaces_only_what_it_may(tmp_path) -> None:
    source, target = tmp_path / "a.pt", tmp_path / "b.pt"
    source.write_bytes(b"new")
    assert copy_whole(str(source), str(target)) is True
    assert target.read_bytes() == b"new"
    target.write_bytes(b"old")
    with pytest.raises(FileExistsError, match=r"b\.pt"):
        copy_whole(str(source), str(target))
    assert target.read_bytes() == b"old"
    assert copy_whole(str(source), str(target), overwrite=True) is True
    assert target.read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", "b.pt"]


def test_copy_that_breaks_off_leaves_the_target_as_it_was(tmp_path, monkeypatch) -> None:
    def copyfile(source: str, target: Path) -> None:
        assert target == tmp_path / "b.pt.tmp"
        target.write_bytes(b"ha")
        raise OSError(28, "No space left on device")

    (tmp_path / "b.pt").write_bytes(b"old")
    monkeypatch.setattr(shutil, "copyfile", copyfile)
    with pytest.raises(OSError, match="No space left"):
        copy_whole(str(tmp_path / "a.pt"), str(tmp_path / "b.pt"), overwrite=True)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("b.pt", b"old")]


def test_fairseq_copies_whole_on_the_local_disk_and_as_before_elsewhere(tmp_path, monkeypatch) -> None:
    calls = []

    def stock(source: str, target: str, overwrite: bool = False) -> str:
        calls.append((source, target, overwrite))
        return "stock"

    monkeypatch.setattr(PathManager, "copy", staticmethod(stock))
    write_checkpoints_whole()
    replaced = PathManager.copy
    write_checkpoints_whole()
    assert PathManager.copy is replaced
    (tmp_path / "a.pt").write_bytes(b"new")
    source, target = str(tmp_path / "a.pt"), str(tmp_path / "b.pt")
    assert PathManager.copy(source, target) is True
    with pytest.raises(FileExistsError):
        PathManager.copy(source, target)
    assert PathManager.copy(source, target, overwrite=True) is True
    assert not calls
    assert PathManager.copy("s3://a", target) == PathManager.copy(source, "s3://b", overwrite=True) == "stock"
    assert calls == [("s3://a", target, False), (source, "s3://b", True)]
