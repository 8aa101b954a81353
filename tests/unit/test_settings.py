"""Settings that are declared once, as fields: their flags, how they are read, and what is refused."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import pytest

from langspec_lora.errors import SeveralErrors, UserError
from langspec_lora.settings import add_flags, check_numbers, flag, flag_rows, given_flags, read_flags


def languages(text: str) -> tuple[str, ...]:
    if not text.islower():
        raise UserError(f"--langs {text}: expected small letters")
    return tuple(text.split(","))


@dataclass(frozen=True)
class Example:
    """Settings of every kind."""

    beam: int = flag(5, "beam size", "N", valid=lambda size: size >= 1, expected="a number of at least 1")
    temperature: float = flag(
        1.0, "divide the logits by X", "X", valid=lambda value: value > 0, expected="a number above 0"
    )
    limit: int | None = flag(None, "sentences per batch", "N", default_text="no limit", valid=lambda size: size >= 1)
    sampling: bool = flag(False, "draw tokens")
    langs: tuple[str, ...] | None = flag(None, "languages", "A,B", convert=languages)
    dictionary: Path | None = flag(None, "the dictionary", "FILE", names=("--fixed-dictionary", "--dict"))
    langtok: bool | None = flag(None, "a token", choices=("yes", "no"), convert=lambda text: text == "yes")
    dtype: str = flag("fp32", "", switches={"--fp16": ("fp16", "half precision (GPU)"), "--bf16": ("bf16", "bfloat16")})
    checkpoint: Path = Path("a.pt")


def read(*words: str, without: tuple[str, ...] = ()) -> Example:
    parser = argparse.ArgumentParser()
    add_flags(parser, Example, without=without)
    return read_flags(parser.parse_args(words), Example)


def test_flags_that_are_left_out_leave_the_defaults() -> None:
    assert read() == Example()


def test_every_flag_is_read_into_its_setting() -> None:
    words = "--beam 3 --temperature 0.5 --limit 7 --sampling --langs en,fr --fixed-dictionary d.txt --langtok no --bf16"
    expected = Example(3, 0.5, 7, True, ("en", "fr"), Path("d.txt"), False, "bf16")
    assert read(*words.split()) == expected
    assert read("--dict", "d.txt").dictionary == Path("d.txt")


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        ("--fp16 --bf16", "not allowed with argument --fp16"),
        ("--langtok maybe", "argument --langtok: invalid choice: 'maybe'"),
        ("--checkpoint b.pt", "unrecognized arguments: --checkpoint"),  # a field without a flag
    ],
)
def test_the_parser_refuses_what_is_not_declared(capsys, words, refusal) -> None:
    with pytest.raises(SystemExit):
        read(*words.split())
    assert refusal in capsys.readouterr().err


def test_a_command_may_leave_settings_out(capsys) -> None:
    assert read(without=("beam",)) == Example()
    with pytest.raises(SystemExit):
        read("--beam", "3", without=("beam",))


def test_given_values_replace_those_that_were_read() -> None:
    args = argparse.Namespace(beam=3, sampling=True, other=1)
    assert read_flags(args, Example, sampling=False) == Example(beam=3)


def test_numbers_out_of_their_range_or_of_another_type_are_listed_together() -> None:
    check_numbers(Example, Example())
    with pytest.raises(SeveralErrors) as refusal:
        check_numbers(Example, Example(beam=2.5, temperature=0, limit=0))
    assert [str(error) for error in refusal.value.errors] == [
        "--beam 2.5: expected a number of at least 1",
        "--temperature 0: expected a number above 0",
        "--limit 0: expected a number",
    ]
    for settings in (Example(beam=True), Example(temperature="warm"), Example(beam=None)):
        with pytest.raises(UserError, match=r"^--(beam|temperature) (True|warm|None): expected"):
            check_numbers(Example, settings)


def test_a_value_that_cannot_be_converted_is_a_mistake_of_the_user() -> None:
    with pytest.raises(UserError, match="--langs EN: expected small letters"):
        read("--langs", "EN")


def test_rows_of_a_table_say_of_each_flag_its_value_its_default_and_what_it_does() -> None:
    assert flag_rows(Example) == [
        ("--beam", "N", "5", "beam size"),
        ("--temperature", "X", "1", "divide the logits by X"),
        ("--limit", "N", "no limit", "sentences per batch"),
        ("--sampling", "", "", "draw tokens"),
        ("--langs", "A,B", "", "languages"),
        ("--fixed-dictionary", "FILE", "", "the dictionary"),
        ("--langtok", "yes|no", "", "a token"),
        ("--fp16", "", "", "half precision (GPU)"),
        ("--bf16", "", "", "bfloat16"),
    ]


def test_help_says_the_default() -> None:
    parser = argparse.ArgumentParser(formatter_class=lambda prog: argparse.HelpFormatter(prog, 2, 99, 10**4))
    add_flags(parser, Example)
    lines = [line.split() for line in parser.format_help().splitlines()]
    assert ["--beam", "N", "beam", "size", "(default:", "5)"] in lines
    assert ["--limit", "N", "sentences", "per", "batch", "(default:", "no", "limit)"] in lines
    assert ["--sampling", "draw", "tokens"] in lines


def test_settings_become_the_flags_that_ask_for_them() -> None:
    @dataclass
    class Search:
        beam: int = flag(5, "beam size", "N")
        sampling: bool = flag(False, "draw tokens")
        max_len_a: float = flag(0.0, "", "A")

    assert given_flags(Search()) == ["--beam", "5", "--max-len-a", "0.0"]
    assert given_flags(Search(sampling=True)) == ["--beam", "5", "--sampling", "--max-len-a", "0.0"]
