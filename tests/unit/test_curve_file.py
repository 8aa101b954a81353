"""The curve file: what a restart keeps, and what a kill or a full disk leaves."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from langspec_lora.curve_file import EPOCH, VALIDATION, CurveFile, curve_file_name, read_curves
from langspec_lora.errors import UserError


def line(kind: str, epoch: int, updates: int, **more) -> dict:
    return {"kind": kind, "epoch": epoch, "updates": updates, **more}


def three_epochs(path: Path, run: str = "a", updates: int = 0) -> CurveFile:
    file = CurveFile(path, run, updates, {"languages": {"wo": "low"}})
    for epoch in (1, 2, 3):
        file.add(line(VALIDATION, epoch, 10 * epoch, subset="valid", loss=5.0 - epoch))
        file.add(line(EPOCH, epoch, 10 * epoch, loss=6.0 - epoch))
    return file


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / curve_file_name()


def test_lines_are_read_as_they_were_written(path) -> None:
    three_epochs(path)
    curves = read_curves(path)
    assert curves.training["languages"] == {"wo": "low"}
    assert [found["loss"] for found in curves.epochs] == [5.0, 4.0, 3.0]
    assert [found["loss"] for found in curves.validations] == [4.0, 3.0, 2.0]
    assert not curves.damaged


def test_continuing_from_an_earlier_checkpoint_removes_later_lines_and_writes_them_again(path, caplog) -> None:
    three_epochs(path)
    before = path.read_text()
    caplog.set_level("INFO")
    three_epochs(path, updates=10)  # its first epoch is in the file already
    assert path.read_text() == before
    assert "4 lines" in caplog.text
    assert "after update 10 removed" in caplog.text
    assert len(list(path.parent.iterdir())) == 1


def test_a_line_for_the_same_epoch_and_update_is_written_once(path) -> None:
    file = three_epochs(path)
    before = path.read_text()
    file.add(line(EPOCH, 3, 30, loss=99.0))
    assert path.read_text() == before
    file.add(line(VALIDATION, 3, 30, subset="valid1", loss=1.0))
    assert len(read_curves(path).validations) == 4


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_line_that_a_kill_cut_off_is_not_read_and_goes_with_the_next_start(path, cut) -> None:
    three_epochs(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert [found["epoch"] for found in read_curves(path).epochs] == [1, 2]
    three_epochs(path, updates=30)
    assert path.read_bytes() == whole


def test_another_training_in_the_folder_keeps_the_first_ones_file(path) -> None:
    three_epochs(path)
    first = path.read_bytes()
    three_epochs(path, run="b")
    three_epochs(path, run="c")
    assert (path.parent / "curves-1.jsonl").read_bytes() == first
    assert read_curves(path.parent / "curves-2.jsonl").training["run"] == "b"
    assert read_curves(path).training["run"] == "c"
    assert len(read_curves(path).epochs) == 3


@pytest.mark.parametrize("content", [b"", b"no JSON\n", b'{"kind":"training","format":2}\n', b"\xff\n", b"[1]\n"])
def test_a_file_that_is_none_of_curves_is_refused_and_never_overwritten(path, content) -> None:
    path.write_bytes(content)
    with pytest.raises(UserError, match="does not start as a file of curves"):
        read_curves(path)
    three_epochs(path)
    assert (path.parent / "curves-1.jsonl").read_bytes() == content
    assert len(read_curves(path).epochs) == 3


@pytest.mark.parametrize("damage", ["{", '{"kind":"epoch"}', '{"kind":"epoch","epoch":1,"updates":"9"}', "[]", "7"])
def test_damaged_lines_are_counted_and_the_others_read(path, damage) -> None:
    three_epochs(path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:3], damage + "\n", *lines[3:]]))
    curves = read_curves(path)
    assert curves.damaged == 1
    assert len(curves.epochs) == len(curves.validations) == 3


def test_numbers_that_json_does_not_have_become_null(path) -> None:
    CurveFile(path, "a", 0, {}).add(line(EPOCH, 1, 1, loss=float("nan"), by={"wo": [float("inf")]}))
    last = json.loads(path.read_text().splitlines()[-1], parse_constant=pytest.fail)
    assert (last["loss"], last["by"]) == (None, {"wo": [None]})


def test_a_disk_that_fails_is_told_once_and_the_next_line_is_whole(path, caplog, monkeypatch) -> None:
    file = three_epochs(path)
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
        file.add(line(EPOCH, 4, 40))
        file.add(line(EPOCH, 5, 50))
    file.add(line(EPOCH, 6, 60))
    assert caplog.text.count("cannot be written") == 1
    assert "the training goes on" in caplog.text
    assert [found["epoch"] for found in read_curves(path).epochs] == [1, 2, 3, 6]


def test_a_folder_that_cannot_be_written_ends_nothing(tmp_path, caplog) -> None:
    (tmp_path / "file").write_text("")
    three_epochs(tmp_path / "file" / "curves.jsonl")
    assert caplog.text.count("cannot be written") == 1
