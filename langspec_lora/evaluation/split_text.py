"""The sentences of a split as plain text: from files beside the binarised data, or else from that data."""

# Imports in functions: fairseq takes seconds, and most data have their text beside them.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from langspec_lora.data.directions import Direction, side_path
from langspec_lora.data.plain_text import plain_text
from langspec_lora.errors import UserError
from langspec_lora.files import below, read_lines


@dataclass(frozen=True)
class SplitText:
    """Sources and references of the directions of a split.

    Attributes:
        data_bin: the binarised folder.
        subset: the split.
        languages: the languages whose text is asked for.
        folder: holds ``SUBSET.LANG`` as raw text; None to look for it beside the data.
        dictionary: turns binarised sides back into text; None for the data's ``dict.LANG.txt``.
        remove_bpe: the subword scheme to undo in them.
    """

    data_bin: Path
    subset: str
    languages: tuple[str, ...]
    folder: Path | None
    dictionary: Path | None
    remove_bpe: str | None

    def __post_init__(self) -> None:
        if self.folder is None:
            return
        for language in self.languages:
            if not self._file(self.folder, language).is_file():
                raise UserError(
                    f"{self._file(self.folder, language)} is missing; put the sentences of {language} there as plain "
                    "text, or leave --references out"
                )

    @property
    def origin(self) -> str:
        """Where the texts come from, in words."""
        return str(self._raw) if self._raw else f"{self.data_bin} (binarised sides as text)"

    def lines(self, direction: Direction, language: str) -> list[str]:
        """One side of a direction.

        Args:
            direction: the direction.
            language: its source or its target.
        """
        if self._raw is not None:
            return read_lines(self._file(self._raw, language))
        return self._binarised(direction, language)

    def count(self, language: str) -> int | None:
        """Number of sentences of one side; None where they are those of the binarised data."""
        if self._raw is None:
            return None
        return len(read_lines(self._file(self._raw, language)))

    def key(self, direction: Direction, language: str) -> tuple:
        """Sides with the same key have the same text."""
        if self._raw is not None:
            return (language,)
        path = self._side(direction, language)
        status = path.with_name(f"{path.name}.bin").stat()
        return (status.st_dev, status.st_ino)

    @cached_property
    def _raw(self) -> Path | None:
        if self.folder is not None:
            return self.folder
        for folder in (self.data_bin / "mono", self.data_bin.parent / "mono"):
            if all(self._file(folder, language).is_file() for language in self.languages):
                return folder
        return None

    def _file(self, folder: Path, language: str) -> Path:
        return below(folder, f"{self.subset}.{language}")

    def _side(self, direction: Direction, language: str) -> Path:
        path = side_path(self.data_bin, self.subset, direction, language)
        assert path is not None, "directions come from the data"
        return path

    def _binarised(self, direction: Direction, language: str) -> list[str]:
        from fairseq.data import Dictionary, data_utils

        path = self.dictionary or below(self.data_bin, f"dict.{language}.txt")
        dictionary = Dictionary.load(str(path))
        side = self._side(direction, language)
        dataset = data_utils.load_indexed_dataset(str(side), dictionary, "mmap")
        return [plain_text(dictionary, tokens, self.remove_bpe, escape_unk=True) for tokens in dataset]


def languages_of(directions: Sequence[Direction]) -> tuple[str, ...]:
    """All languages of the directions, each once, in their order."""
    return tuple(dict.fromkeys(language for direction in directions for language in direction))
