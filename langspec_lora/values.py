"""Parses numbers, truth values, paths and lists of names (each once) strictly, from a command line or a settings file.

Python's own functions accept too much: ``int`` reads ``1_0`` as ten and accepts the digits of any script, and splitting
an empty list of names gives one empty name.
"""

from __future__ import annotations

import math
import re
from argparse import ArgumentParser, ArgumentTypeError
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from langspec_lora.errors import UserError
from langspec_lora.naming import cut

_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_WHOLE = re.compile(r"[+-]?[0-9]+")
_PARAMETERS = re.compile(r"([0-9]+(?:\.[0-9]+)?)([kMG]?)")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+|nan|inf)([eE][+-]?[0-9]+)?")


def true_or_false(text: str) -> bool:
    """Reads the published flags' ``True`` and ``False``.

    Raises:
        ValueError: it is another word.
    """
    if text.lower() not in _TRUTH:
        raise ValueError(text)
    return _TRUTH[text.lower()]


def number_of_parameters(text: str, flag: str) -> int:
    """Reads a number of parameters, such as ``15M``.

    Args:
        text: the number, with or without a unit.
        flag: the flag that gives it, for the message.

    Raises:
        UserError: it is none.
    """
    match = _PARAMETERS.fullmatch(text)
    number = round(float(match[1]) * _UNITS[match[2]]) if match else 0
    if number < 1:
        raise UserError(f"{flag} {text[:40]}: expected a number of parameters, such as 15M, 300k or 15335424")
    return number


def whole_number(text: str) -> int:
    """Reads a whole number, written with the digits 0 to 9.

    Raises:
        ValueError: it is something else, such as ``1_0``.
    """
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{text!r} is not a whole number")
    return int(text)


def number(text: str) -> float:
    """Reads a number, written with the digits 0 to 9; or ``nan`` or ``inf``, which a check of the range refuses.

    Raises:
        ValueError: it is something else, such as ``1_0.5``.
    """
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{text!r} is not a number")
    return float(text)


def listed(value: str | Sequence[str] | None) -> list[str]:
    """The items of a list, or of a text that joins them by commas; none of None."""
    return value.split(",") if isinstance(value, str) else list(value or ())


def names_of(text: str, flag: str, example: str = "en,fr") -> list[str]:
    """Reads names joined by commas, with or without spaces around them.

    Args:
        text: the names.
        flag: how to call the list in a message.
        example: how such a list looks.

    Raises:
        UserError: a name is empty or is given twice.
    """
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise UserError(
            f"{flag} {shortened(text)} has an empty name{empty_place(names)}; give names joined by commas, such as "
            f"{example}"
        )
    check_once(names, flag)
    return names


def empty_place(names: Sequence[str]) -> str:
    """Where the first empty name of a list is, for a message, if the list is too long to be shown."""
    number = list(names).index("")
    return f" after {names[number - 1]}, its number {number:,}" if number > 24 else ""


def check_once(names: Iterable[str | int], flag: str, item: str = "one") -> None:
    """Makes sure that no name or number of a list is given twice.

    Args:
        names: the names or numbers.
        flag: how to call the list in a message.
        item: what a name stands for.

    Raises:
        UserError: a name is given twice.
    """
    repeated = next((name for name, count in Counter(names).items() if count > 1), None)
    if repeated is not None:
        raise UserError(f"{flag} names {shortened(repeated)} twice; name each {item} once")


def shortened(value: object, most: int = 80) -> str:
    """A value from a file as a message shows it: quoted, and cut if it is long."""
    return cut(repr(value), most)


def content_of(text: str) -> str:
    """The text of a file if the value is the name of one, else the value itself, as fairseq reads ``--lang-pairs``.

    A file may have each direction on a separate line.

    Args:
        text: the value or the file's name.

    Raises:
        UserError: the file cannot be read, or is not UTF-8.
    """
    path = Path(text)
    try:
        if not path.is_file():
            return text
        lines = path.read_text(encoding="utf-8").split()
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8; convert it to UTF-8") from None
    except (OSError, ValueError):  # a long list is no name that a file can have
        return text
    return ",".join(line.strip(",") for line in lines)


def read_strictly(parser: ArgumentParser) -> None:
    """Makes a parser read numbers as above, refuse those that are not finite, and refuse empty values.

    An argument declared with ``type=str`` may still be empty.
    """
    parser.register("type", int, _typed(whole_number, "a whole number"))
    parser.register("type", float, _typed(_finite, "a number"))
    parser.register("type", Path, _typed(_path, "a path"))
    parser.register("type", None, _typed(_filled, "a value"))


def _typed(convert: Callable[[str], Any], expected: str) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return convert(text)
        except ValueError:
            raise ArgumentTypeError(f"expected {expected}, got {shortened(text)}") from None

    return read


def _finite(text: str) -> float:
    value = number(text)
    if not math.isfinite(value):
        raise ValueError("it is not finite")
    return value


def _filled(text: str) -> str:
    if not text:
        raise ValueError("it is empty")
    return text


def _path(text: str) -> Path:
    return Path(_filled(text))
