"""What a step of a study was made from: the files and folders whose content decides."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from langspec_lora.study.records import Contents, inputs
from langspec_lora.study.steps import Step


def step(kind: str, folder: Path, *command: object) -> Step:
    return Step("x", kind, [*map(str, command)], folder / "result", folder / "own")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name in ("data/dict.en.txt", "more/dict.en.txt", "logs/x", "a.yaml", "model.pt", "own/checkpoint_last.pt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def names(found: set[Path], folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in found}


def test_of_a_training_its_data_and_the_files_that_its_flags_name_count(files: Path) -> None:
    words = ["--levels", files / "a.yaml", f"--finetune-from-model={files}/model.pt", "--save-dir", files / "own"]
    words += [
        "--tensorboard-logdir",
        files / "logs",
        "--more",
        "two\nlines",
        "x" * 5000,
        "--resume",
        files / "own/checkpoint_last.pt",
    ]
    one = step("train", files, "fairseq-train", f"{files}/data:{files}/more", *words)
    assert names(inputs(one), files) == {"data", "more", "a.yaml", "model.pt"}
    late = step("train", files, "fairseq-train", *words, files / "data")
    assert names(inputs(late), files) == {"data", "a.yaml", "model.pt"}


def test_of_an_evaluation_likewise(files: Path) -> None:
    one = step(
        "test",
        files,
        "langspec-lora",
        "evaluate",
        files / "logs",
        "--checkpoint",
        files / "model.pt",
        "--out",
        files / "own",
    )
    assert names(inputs(one), files) == {"logs", "model.pt"}


def test_of_data_all_folders_count(files: Path) -> None:
    one = step(
        "data", files, "langspec-lora", "prepare", "--train", files / "logs", files / "data", "--out", files / "own"
    )
    assert names(inputs(one), files) == {"logs", "data"}


def test_of_a_report_the_scores_count(files: Path) -> None:
    (files / "logs" / "scores.json").write_text("{}")
    one = step(
        "report",
        files,
        "langspec-lora",
        "report",
        f"base={files}/logs",
        f"a={files}/data,{files}/logs",
        "--out",
        files / "own",
    )
    assert names(inputs(one), files) == {"logs/scores.json"}


def test_a_content_is_that_of_all_files_and_their_names(files: Path) -> None:
    def content() -> str:
        return Contents(files / "contents.json").of(files / "data")

    first = content()
    (files / "data" / "dict.en.txt").rename(files / "data" / "dict.nl.txt")
    assert content() != first
    (files / "data" / "dict.nl.txt").rename(files / "data" / "dict.en.txt")
    assert content() == first
    (files / "data" / "inner").mkdir()
    (files / "data" / "inner" / "empty").write_text("")
    assert content() != first


def test_a_file_that_has_not_changed_is_read_once(files: Path) -> None:
    path = files / "model.pt"
    contents = Contents(files / "contents.json")
    first = contents.of(path)
    contents.save()
    found = path.stat()
    path.write_text("other...")  # as many bytes, and as old as before
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert Contents(files / "contents.json").of(path) == first
    path.write_text("something else")
    assert Contents(files / "contents.json").of(path) != first
    (files / "contents.json").write_text("damaged")
    assert Contents(files / "contents.json").of(path) not in ("", first)
