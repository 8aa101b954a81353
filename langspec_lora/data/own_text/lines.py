"""Reads the lines of text files, plain or compressed, and of the columns of TSV files, a block at a time."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, cast

from langspec_lora.errors import UserError
from langspec_lora.files import NotUtf8, text_lines

BLOCK = 20_000  # lines

_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file, decompressed if its name ends in ``.gz``.

    Raises:
        UserError: it cannot be read, or is damaged.
    """
    try:
        with _binary(path) as file:
            yield file
    except NotUtf8 as error:
        raise UserError(f"{path}, line {error.line}: not UTF-8{_guess(path)}; convert the text to UTF-8") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is damaged or no gzip file ({error}); compress or download it again") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; give a readable text file") from error


def _binary(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _guess(path: Path) -> str:
    """What the encoding may be, if the beginning of the file shows it."""
    with _binary(path) as file:
        start = file.read(2)
    if start in _UTF16:
        return " but UTF-16"
    return " but gzip without .gz in its name" if start == b"\x1f\x8b" else ""


def first_line(path: Path) -> str:
    """The first line of a file, without its end; empty if the file is.

    Raises:
        UserError: it cannot be read, or is not UTF-8.
    """
    with _opened(path) as file:
        return next(text_lines(file, path), "")


def read_blocks(path: Path) -> Iterator[list[str]]:
    """Yields the sentences of a file, stripped of surrounding white space, a block at a time.

    Raises:
        UserError: it cannot be read, or is not UTF-8.
    """
    with _opened(path) as file:
        lines = text_lines(file, path)
        while block := [line.strip() for line in islice(lines, BLOCK)]:
            yield block


def read_table_blocks(path: Path, numbers: Sequence[int], width: int, header: bool) -> Iterator[list[list[str]]]:
    """Yields the sentences of columns of a TSV file, a block of lines at a time; quotes have no meaning.

    Args:
        path: the file.
        numbers: the columns, counted from 0.
        width: how many columns each line has.
        header: whether the first line names the columns.

    Yields:
        For each of the columns its sentences, stripped of surrounding white space.

    Raises:
        UserError: the file cannot be read, is not UTF-8, or a line has another number of columns.
    """
    with _opened(path) as file:
        lines = text_lines(file, path)
        number = len(list(islice(lines, 1))) if header else 0
        while block := list(islice(lines, BLOCK)):
            rows = [line.split("\t") for line in block]
            for place, row in enumerate(rows, start=number + 1):
                if len(row) != width and row != [""]:
                    raise UserError(
                        f"{path}, line {place}: {len(row)} columns; expected {width}, as in the first line, with one "
                        "tab between two"
                    )
            rows = [row if len(row) == width else [""] * width for row in rows]
            yield [[row[column].strip() for row in rows] for column in numbers]
            number += len(block)
