"""Text read by lines; files and folders written whole or not at all, and never over what is there unless told to."""

from __future__ import annotations

import codecs
import hashlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from langspec_lora.errors import UserError

logger = logging.getLogger(__name__)

_BYTE_ORDER_MARK = codecs.BOM_UTF8.decode()


class NotUtf8(UserError):
    """A text that is not UTF-8.

    Attributes:
        line: the number of the line where it is not, counted from 1.
    """

    def __init__(self, path: object, line: int) -> None:
        super().__init__(f"{path}, line {line}: not UTF-8; convert the text to UTF-8")
        self.line = line


def read_lines(path: Path) -> list[str]:
    """Reads a text file: UTF-8, one sentence a line; see :func:`text_lines` for what ends a line.

    Raises:
        UserError: the file cannot be read, or is not UTF-8 (:class:`NotUtf8`).
    """
    try:
        with path.open("rb") as file:
            return list(text_lines(file, path))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a text file with one sentence a line") from error


def text_lines(stream: Iterable[bytes], name: object, errors: str = "strict") -> Iterator[str]:
    """The lines of a text, without what ends them.

    A line ends with LF or CRLF, and with nothing else: a CR, a form feed or a U+2028 within a sentence belongs to it,
    as in sacrebleu. A byte order mark at the start is left out, with a remark.

    Args:
        stream: an open binary file, which gives what each LF ends.
        name: of the text, for messages.
        errors: what to do with bytes that are not UTF-8, as in ``bytes.decode``.

    Raises:
        NotUtf8: a line is not UTF-8, and ``errors`` is ``strict``.
    """
    for number, line in enumerate(stream, start=1):
        try:
            text = line.decode(errors=errors)
        except UnicodeDecodeError as error:
            raise NotUtf8(name, number) from error
        if number == 1 and text.startswith(_BYTE_ORDER_MARK):
            _remark_byte_order_mark(str(name))
            text = text.lstrip(_BYTE_ORDER_MARK)
            if not text:
                return
        yield text.removesuffix("\n").rstrip("\r")  # some editors write CR twice


@cache
def _remark_byte_order_mark(name: str) -> None:
    """Once for each text, however often it is read."""
    logger.warning("%s begins with a byte order mark, which is left out", name)


def check_file(path: Path, overwrite: bool) -> None:
    """Makes sure that a file may be written, before the work that leads to it begins.

    Raises:
        UserError: it is there already, and ``overwrite`` was not given, or it cannot be there.
    """
    if os.path.exists(path) and not overwrite:  # noqa: PTH110  Path.exists raises for names that are too long
        raise UserError(f"{path} is there already; give another --out, or --overwrite to replace it")
    if os.path.isdir(path):  # noqa: PTH112
        raise UserError(f"{path} is a folder; give the name of a file")
    if os.path.exists(path) and not os.path.isfile(path):  # noqa: PTH110, PTH113
        raise UserError(f"{path} is a device, which a file would replace; give the name of a file")
    _check_parents(path)


def check_folder(folder: Path, names: Sequence[str], overwrite: bool) -> None:
    """Makes sure that files may be written into a folder, before the work that leads to them begins.

    Raises:
        UserError: one of them is there already, and ``overwrite`` was not given, or there can be no such folder.
    """
    if folder.is_file():
        raise UserError(f"--out {folder} is a file; give a folder")
    _check_parents(folder)
    there = [name for name in names if (folder / name).exists()]
    if there and not overwrite:
        raise UserError(f"--out {folder} holds {there[0]} already; give another folder, or --overwrite")


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all.

    Args:
        path: the file; its folder is made where it is missing.
        content: text, written as UTF-8, or bytes.

    Raises:
        UserError: it cannot be written, for example because the disk is full.
    """
    with whole_files(path) as (partial,):
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def read_json(
    path: Path,
    writer: str = "'langspec-lora evaluate'",
    again: str = "delete it and run 'langspec-lora evaluate' again",
) -> dict[str, Any]:
    """Reads a JSON file that holds an object.

    Args:
        path: the file.
        writer: what writes folders with such a file, for messages.
        again: how to get a file that is not damaged, for messages.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return parse_json(path.read_text(encoding="utf-8"), path, again)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a folder that {writer} wrote") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is damaged ({error}); {again}") from error


def parse_json(text: str, label: object, again: str) -> dict[str, Any]:
    """The object that a JSON text holds.

    Args:
        text: the text.
        label: where it was read, for messages.
        again: how to get one that is not damaged, for messages.

    Raises:
        UserError: it is not JSON, or not an object.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{label} is damaged ({error}); {again}") from error
    if not isinstance(content, dict):
        raise UserError(f"{label} is damaged: it is not a JSON object; {again}")
    return content


def json_text(content: Mapping[str, Any]) -> str:
    """JSON as we write it: readable, in any script."""
    return json.dumps(content, indent=1, ensure_ascii=False)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file whole, for reading by people too.

    Raises:
        UserError: it cannot be written.
    """
    write_whole(path, f"{json_text(content)}\n")


@contextmanager
def whole_files(*paths: Path) -> Iterator[tuple[Path, ...]]:
    """Gives other names to write under; the files take their own when all are whole and on the disk.

    Args:
        *paths: the files; their folders are made where they are missing.

    Raises:
        UserError: they cannot be written, for example because the disk is full; then nothing of them stays.
    """
    partial = [_partial(path) for path in paths]
    try:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
        yield tuple(partial)
        for written in partial:
            with written.open("rb+") as file:
                os.fsync(file.fileno())
        for written, path in zip(partial, paths, strict=True):
            written.replace(path)
    except OSError as error:
        raise _unwritable(paths[0], error) from error
    finally:
        for written in partial:
            with suppress(OSError):
                written.unlink()


@contextmanager
def whole_folder(folder: Path, names: Sequence[str], overwrite: bool = False) -> Iterator[Path]:
    """A folder to write files to, which appear in ``folder`` when the ``with`` block ends well, and else not at all.

    Args:
        folder: made where it is missing, and kept with whatever else it holds.
        names: all files that may be written there. Those of an earlier time are not left beside the new ones.
        overwrite: whether files of these names may be replaced.

    Yields:
        A new folder beside it.

    Raises:
        UserError: ``folder`` holds such a file, or cannot be written.
    """
    check_folder(folder, names, overwrite)
    folder = folder.absolute()  # "." has no name
    partial = _partial(folder)
    try:
        partial.mkdir(parents=True)
        yield partial
        if not folder.exists():
            partial.rename(folder)
            return
        new = sorted(path.name for path in partial.iterdir())
        for name in new:
            (partial / name).replace(folder / name)
        for name in set(names) - set(new):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def sha256(path: Path) -> str:
    """Hash of a file's content.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _check_parents(path: Path) -> None:
    for place in path.parents:
        if os.path.isfile(place):  # noqa: PTH113  as above
            raise UserError(f"--out lies in {place}, which is a file; give another")


def _partial(path: Path) -> Path:
    """A name that no other process writes under, on no machine, hidden from patterns such as ``*.pt``."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")


def _unwritable(path: Path, error: OSError) -> UserError:
    reason = error.strerror or error
    return UserError(f"{path} cannot be written: {reason}; choose a place that can be written and has room")
