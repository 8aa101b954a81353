"""Finds parallel text in folders: which files belong together, of which languages and of which split.

The names of files say it; each may also end in ``.gz``::

    A-B.A and A-B.B             a language pair; a name may stand before it (europarl.en-fr.en)
    test.A, test.B, test.C, …   multi-parallel: line N is the same sentence in all; any name may stand before the dot,
                                and FLORES' order (eng.dev) is read too
    A-B.tsv                     a language pair: a line is a sentence of A, a tab, and one of B
    NAME.tsv                    multi-parallel: the first line names the language of each column
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from langspec_lora.data.own_text.lines import first_line
from langspec_lora.errors import ErrorCollector, UserError, collect_errors
from langspec_lora.languages import check_name
from langspec_lora.naming import cut, some_of

SPLITS = ("train", "valid", "test")

_SPLIT_WORDS = {
    **{"train": "train", "training": "train"},
    **{"valid": "valid", "validation": "valid", "dev": "valid"},
    **{"test": "test", "devtest": "test"},
}
_NO_LANGUAGES = frozenset(
    {"txt", "md", "rst", "json", "jsonl", "yaml", "yml", "csv", "html", "xml", "log", "pdf", "doc", "docx"}
    | {"zip", "tar", "tgz", "bz2", "xz", "zst", "scores", "model", "vocab", "bin", "idx"}
)
"""Endings of files that hold no lines of a language."""

_PAIR = re.compile(r"(?:(?P<name>.+)\.)?(?P<a>[^.-]+)-(?P<b>[^.-]+)\.(?P<language>[^.-]+)")
_PAIR_TABLE = re.compile(r"(?:.+\.)?(?P<a>[^.-]+)-(?P<b>[^.-]+)")
_EXPECTED = "expected files such as en-fr.en and en-fr.fr, test.en and test.fr, or en-fr.tsv, each also with .gz"


@dataclass(frozen=True)
class Column:
    """The lines of one language in one file.

    Attributes:
        language: its name.
        path: the file.
        number: the column of a TSV file, counted from 0; None if a line of the file is a sentence.
    """

    language: str
    path: Path
    number: int | None = None


@dataclass(frozen=True)
class ParallelText:
    """Text of two or more languages; line N of all columns is the same sentence.

    Attributes:
        columns: the languages, in the order of all languages.
        header: whether the first line of the TSV file names its columns.
        width: the number of columns of the TSV file, 0 for files of one language.
    """

    columns: tuple[Column, ...]
    header: bool = False
    width: int = 0

    def pairs(self) -> Iterator[tuple[Column, Column]]:
        """The columns of each language pair."""
        yield from combinations(self.columns, 2)


def pairs_of(texts: Iterable[ParallelText]) -> set[tuple[str, str]]:
    """The language pairs of texts, each in the order of all languages."""
    return {(a.language, b.language) for text in texts for a, b in text.pairs()}


@dataclass
class FoundText:
    """The text of all splits.

    Attributes:
        texts: the texts of each split.
        languages: all languages, in their order.
        notes: one sentence about each thing that was left out.
    """

    texts: dict[str, list[ParallelText]]
    languages: list[str]
    notes: list[str] = field(default_factory=list)


def find_text(
    folders: Mapping[str, Sequence[Path]], names: Mapping[str, str] | None = None, order: Sequence[str] | None = None
) -> FoundText:
    """Finds the text of each split.

    Args:
        folders: the folders of ``train``, ``valid`` and ``test``.
        names: languages to take, by the name that files give them: their own names, and codes that stand for them; by
            default all languages are taken, under the names that the files give them.
        order: the order of the languages; by default the alphabet's.

    Raises:
        UserError: a folder is missing or has no such text, or files are of no use as they are; all mistakes are listed.
    """
    groups: dict[str, list[_Group]] = {}
    notes: list[str] = []
    with collect_errors() as errors:
        for split in SPLITS:
            for number, folder in enumerate(folders.get(split, ())):
                with errors.check():
                    if folder.resolve() in [other.resolve() for other in folders[split][:number]]:
                        raise UserError(f"--{split} names {folder} twice; name each folder once")
                    found = _Folder(folder, split, names)
                    groups.setdefault(split, []).extend(found.groups())
                    notes += found.notes
    used = {language for parts in groups.values() for group in parts for language in group.columns}
    languages = sorted(used) if order is None else [name for name in order if name in used]
    texts = {split: [group.text(languages) for group in parts] for split, parts in groups.items()}
    return FoundText(texts, languages, list(dict.fromkeys(notes)))


@dataclass
class _Group:
    """Files, or columns of a file, that belong together."""

    label: str
    columns: dict[str, Column] = field(default_factory=dict)
    header: bool = False
    width: int = 0

    def text(self, order: Sequence[str]) -> ParallelText:
        columns = tuple(self.columns[name] for name in order if name in self.columns)
        return ParallelText(columns, self.header, self.width)


class _Folder:
    """The files of one folder that are text of one split."""

    def __init__(self, folder: Path, split: str, names: Mapping[str, str] | None) -> None:
        self.folder, self.split, self.names = folder, split, names
        self.notes: list[str] = []
        self.unused: list[str] = []

    def groups(self) -> list[_Group]:
        """The texts.

        Raises:
            UserError: see :func:`find_text`.
        """
        if not self.folder.is_dir():
            raise UserError(f"--{self.split} {self.folder} is not a folder; give the folder of the text files")
        files = sorted(path for path in self.folder.iterdir() if path.is_file() and not path.name.startswith("."))
        chosen = self._of_this_split(files)
        pairs: dict[str, _Group] = {}
        many: dict[str, _Group] = {}
        tables: list[_Group] = []
        with collect_errors() as errors:
            for path in chosen:
                with errors.check():
                    name = _bare(path)
                    if name.endswith(".tsv"):
                        tables += self._table(path, name.removesuffix(".tsv"))
                    elif (match := _PAIR.fullmatch(name)) and match["language"] in (match["a"], match["b"]):
                        label = name.rpartition(".")[0]
                        self._note_file(pairs.setdefault(label, _Group(label)), match["language"], path)
                        if match["a"] == match["b"]:
                            raise UserError(f"{path}: source and target are the same language; remove the file")
                    else:
                        label, language = _multi_parallel(name) or ("", "")
                        self._note_file(many.setdefault(label, _Group(label)), language, path)
            found = [*self._checked_pairs(pairs, errors), *self._checked_multi_parallel(many, errors), *tables]
        if self.unused:
            self.notes.append(f"{self.folder}: not used: {some_of(sorted(self.unused))}")
        if not found:
            among = (
                "" if self.names is None else f" of two of the languages {some_of(dict.fromkeys(self.names.values()))}"
            )
            raise UserError(f"--{self.split} {self.folder} has no parallel text{among}; {_EXPECTED}")
        return found

    def _of_this_split(self, files: Sequence[Path]) -> list[Path]:
        """Leaves out the files that name another split.

        Raises:
            UserError: there are only such files.
        """
        named: dict[str, list[Path]] = defaultdict(list)
        plain = []
        for path in files:
            if not _may_be_text(path):
                self.unused.append(path.name)
            elif split := _split_of(_bare(path)):
                named[split].append(path)
            else:
                plain.append(path)
        usable = named.get(self.split, [])
        if self.split == "train" or not named:
            usable = usable + plain
        if not usable and set(named) in ({"valid"}, {"test"}):  # FLORES' dev, to train on
            (usable,) = named.values()
            return usable
        if not usable and named:
            raise UserError(
                f"--{self.split} {self.folder}: the names of its files say that they are {some_of(named)} text; give "
                f"the folder of the {self.split} text"
            )
        if left := len(named) and sum(map(len, named.values())) + len(plain) - len(usable):
            self.notes.append(
                f"{self.folder}: {left:,} file{'s' if left > 1 else ''} of other splits, as the names say: not "
                f"{self.split} text"
            )
        return sorted(usable)

    def _note_file(self, group: _Group, given: str, path: Path) -> None:
        if (language := self._name(given, path)) is None:
            return
        if language in group.columns:
            other = group.columns[language].path
            raise UserError(f"{path} and {other.name} are both the {language} text of {group.label}; remove one")
        group.columns[language] = Column(language, path)

    def _name(self, given: str, path: Path) -> str | None:
        """The language's name; None if it is not among those to take."""
        if self.names is None:
            return check_name(given, str(path))
        return self.names.get(given)

    def _table(self, path: Path, stem: str) -> list[_Group]:
        cells = [cell.strip() for cell in first_line(path).split("\t")]
        match = _PAIR_TABLE.fullmatch(stem)
        if match:
            languages = [match["a"], match["b"]]
            if match["a"] == match["b"]:
                raise UserError(f"{path}: source and target are the same language; remove the file")
            header = set(languages) <= set(cells)
            if not header and len(cells) != 2:
                raise UserError(
                    f"{path}, line 1: {len(cells)} columns; expected 2, {languages[0]} and {languages[1]}, or a first "
                    "line that names the columns"
                )
            numbers = [cells.index(name) for name in languages] if header else [0, 1]
            width = len(cells)
        else:
            languages, header, width = cells, True, len(cells)
            if self.names is None:
                for cell in cells:
                    check_name(cell, f"{path}, line 1, which names the columns,")
            if len(cells) < 2:
                raise UserError(
                    f"{path}, line 1: {cut(cells[0])!r} is one column; expected the names of at least two languages "
                    "with tabs between them"
                )
            if len(set(cells)) < len(cells):
                raise UserError(f"{path}, line 1: a column is named twice; name each language once")
            numbers = list(range(len(cells)))
        group = _Group(stem, header=header, width=width)
        for given, number in zip(languages, numbers, strict=True):
            language = self._name(given, path)
            if language is not None:
                if language in group.columns:
                    raise UserError(f"{path}: two columns are {language}; name each language once")
                group.columns[language] = Column(language, path, number)
        if len(group.columns) < 2:
            self.unused.append(path.name)
            return []
        return [group]

    def _checked_pairs(self, pairs: Mapping[str, _Group], errors: ErrorCollector) -> list[_Group]:
        found = []
        for label, group in pairs.items():
            one, _, other = label.rpartition(".")[2].partition("-")
            taken = self.names is None or (one in self.names and other in self.names)
            if len(group.columns) == 2:
                found.append(group)
            elif group.columns and taken:
                (column,) = group.columns.values()
                lacking = other if _bare(column.path).endswith(f".{one}") else one
                with errors.check():
                    raise UserError(
                        f"{column.path} is half a pair: {label}.{lacking} is missing; add it, or remove this file"
                    )
            else:
                self.unused += [column.path.name for column in group.columns.values()]
        return found

    def _checked_multi_parallel(self, many: Mapping[str, _Group], errors: ErrorCollector) -> list[_Group]:
        found = []
        for label, group in many.items():
            if len(group.columns) > 1:
                found.append(group)
                continue
            for column in group.columns.values():
                if self.names is None and label in _SPLIT_WORDS:
                    with errors.check():
                        raise UserError(
                            f"{column.path} has no partner; expected {label} text of another language beside it, such "
                            f"as {label}.fr"
                        )
                self.unused.append(column.path.name)
        return found


def _bare(path: Path) -> str:
    return path.name.removesuffix(".gz")


def _split_of(name: str) -> str | None:
    """The split that a file's name gives: its first word, or FLORES' last."""
    words = name.split(".")
    if len(words) < 2:
        return None
    return _SPLIT_WORDS.get(words[0]) or (_SPLIT_WORDS.get(words[1]) if len(words) == 2 else None)


def _may_be_text(path: Path) -> bool:
    name = _bare(path)
    return name.endswith(".tsv") or bool(_PAIR.fullmatch(name)) or _multi_parallel(name) is not None


def _multi_parallel(name: str) -> tuple[str, str] | None:
    """What the files of a multi-parallel text have in common, and the language of one; None for other files."""
    stem, _, last = name.rpartition(".")
    if not stem or not last or last.lower() in _NO_LANGUAGES:
        return None
    if last not in _SPLIT_WORDS:
        return stem, last
    return (last, stem) if "." not in stem else None


def all_columns(texts: Iterable[ParallelText]) -> list[tuple[ParallelText, Column]]:
    """The columns of texts, each with its text."""
    return [(text, column) for text in texts for column in text.columns]
