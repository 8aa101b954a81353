"""The file of the scores of resamples: what was added comes back, damage is noticed, a full disk costs nothing."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from langspec_lora.errors import UserError
from langspec_lora.report import vector_file
from langspec_lora.report.vector_file import VectorFile

KEYS = [f"{number:032x}" for number in range(1, 5)]
VECTORS = [np.arange(start, start + 5) / 7 for start in range(4)]


def written(path: Path, numbers: range) -> VectorFile:
    file = VectorFile(path)
    for number in numbers:
        file.add(KEYS[number], VECTORS[number])
    file.save()
    return file


def held(path: Path) -> list[int]:
    """The vectors that another process finds, whose values are right."""
    file = VectorFile(path)
    found = [number for number, key in enumerate(KEYS) if key in file]
    for number in found:
        assert file[KEYS[number]].tolist() == VECTORS[number].astype(np.float32).tolist()
    return found


def test_what_was_added_is_there_before_and_after_it_is_saved(tmp_path) -> None:
    file = VectorFile(tmp_path / "vectors")
    file.add(KEYS[0], VECTORS[0])
    assert file[KEYS[0]].tolist() == VECTORS[0].astype(np.float32).tolist()
    assert not (tmp_path / "vectors").exists()
    file.save()
    assert file[KEYS[0]].tolist() == VECTORS[0].astype(np.float32).tolist()
    written(tmp_path / "vectors", range(1, 3))
    assert held(tmp_path / "vectors") == [0, 1, 2]
    assert KEYS[1] not in file


def test_two_reports_at_a_time_keep_what_both_have_added(tmp_path) -> None:
    one, other = VectorFile(tmp_path / "vectors"), VectorFile(tmp_path / "vectors")
    one.add(KEYS[0], VECTORS[0])
    one.save()
    again = VectorFile(tmp_path / "vectors")
    one.add(KEYS[1], VECTORS[1])
    again.add(KEYS[2], VECTORS[2])
    again.save()
    one.save()
    assert held(tmp_path / "vectors") == [0, 1, 2]
    assert again[KEYS[2]].tolist() == VECTORS[2].astype(np.float32).tolist()
    assert one[KEYS[1]].tolist() == VECTORS[1].astype(np.float32).tolist()
    del other


def test_a_flipped_bit_never_becomes_a_figure(tmp_path) -> None:
    path = tmp_path / "vectors"
    written(path, range(3))
    whole = path.read_bytes()
    record = (len(whole) - 26) // 3
    for bit in range(0, 8 * len(whole), 3):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        assert held(path) == list(range(max(0, bit // 8 - 26) // record) if bit // 8 >= 26 else [])


@pytest.mark.parametrize("cut", [1, 30, 60, 100])
def test_what_follows_the_last_whole_record_is_written_over(tmp_path, cut) -> None:
    path = tmp_path / "vectors"
    written(path, range(3))
    path.write_bytes(path.read_bytes()[:-cut])
    before = held(path)
    assert 2 not in before
    written(path, range(3, 4))
    assert held(path) == [*before, 3]


def test_a_full_disk_is_remembered_and_leaves_the_file_whole(tmp_path, monkeypatch) -> None:
    path = tmp_path / "vectors"
    written(path, range(1))
    whole = path.read_bytes()
    opened = Path.open

    def open_full(own: Path, mode: str, **more) -> object:
        file = opened(own, mode, **more)
        return Full(file) if "a" in mode else file

    class Full:
        def __init__(self, file) -> None:
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *words) -> None:
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, content) -> int:
            self.file.write(content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_full)
        for where in (path, tmp_path / "new"):
            file = written(where, range(1, 3))
            assert file.trouble == f"{where}: No space left on device"
            assert file[KEYS[1]].tolist() == VECTORS[1].astype(np.float32).tolist()
    assert path.read_bytes() == whole
    assert not (tmp_path / "new").exists()
    file.save()
    assert (file.trouble, held(tmp_path / "new")) == ("", [1, 2])


def test_a_file_that_changes_while_it_is_read_is_not_believed(tmp_path) -> None:
    file = written(tmp_path / "vectors", range(2))
    (tmp_path / "vectors").write_bytes((tmp_path / "vectors").read_bytes()[:-1] + b"x")
    assert len(file[KEYS[0]]) == 5
    with pytest.raises(UserError, match="vectors was changed while it was read; run the command again"):
        file[KEYS[1]]
    (tmp_path / "vectors").unlink()
    with pytest.raises(UserError, match="was changed"):
        file[KEYS[0]]


def test_many_vectors_are_saved_on_the_way(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(vector_file, "_UNSAVED_AT_MOST", 100)
    file = VectorFile(tmp_path / "vectors")
    for key, vector in zip(KEYS, VECTORS, strict=True):
        file.add(key, vector)
    assert held(tmp_path / "vectors") == [0, 1, 2]
