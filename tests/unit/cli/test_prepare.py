"""What ``langspec-lora prepare`` prints: counts, levels, notes, and the next commands."""

from __future__ import annotations

import shlex
from itertools import combinations
from pathlib import Path

import pytest

from langspec_lora.cli.main import main
from langspec_lora.cli.next_commands import NextData, next_commands
from tests.unit.data.own_text.corpora import rows_of, vocabulary, write_columns, write_tsv


def run(*words: object) -> int:
    return main(["prepare", *map(str, words)])


@pytest.fixture
def flags(tmp_path: Path) -> list[object]:
    spm, dictionary = vocabulary(tmp_path / "base")
    return ["--valid-lines", 2, "--max-ratio", 99, "--spm", spm, "--dict", dictionary, "--out", tmp_path / "out"]


def test_counts_levels_and_notes_are_shown(tmp_path, flags, capsys) -> None:
    rows = rows_of(("en", "fr"), 40, 1)
    write_columns(tmp_path / "train", ["en-fr.en", "en-fr.fr"], [*rows, rows[0], ("", "ij")])
    write_tsv(tmp_path / "test" / "en-fr.tsv", rows[5:7])
    command = ["--train", tmp_path / "train", "--test", tmp_path / "test", "--high-lines", 36, "--med-lines", 2, *flags]
    assert run(*command) == 0
    lines = capsys.readouterr().out.splitlines()
    tables = [line.split() for line in lines]
    assert ["split", "pairs", "read", "empty", "held", "out", "duplicate", "length", "ratio", "kept"] in tables
    # 42 lines; two are cut, and two are test text
    assert ["train", "1", "40", "1", "2", "1", "0", "0", "36"] in tables
    assert ["test", "1", "2", "0", "0", "0", "0", "0", "2"] in tables
    assert ["en-fr", "40", "1", "2", "1", "0", "0", "36"] in tables
    assert "high: en 36, fr 36 different training sentences" in lines
    assert any(line.startswith("note: all languages have about as many") for line in lines)
    assert run(*command) == 0
    again = capsys.readouterr().out.splitlines()
    assert again[0] == f"{tmp_path / 'out'}: complete, made from the same text and settings"
    assert again[2:] == lines[1:]


def test_of_many_language_pairs_those_that_lost_most_are_shown(tmp_path, flags, capsys) -> None:
    names = [f"l{number}" for number in range(10)]
    for seed, (a, b) in enumerate(combinations(names, 2)):
        rows = rows_of(("en", "fr"), 22, seed)
        rows[: seed // 4] = [("", "ij")] * (seed // 4)
        write_columns(tmp_path / "train", [f"{a}-{b}.{a}", f"{a}-{b}.{b}"], rows)
    assert run("--train", tmp_path / "train", *flags) == 0
    lines = capsys.readouterr().out.splitlines()
    start = next(number for number, line in enumerate(lines) if "10 of 45 language pairs that lost most" in line)
    shown = [line.split()[0] for line in lines[start + 2 : start + 12]]
    assert set(shown) <= {f"{a}-{b}" for a, b in list(combinations(names, 2))[-13:]}
    assert shown[0] == "l8-l9"
    assert not lines[start + 12]


def data(tmp_path: Path, **changes) -> NextData:
    given = {
        "data_bin": tmp_path / "data-bin",
        "out": tmp_path,
        "languages": ["en", "fr"],
        "lines": 1000,
        "levels": tmp_path / "languages.yaml",
        "pairs": tmp_path / "pairs.txt",
        "dictionary": None,
        "has_test": True,
    }
    return NextData(**{**given, **changes})


@pytest.mark.parametrize(
    ("lines", "size"), [(1000, (3, 256)), (600_000, (6, 512)), (30_000_000, (12, 1024))], ids=lambda value: str(value)
)
def test_the_base_grows_with_the_text(tmp_path, lines, size) -> None:
    text = next_commands(data(tmp_path, lines=lines))
    assert f"--encoder-layers {size[0]} " in text
    assert f"--decoder-embed-dim {size[1]} " in text


def test_names_with_spaces_and_dashes_stay_one_word_each(tmp_path) -> None:
    words = shlex.split(next_commands(data(tmp_path / "my $data", data_bin=Path("-d"), has_test=False)), comments=True)
    folder = tmp_path / "my $data"
    assert {f"LANG_PAIRS={folder}/pairs.txt", f"LANG_RESOURCES={folder}/languages.yaml", "LANGS=en,fr"} <= set(words)
    assert f"{folder}/pairs.txt" in words
    assert "./-d" in words
    assert "evaluate" not in words
