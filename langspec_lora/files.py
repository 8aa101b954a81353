"""Reads text and JSON, and writes files and folders completely or not at all; overwrites only on request."""

from __future__ import annotations

import codecs
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache, wraps
from pathlib import Path
from typing import Any, TypeVar

from langspec_lora.errors import UserError
from langspec_lora.partial_files import partial_path, remove_leftovers

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

_BYTE_ORDER_MARK = codecs.BOM_UTF8.decode()


class NotUtf8(UserError):
    """A text is not UTF-8.

    Attributes:
        line: number of the first line that is not UTF-8, counted from 1.
    """

    def __init__(self, path: object, line: int) -> None:
        super().__init__(f"{path}, line {line}: not UTF-8; convert the text to UTF-8")
        self.line = line


def read_lines(path: Path) -> list[str]:
    """Reads a UTF-8 text file with one sentence per line; :func:`text_lines` says what ends a line.

    Raises:
        UserError: the file cannot be read, or is not UTF-8 (:class:`NotUtf8`).
    """
    try:
        with path.open("rb") as file:
            return list(text_lines(file, path))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a text file with one sentence per line") from error


def text_lines(stream: Iterable[bytes], name: object, errors: str = "strict") -> Iterator[str]:
    """Yields the lines of a text without their line ends.

    Only LF and CRLF end a line. A CR, a form feed or a U+2028 inside a sentence is part of it, as in sacrebleu.
    A byte order mark at the start is removed and logged.

    Args:
        stream: an open binary file.
        name: the text's name in messages.
        errors: how to treat bytes that are not UTF-8, as in ``bytes.decode``.

    Raises:
        NotUtf8: a line is not UTF-8, and ``errors`` is ``strict``.
    """
    for number, line in enumerate(stream, start=1):
        try:
            text = line.decode(errors=errors)
        except UnicodeDecodeError as error:
            raise NotUtf8(name, number) from error
        if number == 1 and text.startswith(_BYTE_ORDER_MARK):
            _log_byte_order_mark(str(name))
            text = text.lstrip(_BYTE_ORDER_MARK)
            if not text:
                return
        yield text.removesuffix("\n").rstrip("\r")  # some editors write CR twice


@cache
def _log_byte_order_mark(name: str) -> None:
    """Cached, so that a text that is read several times is logged once."""
    logger.warning("%s begins with a byte order mark, which was removed", name)


def check_file(path: Path, overwrite: bool) -> None:
    """Checks that a file can be written; call it before the work that produces the file.

    Raises:
        UserError: the file exists and ``overwrite`` was not given, or no file can have this path.
    """
    if os.path.exists(path) and not overwrite:  # noqa: PTH110  Path.exists raises for names that are too long
        raise UserError(f"{path} already exists; give another --out, or --overwrite to replace it")
    if os.path.isdir(path):  # noqa: PTH112
        raise UserError(f"{path} is a folder; give a file name")
    if os.path.exists(path) and not os.path.isfile(path):  # noqa: PTH110, PTH113
        raise UserError(f"{path} is a device, which a file would replace; give a file name")
    _check_parents(path)


def check_folder(folder: Path, names: Sequence[str], overwrite: bool) -> None:
    """Checks that files can be written into a folder; call it before the work that produces them.

    Raises:
        UserError: one of them exists and ``overwrite`` was not given, or no folder can have this path.
    """
    if folder.is_file():
        raise UserError(f"--out {folder} is a file; give a folder")
    _check_parents(folder)
    existing = [name for name in names if (folder / name).exists()]
    if existing and not overwrite:
        raise UserError(f"--out {folder} already contains {existing[0]}; give another folder, or --overwrite")


