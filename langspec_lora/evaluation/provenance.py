"""``provenance.tsv`` of a results folder: a line for each hypothesis file, with a hash of its settings and of its text.

Locks keep evaluations with other settings out of a folder. This file shows where that was not enough: on a file system
without locks, after a program of another version, after somebody has changed a hypothesis, after a power failure.

A line is written before the file that it is about, so that a command that is killed leaves at most a line too many.
Folders of earlier versions have no such file: it is made of what they hold when an evaluation begins to add to them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.evaluation.results import PROVENANCE, decoded, hypotheses_path
from langspec_lora.evaluation.scoring import text_sha256
from langspec_lora.files import read_lines, unwritable, write_whole
from langspec_lora.locks import Locks

Line = tuple[str, str, str]
"""A direction's name, the hash of the settings, and the hash of the hypotheses."""

_LINE = re.compile(r"^(\S+)\t([0-9a-f]{64})\t([0-9a-f]{64})$", re.MULTILINE)


class Provenance:
    """Says of each hypothesis file whether it was made with the settings of an evaluation, and is unchanged.

    Args:
        folder: the results folder.
        settings: what its hypotheses depend on, in one form for all versions, without the source texts.
        sources: the hash of the source text of each direction, by its name.
    """

    def __init__(self, folder: Path, settings: Mapping, sources: Mapping[str, str]) -> None:
        self._folder, self._sources = folder, sources
        self._settings = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        self._ngrams = settings["generation"].get("no_repeat_ngram_size")
        self._lines: set[Line] = set()

    def line(self, direction: str, text: str) -> Line:
        """The line of a hypothesis file.

        Args:
            direction: its name.
            text: the hash of the hypotheses.
        """
        with_source = self._settings.copy()
        with_source.update(self._sources[direction].encode())
        return direction, with_source.hexdigest(), text

    def check(self, direction: str, text: str) -> None:
        """Makes sure that the hypotheses of a direction were made with these settings.

        Args:
            direction: its name.
            text: the hash of its hypotheses.

        Raises:
            UserError: they were made with others, or were changed.
        """
        if not self._lines and not self._read():
            return
        line = self.line(direction, text)
        if line not in self._lines:
            self._read()
        if line not in self._lines:
            path = hypotheses_path(self._folder, Direction.parse(direction))
            raise UserError(
                f"{path} is not what an evaluation with these settings wrote, or was changed later; delete it, and its "
                "direction is decoded again"
            )

    def check_files(self, directions: Collection[Direction]) -> None:
        """Makes sure of it for hypothesis files that there are.

        Raises:
            UserError: see :meth:`check`.
        """
        if directions and not self._read():
            if self._ngrams:
                raise UserError(
                    f"{self._folder} holds hypotheses of an earlier version, which ignored --no-repeat-ngram-size; "
                    "give another --out, or --overwrite to decode them again"
                )
            return
        for direction in directions:
            self.check(str(direction), text_sha256(read_lines(hypotheses_path(self._folder, direction))))

    def begin(self, locks: Locks) -> None:
        """Makes the file, if there is none: all hypotheses in the folder are taken for those of these settings."""
        with locks.held(PROVENANCE):
            if not self._read():
                for name in decoded(self._folder) & self._sources.keys():
                    path = hypotheses_path(self._folder, Direction.parse(name))
                    self._lines.add(self.line(name, text_sha256(read_lines(path))))
                self._write()

    def write(self, direction: Direction, hypotheses: Sequence[str], locks: Locks) -> None:
        """Writes the hypotheses of a direction, and their line before them.

        Raises:
            UserError: they cannot be written, for example because the disk is full.
        """
        line, path = self.line(str(direction), text_sha256(hypotheses)), self._folder / PROVENANCE
        self._lines.add(line)
        with locks.held(PROVENANCE):  # over both, so that no other process takes the line for one too many
            try:
                with path.open("ab+") as file:
                    # What a killed process was writing here ends without a newline.
                    file.seek(max(file.tell() - 1, 0))
                    file.write((b"" if file.read() in (b"", b"\n") else b"\n") + "\t".join(line).encode() + b"\n")
            except OSError as error:
                raise unwritable(path, error) from error
            write_whole(hypotheses_path(self._folder, direction), "".join(f"{line}\n" for line in hypotheses))

    def tidy(self, locks: Locks) -> None:
        """Puts the lines in order and leaves out those without a file, so that equal results have equal files."""
        if locks.supported:
            with locks.held(PROVENANCE):
                self._lines.clear()
                if self._read():
                    self._write(decoded(self._folder))

    def _read(self) -> bool:
        """Takes over the lines that the file holds; returns whether there is one."""
        path = self._folder / PROVENANCE
        if not path.is_file():
            return False
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}; check the path") from error
        self._lines |= {(match[1], match[2], match[3]) for match in _LINE.finditer(text)}
        return True

    def _write(self, directions: Collection[str] | None = None) -> None:
        lines = sorted(line for line in self._lines if directions is None or line[0] in directions)
        write_whole(self._folder / PROVENANCE, "".join("\t".join(line) + "\n" for line in lines))
