"""Folders and files that appear whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from langspec_lora.errors import UserError
from langspec_lora.files import below, link_file, whole_files, whole_folder

NAMES = ("config.json", "model.bin", "vocab.json")


def write(folder, texts: dict[str, str], overwrite: bool = False) -> None:
    with whole_folder(folder, NAMES, overwrite) as partial:
        for name, text in texts.items():
            (partial / name).write_text(text)


def contents(folder) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_overwriting_leaves_no_file_of_an_earlier_export_and_every_file_of_others(tmp_path) -> None:
    folder = tmp_path / "out"
    write(folder, dict.fromkeys(NAMES, "old"))
    (folder / "notes.txt").write_text("mine")
    write(folder, {"config.json": "new", "model.bin": "new"}, overwrite=True)
    assert contents(folder) == {"config.json": "new", "model.bin": "new", "notes.txt": "mine"}
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_with_one_such_file_is_refused_and_kept(tmp_path, name) -> None:
    folder = tmp_path / "out"
    write(folder, {name: "old"})
    with pytest.raises(UserError, match=f"out already contains {name}; .*--overwrite"):
        write(folder, {"config.json": "new"})
    assert contents(folder) == {name: "old"}


@pytest.mark.parametrize("there", [True, False])
def test_an_export_that_fails_changes_nothing(tmp_path, there) -> None:
    folder = tmp_path / "out"
    if there:
        write(folder, dict.fromkeys(NAMES, "old"))

    def fail() -> None:
        with whole_folder(folder, NAMES, overwrite=True) as partial:
            (partial / "config.json").write_text("new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == ([folder] if there else [])
    assert not there or contents(folder) == dict.fromkeys(NAMES, "old")


def test_files_that_belong_together_appear_together(tmp_path) -> None:
    first, second = tmp_path / "new" / "a", tmp_path / "new" / "b"

    def write_one_of_two() -> None:
        with whole_files(first, second) as (one, _):
            one.write_text("a")

    with pytest.raises(UserError, match="a cannot be written"):
        write_one_of_two()
    assert not list((tmp_path / "new").iterdir())
    with whole_files(first, second) as partial:
        for path in partial:
            path.write_text(path.parent.name)
        assert not first.exists()
    assert contents(tmp_path / "new") == {"a": "new", "b": "new"}


@pytest.mark.parametrize("name", ["../x", "..", "a/../../x", "/etc/passwd", "", ".", "a\0b", "en/../x"])
def test_name_that_leads_out_of_its_folder_is_no_path(tmp_path, name) -> None:
    with pytest.raises(UserError, match="it leads out of") as refusal:
        below(tmp_path, name)
    assert str(refusal.value).isprintable()


def test_link_in_a_folder_may_lead_elsewhere(tmp_path) -> None:
    """As in the cache of Hugging Face, whose folders hold nothing but links."""
    (tmp_path / "blob").write_text("content")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to("../blob")
    assert below(tmp_path / "folder", "link").read_text() == "content"
    assert below(tmp_path, "folder/link") == tmp_path / "folder" / "link"


def test_a_link_is_relative_and_replaces_a_link_only(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / "made" / name).mkdir(parents=True)
        (tmp_path / "made" / name / "model.pt").write_text(name)
    link = tmp_path / "links" / "model.pt"
    for name in ("one", "two"):
        link_file(link, tmp_path / "made" / name / "model.pt")
        assert link.read_text() == name
    assert not link.readlink().is_absolute()
    mine = tmp_path / "links" / "mine.pt"
    mine.write_text("mine")
    link_file(mine, tmp_path / "made" / "one" / "model.pt")
    assert mine.read_text() == "mine"
    assert {path.name for path in (tmp_path / "links").iterdir()} == {"model.pt", "mine.pt"}
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        link_file(tmp_path / "file" / "x", link)