def below(folder: Path, name: str) -> Path:
    """The path of a file in a folder, by a name that comes from elsewhere: a language, an index, a list.

    A link inside the folder may lead out of it, as in Hugging Face's cache; the name may not.

    Raises:
        UserError: the name leads out of the folder, or no file can have it.
    """
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts or "\0" in name:
        raise UserError(f"{name[:80]!r} was refused: it leads out of {folder}; expected the name of a file in it")
    return folder / name


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file completely or not at all.

    Args:
        path: the file; missing folders are created.
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
    """Parses a JSON text that holds an object.

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
    """A value as readable JSON, with all scripts unescaped."""
    return json.dumps(content, indent=1, ensure_ascii=False)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a readable JSON file, completely or not at all.

    Raises:
        UserError: it cannot be written.
    """
    write_whole(path, f"{json_text(content)}\n")


def link_file(path: Path, target: Path) -> None:
    """Makes a symbolic link to a file, relative where both are in one tree; replaces a link, and nothing else.

    Args:
        path: the link; missing folders are created.
        target: the file.

    Raises:
        UserError: it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_symlink():
            return
        partial = partial_path(path)
        partial.symlink_to(os.path.relpath(target, path.parent))
        partial.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error


@contextmanager
def whole_files(*paths: Path) -> Iterator[tuple[Path, ...]]:
    """Yields temporary paths to write to; the files are renamed once all are complete and on the disk.

    Args:
        *paths: the files; missing folders are created.

    Raises:
        UserError: they cannot be written, for example because the disk is full; no part of them is left behind.
    """
    partial = [partial_path(path) for path in paths]
    try:
        for folder in {path.parent for path in paths}:
            folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(folder)
        yield tuple(partial)
        for written in partial:
            flush(written)
        for written, path in zip(partial, paths, strict=True):
            written.replace(path)
    except OSError as error:
        raise unwritable(paths[0], error) from error
    finally:
        for written in partial:
            with suppress(OSError):
                written.unlink()


@contextmanager
def whole_folder(folder: Path, names: Sequence[str], overwrite: bool = False) -> Iterator[Path]:
    """Yields a temporary folder; its files are moved to ``folder`` if the ``with`` block succeeds, else deleted.

    Args:
        folder: created if missing; other files in it are kept.
        names: all files that may be written. Old files of these names are removed even if no new one is written.
        overwrite: whether files of these names may be replaced.

    Yields:
        A new folder next to ``folder``.

    Raises:
        UserError: ``folder`` already contains such a file, or cannot be written.
    """
    check_folder(folder, names, overwrite)
    folder = folder.absolute()  # "." has no name
    partial = partial_path(folder)
    try:
        remove_leftovers(folder.parent)
        partial.mkdir(parents=True)
        yield partial
        for path in partial.rglob("*"):
            flush(path)
        if not folder.exists():
            partial.rename(folder)
            return
        new = sorted(path.name for path in partial.iterdir())
        for name in new:
            (partial / name).replace(folder / name)
        for name in set(names) - set(new):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def flush(path: Path) -> None:
    """Waits until a file or a folder is on the disk, so that a power loss after it is renamed leaves no empty one.

    Raises:
        OSError: it cannot be read, or the disk fails.
    """
    if path.is_symlink():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def once_per_file(*suffixes: str) -> Callable[[Callable[[str], Value]], Callable[[str], Value]]:
    """Makes a function of a path read each file once in a process: thousands of paths can link to a few hundred files.

    Args:
        *suffixes: the function reads the files at the path with these endings; a file that has changed is read again.
    """

    def decorate(read: Callable[[str], Value]) -> Callable[[str], Value]:
        known: dict[tuple[int, ...], Value] = {}

        @wraps(read)
        def read_once(path: str) -> Value:
            # Path takes twice the time.
            found = [os.stat(f"{path}{suffix}") for suffix in suffixes]  # noqa: PTH116
            key = tuple(n for file in found for n in (file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns))
            if key not in known:
                known[key] = read(path)
            return known[key]

        return read_once

    return decorate


def unwritable(path: Path, error: OSError) -> UserError:
    """How a program ends that cannot write a file."""
    reason = error.strerror or error
    return UserError(f"{path} cannot be written: {reason}; choose a writable location with enough space")


def _check_parents(path: Path) -> None:
    for parent in path.parents:
        if os.path.isfile(parent):  # noqa: PTH113  as above
            raise UserError(f"--out {path} is below {parent}, which is a file; give another path")
