"""Which files are text of which languages and split, and what bad files get."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from langspec_lora.data.own_text.columns import Columns
from langspec_lora.data.own_text.text_files import find_text
from langspec_lora.errors import UserError
from tests.unit.data.own_text.corpora import write_lines, write_tsv


def put(folder: Path, *names: str) -> Path:
    for name in names:
        write_lines(folder / name, ["one line", "two lines"])
    return folder


def found(folder: Path, split: str = "train", **how) -> list[tuple[str, ...]]:
    """The languages of each text, with the files."""
    texts = find_text({split: (folder,)}, **how).texts[split]
    return [tuple(f"{column.language}={column.path.name}" for column in text.columns) for text in texts]


def test_names_of_files_say_what_belongs_together(tmp_path) -> None:
    put(tmp_path, "en-fr.en", "en-fr.fr.gz", "news.v2.de-en.en", "news.v2.de-en.de", "bible.en", "bible.wo", "bible.de")
    put(tmp_path, "README.md", "notes.txt", "alone.en", ".hidden.en")
    (tmp_path / "folder.en").mkdir()
    assert found(tmp_path) == [
        ("en=en-fr.en", "fr=en-fr.fr.gz"),
        ("de=news.v2.de-en.de", "en=news.v2.de-en.en"),
        ("de=bible.de", "en=bible.en", "wo=bible.wo"),
    ]
    assert find_text({"train": (tmp_path,)}).notes == [f"{tmp_path}: not used: README.md, alone.en, notes.txt"]


def test_one_folder_can_hold_all_splits(tmp_path) -> None:
    put(tmp_path, *(f"{name}.{end}" for name in ("train.en-fr", "news.en-fr", "test.en-fr") for end in ("en", "fr")))
    put(tmp_path, "dev.en", "dev.fr", "dev.wo")
    assert found(tmp_path) == [("en=news.en-fr.en", "fr=news.en-fr.fr"), ("en=train.en-fr.en", "fr=train.en-fr.fr")]
    assert found(tmp_path, "valid") == [("en=dev.en", "fr=dev.fr", "wo=dev.wo")]
    assert found(tmp_path, "test") == [("en=test.en-fr.en", "fr=test.en-fr.fr")]
    assert "5 files of other splits" in find_text({"train": (tmp_path,)}).notes[0]


def test_training_text_never_becomes_held_out_by_the_folder_alone(tmp_path) -> None:
    put(tmp_path, "train.en", "train.fr")
    with pytest.raises(UserError, match=r"--test .* names of its files say that they are train text"):
        find_text({"test": (tmp_path,)})


def test_flores_files_and_codes(tmp_path) -> None:
    put(tmp_path, "eng.dev", "fra.dev", "wol.dev")
    codes = {"eng": "en", "wol": "wo", "en": "en", "wo": "wo"}
    assert found(tmp_path, names=codes, order=["wo", "en"]) == [("wo=wol.dev", "en=eng.dev")]


def test_columns_of_tables(tmp_path) -> None:
    write_tsv(tmp_path / "en-fr.tsv", [("a", "b")])
    write_tsv(tmp_path / "wo-en.tsv", [("0.5", "b", "c")], ("score", "en", "wo"))
    write_tsv(tmp_path / "all.tsv", [("a", "b", "c")], ("fr", "en", "wo"))
    texts = find_text({"train": (tmp_path,)}).texts["train"]
    assert [[(c.language, c.number) for c in text.columns] for text in texts] == [
        [("en", 1), ("fr", 0), ("wo", 2)],
        [("en", 0), ("fr", 1)],
        [("en", 1), ("wo", 2)],
    ]
    assert [text.header for text in texts] == [True, False, True]


def test_a_name_that_leads_elsewhere_is_refused(tmp_path) -> None:
    write_tsv(tmp_path / "all.tsv", [("a", "b")], ("en", "../x"))
    with pytest.raises(UserError, match=r"all\.tsv, line 1.*names '\.\./x'"):
        find_text({"train": (tmp_path,)})


def half(folder: Path) -> str:
    put(folder, "en-fr.en")
    return r"en-fr\.en is half a pair: en-fr\.fr is missing"


def partner(folder: Path) -> str:
    put(folder, "test.en")
    return r"test\.en has no partner"


def twice(folder: Path) -> str:
    put(folder, "en-fr.en", "en-fr.en.gz", "en-fr.fr")
    return r"en-fr\.en\.gz and en-fr\.en are both the en text"


def same(folder: Path) -> str:
    put(folder, "en-en.en")
    return "source and target are the same language"


def lengths(folder: Path) -> str:
    write_lines(put(folder, "en-fr.en") / "en-fr.fr", ["a", "b", "c"])
    return r"en-fr\.en, line 3: missing; the file has 2 lines, en-fr\.fr has 3"


def empty(folder: Path) -> str:
    write_lines(folder / "en-fr.en", [])
    write_lines(folder / "en-fr.fr", [])
    return r"line 1: the file is empty"


def encoding(folder: Path) -> str:
    (put(folder, "en-fr.en", "en-fr.fr") / "en-fr.fr").write_bytes(b"ok\ncaf\xe9\n")
    return r"en-fr\.fr, line 2: not UTF-8; convert"


def utf16(folder: Path) -> str:
    (put(folder, "en-fr.en", "en-fr.fr") / "en-fr.fr").write_text("ok\n\n", encoding="utf-16")
    return r"en-fr\.fr, line 1: not UTF-8 but UTF-16"


def cut_short(folder: Path) -> str:
    (put(folder, "en-fr.en", "en-fr.fr.gz") / "en-fr.fr.gz").write_bytes(gzip.compress(b"one\ntwo\n" * 99)[:-12])
    return r"en-fr\.fr\.gz is damaged or no gzip file"


def no_gzip(folder: Path) -> str:
    (put(folder, "en-fr.en") / "en-fr.fr.gz").write_bytes(b"one\ntwo\n")
    return r"en-fr\.fr\.gz is damaged or no gzip file"


def row(folder: Path) -> str:
    write_tsv(folder / "en-fr.tsv", [("a", "b"), ("a", "b"), ("a", "b", "c")])
    return r"en-fr\.tsv, line 3: 3 columns; expected 2"


def three(folder: Path) -> str:
    write_tsv(folder / "en-fr.tsv", [("a", "b", "c")])
    return r"en-fr\.tsv, line 1: 3 columns; expected 2, en and fr"


def one(folder: Path) -> str:
    write_tsv(folder / "all.tsv", [("a",)])
    return r"all\.tsv, line 1: 'a' is one column"


def named_twice(folder: Path) -> str:
    write_tsv(folder / "all.tsv", [("a", "b")], ("en", "en"))
    return "a column is named twice"


def nothing(folder: Path) -> str:
    put(folder, "README.md")
    return r"has no parallel text; expected files such as en-fr\.en and en-fr\.fr"


def missing(folder: Path) -> str:
    return "is not a folder"


BAD = [half, partner, twice, same, lengths, empty, encoding, utf16, cut_short, no_gzip, row, three, one, named_twice]
BAD += [nothing, missing]


@pytest.mark.parametrize("bad", BAD)
def test_bad_text_is_named_by_file_and_line(tmp_path, bad: Callable[[Path], str]) -> None:
    words = bad(tmp_path / "text")
    (tmp_path / "numbers").mkdir()
    with pytest.raises(UserError, match=words):
        Columns(tmp_path / "numbers").measure(find_text({"train": (tmp_path / "text",)}).texts["train"])


def test_all_mistakes_are_listed_together(tmp_path) -> None:
    put(tmp_path, "en-fr.en", "de-fr.fr", "test.wo")
    with pytest.raises(UserError) as refusal:
        find_text({"train": (tmp_path, tmp_path / "gone"), "valid": (tmp_path,)})
    text = str(refusal.value)
    assert all(
        word in text for word in ("en-fr.fr is missing", "de-fr.de is missing", "gone is not a folder", "test.wo")
    )
