"""The folder that ``langspec-lora prepare`` writes: made beside its place, moved there when it is complete.

A folder that was made before is replaced only on request, and only if all in it that would go was made by this command.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from langspec_lora.data.binarise import SHARED
from langspec_lora.errors import UserError
from langspec_lora.files import flush, json_text, read_json, unwritable, write_json
from langspec_lora.naming import some_of
from langspec_lora.partial_files import partial_path, remove_leftovers

RECORD = "prepare.json"
DATA, MONO = "data-bin", "mono"
NAMES = (DATA, MONO, "spm.model", "dict.txt", "pairs.txt", "languages.yaml", "counts.tsv", RECORD)
"""All that the command writes."""

_DATA_FILE = re.compile(
    rf"{SHARED}|dict\..+\.txt|sentencepiece\.bpe\.model|(?:train|valid|test)\.[^.]+\.[^.]+\.(?:bin|idx)"
)
_MONO_FILE = re.compile(r"(?:valid|test)\.[^.]+")
_MANY = 1000  # files; so many are written to the disk together


def check_place(out: Path) -> None:
    """Checks that a folder can be made, or was made by this command.

    Raises:
        UserError: it is a file or below one, or contains something else under the names that are written.
    """
    if out.is_file():
        raise UserError(f"--out {out} is a file; give a folder")
    for parent in out.parents:
        if parent.is_file():
            raise UserError(f"--out {out} is below {parent}, which is a file; give another path")
    there = [name for name in NAMES if (out / name).exists()]
    if there and RECORD not in there:
        raise UserError(f"--out {out} already contains {there[0]}, which 'prepare' did not make; give another folder")


def complete_record(out: Path, settings: Mapping[str, Any], overwrite: bool) -> dict[str, Any] | None:
    """What was recorded when ``out`` was made with these settings; None if it is to be made.

    Raises:
        UserError: it contains something else, or was made with other settings and ``overwrite`` was not given.
    """
    check_place(out)
    there = [name for name in NAMES if (out / name).exists()]
    if not there:
        return None
    record = read_json(out / RECORD, "'langspec-lora prepare'", "give another --out")
    made = record.get("settings")
    if not isinstance(made, dict) or record.get("command") != "prepare":
        raise UserError(f"{out / RECORD} was not written by 'langspec-lora prepare'; give another --out")
    changed = [name for name, value in settings.items() if made.get(name) != value]
    if not changed and record.get("complete") and _held(out) == record.get("files"):
        return record
    if not overwrite:
        if not record.get("complete"):
            raise UserError(f"--out {out} is half replaced by an interrupted run; give --overwrite to make it again")
        what = f"with other settings ({some_of(changed)} differ)" if changed else "but is no longer complete"
        raise UserError(f"--out {out} was made {what}; give another folder, or --overwrite to replace it")
    _check_own(out)
    return None


def _held(out: Path) -> dict[str, int]:
    """What is there of what the command writes: how many entries each folder has, and 1 for a file."""
    found = {}
    for path in (out / name for name in NAMES if name != RECORD):
        if path.exists():
            found[path.name] = sum(1 for _ in path.iterdir()) if path.is_dir() else 1
    return found


def _check_own(out: Path) -> None:
    """Makes sure that nothing of the user's would go with the folders that are replaced."""
    for name, pattern in ((DATA, _DATA_FILE), (MONO, _MONO_FILE)):
        folder = out / name
        others = [path.name for path in folder.iterdir() if not pattern.fullmatch(path.name)] if folder.is_dir() else []
        if others:
            raise UserError(
                f"{folder} has {some_of(sorted(others))}, which 'prepare' did not write; move it away, or give another "
                "--out"
            )


def check_inputs(out: Path, paths: Iterable[Path]) -> None:
    """Makes sure that no file that is read is one that may be replaced.

    Raises:
        UserError: one is.
    """
    own = [(out / name).resolve() for name in NAMES]
    for path in paths:
        place = path.resolve()
        for name in own:
            if place == name or name in place.parents:
                raise UserError(f"{path} is in --out {out}, where it may be replaced; give another --out")


@contextmanager
def new_folder(out: Path, settings: Mapping[str, Any], overwrite: bool) -> Iterator[Path]:
    """Yields a folder beside ``out`` whose content is moved to ``out`` if the ``with`` block succeeds, else deleted.

    The block writes all of :data:`NAMES` but ``mono`` as it needs. Other files in ``out`` are kept.

    Raises:
        UserError: ``out`` cannot be written, or another run has made it meanwhile.
    """
    out = out.absolute()
    partial = partial_path(out)
    try:
        remove_leftovers(out.parent)
        partial.mkdir(parents=True)
        yield partial
        _flush(partial)
        if complete_record(out, settings, overwrite) is not None:
            return  # the same command has been quicker
        _move(partial, out)
    except OSError as error:
        raise unwritable(out, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _flush(folder: Path) -> None:
    paths = [path for path in folder.rglob("*") if not path.is_symlink()]
    if len(paths) > _MANY:
        os.sync()
        return
    for path in paths:
        flush(path)


def _move(partial: Path, out: Path) -> None:
    if not out.exists() or not any(out.iterdir()):
        partial.rename(out)
        return
    record = out / RECORD
    write_json(record, {"command": "prepare", "complete": False, "settings": {}})
    old = partial_path(out / "replaced")
    old.mkdir()
    try:
        for name in [name for name in NAMES if name != RECORD]:
            if (out / name).exists():
                (out / name).rename(old / name)
            if (partial / name).exists():
                (partial / name).rename(out / name)
        (partial / RECORD).replace(record)
    finally:
        shutil.rmtree(old, ignore_errors=True)


def write_record(folder: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Writes ``prepare.json`` of a folder that is complete, and returns it."""
    whole = {"command": "prepare", "complete": True, "files": _held(folder), **content}
    (folder / RECORD).write_text(f"{json_text(whole)}\n", encoding="utf-8")
    return whole
