"""The curves of a training, one JSON line for each epoch and validation: written beside its checkpoints, read later."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langspec_lora.errors import UserError
from langspec_lora.files import unwritable, write_whole

logger = logging.getLogger(__name__)

FORMAT = 1
TRAINING, EPOCH, VALIDATION = "training", "epoch", "validation"
"""The kinds of lines: the first of a file, and those of an epoch's training and of a validation."""

_KEY = ("kind", "subset", "epoch", "updates")
"""What tells two lines of a training apart."""


def curve_file_name(suffix: str = "") -> str:
    """The file's name in ``--save-dir``.

    Args:
        suffix: of the training's checkpoints, fairseq's ``--checkpoint-suffix``.
    """
    return f"curves{suffix}.jsonl"


@dataclass(frozen=True)
class Curves:
    """The content of a curve file.

    Attributes:
        training: the first line, about the training as a whole.
        epochs: the lines of its epochs, in order of updates.
        validations: the lines of its validations, in order of updates.
        damaged: the number of lines that could not be read.
    """

    training: Mapping[str, Any]
    epochs: list[dict[str, Any]] = field(default_factory=list)
    validations: list[dict[str, Any]] = field(default_factory=list)
    damaged: int = 0


def read_curves(path: Path) -> Curves:
    """Reads a curve file; a last line without its end is one that is being written, or never was to its end.

    Raises:
        UserError: the file cannot be read, or is none of this format.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give the folder of a training that wrote curves") from error
    whole = content[: content.rfind(b"\n") + 1].splitlines()
    lines = [_parsed(line) for line in whole if line.strip()]
    first = lines[0] if lines else None
    if first is None or first["kind"] != TRAINING or first.get("format") != FORMAT:
        raise UserError(
            f"{path} does not start as a file of curves of format {FORMAT}; update langspec_lora, or move it"
        )
    kept = [line for line in lines[1:] if line is not None]
    by_kind = {
        kind: sorted((line for line in kept if line["kind"] == kind), key=lambda line: line["updates"])
        for kind in (EPOCH, VALIDATION)
    }
    return Curves(first, by_kind[EPOCH], by_kind[VALIDATION], len(lines) - 1 - len(kept))


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A line's content, or None if it is damaged."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or content.get("kind") not in (TRAINING, EPOCH, VALIDATION):
        return None
    numbers = content["kind"] == TRAINING or all(type(content.get(name)) is int for name in ("epoch", "updates"))
    return content if numbers else None


class CurveFile:
    """A curve file that a training writes. A mistake is logged once, and never raised: it must not end a training.

    Each line is written at once, and is on the disk before the next checkpoint is.

    Args:
        path: the file.
        run: identifies the training, through all its restarts.
        updates: how many updates the training has done. Lines of later updates, which an interrupted part of the same
            training wrote, are removed: they will come again. A file of another training is renamed.
        about: more for the first line.
    """

    def __init__(self, path: Path, run: str, updates: int, about: Mapping[str, Any]) -> None:
        self.path = path
        self._keys: set[tuple] = set()
        self._torn = self._failed = False
        try:
            kept = self._continue(run, updates)
            if kept is None:
                self._set_aside()
                write_whole(path, _line({"kind": TRAINING, "format": FORMAT, "run": run, **about}))
            else:
                self._keys = {_key(line) for line in kept}
        except (OSError, UserError) as error:
            self._say(error)

    def add(self, line: Mapping[str, Any]) -> None:
        """Appends a line, unless the file has one for the same epoch and update."""
        key = _key(line)
        if key in self._keys:
            return
        self._keys.add(key)
        data = (("\n" if self._torn else "") + _line(line)).encode()
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                self._torn = True
                written = os.write(descriptor, data)
                if written != len(data):
                    raise OSError(None, "it was written in part")
                os.fsync(descriptor)
                self._torn = False
            finally:
                os.close(descriptor)
        except OSError as error:
            self._say(error)

    def _continue(self, run: str, updates: int) -> list[dict[str, Any]] | None:
        """The lines that stay of a file of this training, which is cut back; None if there is none."""
        try:
            curves = read_curves(self.path)
        except UserError:
            return None
        if curves.training.get("run") != run:
            return None
        lines = [*curves.epochs, *curves.validations]
        kept = [line for line in lines if line["updates"] <= updates]
        if len(kept) < len(lines):
            number = len(lines) - len(kept)
            logger.info(
                "curves | %d line%s of %s after update %d removed: the training continues from there",
                *(number, "s" * (number > 1), self.path, updates),
            )
        order = sorted(kept, key=lambda line: (line["updates"], line["kind"] == EPOCH))
        text = "".join(map(_line, [curves.training, *order]))
        if self.path.read_bytes() != text.encode():
            write_whole(self.path, text)
        return kept

    def _set_aside(self) -> None:
        """Renames a file of another training, or one that is damaged."""
        if not self.path.exists():
            return
        for other in _numbered(self.path):
            if not other.exists():
                self.path.rename(other)
                logger.info("curves | %s is of another training: renamed to %s", self.path, other.name)
                return

    def _say(self, error: OSError | UserError) -> None:
        if not self._failed:
            reason = str(error) if isinstance(error, UserError) else str(unwritable(self.path, error))
            logger.warning("curves | %s; the training goes on without it", reason)
        self._failed = True


def _numbered(path: Path) -> Iterator[Path]:
    number = 1
    while True:
        yield path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1


def _key(line: Mapping[str, Any]) -> tuple:
    return tuple(line.get(name) for name in _KEY)


def _line(content: Mapping[str, Any]) -> str:
    return json.dumps(_finite(content), ensure_ascii=False, separators=(",", ":")) + "\n"


def _finite(value: Any) -> Any:
    """A value without the numbers that JSON does not have; None stands for them."""
    if isinstance(value, Mapping):
        return {str(name): _finite(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
