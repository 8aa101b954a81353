"""Numbers, names and paths of command lines: what is read, and that nothing is read as something else."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import pytest

from langspec_lora.cli import commands
from langspec_lora.cli.main import main
from langspec_lora.errors import ErrorCollector, UserError
from langspec_lora.values import content_of, names_of, number, whole_number
from tests import toy

NOT_NUMBERS = ("1_0", "٣", "３", "1 0", " 1", "1\n", "", "0x10", "1e", "²", "--1")  # noqa: RUF001


@pytest.mark.parametrize("text", ["0", "7", "-3", "+12", "007"])
def test_whole_numbers_are_read_as_python_reads_them(text) -> None:
    assert whole_number(text) == int(text)


@pytest.mark.parametrize("text", [*NOT_NUMBERS, "1.0", "1e3", "nan"])
def test_what_is_no_whole_number_is_refused(text) -> None:
    with pytest.raises(ValueError, match="not a whole number"):
        whole_number(text)


@pytest.mark.parametrize("text", ["0", "-1.5", ".5", "5.", "1e-8", "3E+2"])
def test_numbers_are_read_as_python_reads_them(text) -> None:
    assert number(text) == float(text)


@pytest.mark.parametrize("text", [*NOT_NUMBERS, "1_0.5", "infinity", "."])
def test_what_is_no_number_is_refused(text) -> None:
    with pytest.raises(ValueError, match="not a number"):
        number(text)
    assert math.isnan(number("nan"))


def test_names_are_split_at_commas() -> None:
    assert names_of("en,fr, wo", "--langs") == ["en", "fr", "wo"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "--langs '' has an empty name; give names joined by commas, such as en,fr"),
        ("en,", "--langs 'en,' has an empty name"),
        ("en,,fr", "has an empty name"),
        ("en, ,fr", "has an empty name"),
        ("en,fr,en", "--langs names 'en' twice"),
        ("en, en", "--langs names 'en' twice"),
    ],
)
def test_lists_with_empty_or_repeated_names_are_refused(text, words) -> None:
    with pytest.raises(UserError, match=words):
        names_of(text, "--langs")


def test_value_that_names_a_file_is_its_text_as_fairseq_reads_it(tmp_path) -> None:
    path = tmp_path / "pairs of mine"
    path.write_text("en-fr,fr-en\n")
    read_by_fairseq = toy.parse([*toy.base_flags(tmp_path, "--lang-pairs", str(path)), *TASK]).lang_pairs
    assert content_of(str(path)) == read_by_fairseq == "en-fr,fr-en"
    assert content_of("en-fr,fr-en") == "en-fr,fr-en"
    assert content_of(",".join(["en-fr"] * 1000)) == ",".join(["en-fr"] * 1000)  # longer than a name can be
    path.write_bytes("é".encode("latin-1"))
    with pytest.raises(UserError, match="is not UTF-8"):
        content_of(str(path))


TASK = ("--task", "translation_multi_simple_epoch_lora", "--arch", "langspec_m2m100_lora_tiny")
VALUES = {int: "1_0", float: "1_0.5", Path: "", None: ""}


def flags_with_values() -> list[tuple[str, str, object]]:
    """Every flag of every command that takes a number, a path or a text of its own."""
    found = []
    for name in commands.COMMANDS:
        parser = argparse.ArgumentParser()
        commands.module_of(name).add_arguments(parser)
        for action in parser._actions:
            takes = isinstance(action, argparse._StoreAction) and action.option_strings and action.choices is None
            if takes and action.type in VALUES:
                found.append((name, action.option_strings[-1], VALUES[action.type]))
    return found


@pytest.mark.parametrize(("name", "flag", "value"), flags_with_values())
def test_every_flag_of_every_command_refuses_loose_numbers_and_empty_values(capsys, name, flag, value) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, f"{flag}={value}"])
    assert ended.value.code == 2
    # Required flags that are missing are listed beside it.
    error = next(line for line in capsys.readouterr().err.splitlines() if flag in line and "expected" in line)
    assert f"expected a {'' if value else 'path' if 'path' in error else 'value'}" in error
    assert error.partition(";")[0].endswith(f"got {value!r}")


@pytest.mark.parametrize("text", ["en-fr,fr-en\n", "en-fr\nfr-en"])
def test_evaluate_takes_a_file_of_directions(tmp_path, text) -> None:
    path = tmp_path / "my pairs"
    path.write_text(text)
    command, parser = commands.module_of("evaluate"), argparse.ArgumentParser()
    command.add_arguments(parser)
    args = parser.parse_args(["data", "--checkpoint", "a.pt", "--out", "o", "--lang-pairs", str(path)])
    (options,) = command._options(args, ErrorCollector()).values()
    assert options.lang_pairs == "en-fr,fr-en"


def test_lines_to_translate_may_be_empty(monkeypatch) -> None:
    command = commands.module_of("translate")
    monkeypatch.setattr(command, "run", lambda args: len(args.lines))
    assert main(["translate", "a.pt", "", "x", "-s", "en", "-t", "fr"]) == 2
