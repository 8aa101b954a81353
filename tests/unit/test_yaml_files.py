"""YAML that a person writes: text stays text, and nothing is dropped."""

from __future__ import annotations

from pathlib import Path

import pytest

from langspec_lora.errors import UserError
from langspec_lora.yaml_files import read_yaml


def read(folder: Path, text: str | bytes) -> object:
    (folder / "file.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_yaml(folder / "file.yaml", "the file", "things")


def test_values_stay_as_they_are_written(tmp_path: Path) -> None:
    found = read(tmp_path, "no: yes\nrates: [1e-3, 0.10, null]\nempty:\ninner: {on: off}")
    assert found == {"no": "yes", "rates": ["1e-3", "0.10", "null"], "empty": "", "inner": {"on": "off"}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", "the file: the key 'a' is given twice"),
        ("x: {a: 1, a: 2}", "the file: the key 'a' is given twice"),
        ("a: [", "the file is not valid YAML"),
        (b"\xff\xfe\xfa", "the file is not valid YAML"),
        ("a: !!python/object:os.system {}", None),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, text: str | bytes, message: str | None) -> None:
    if message is None:
        assert read(tmp_path, text) == {"a": {}}  # no tag makes an object
        return
    with pytest.raises(UserError, match=message):
        read(tmp_path, text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the file: No such file or directory; give a YAML file of things"):
        read_yaml(tmp_path / "none", "the file", "things")
