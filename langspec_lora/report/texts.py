"""The sentences behind the scores: hypotheses, references and sources of the runs of a report, found and checked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.evaluation.results import Run, text_path
from langspec_lora.evaluation.scoring import text_sha256
from langspec_lora.files import below, read_lines


@dataclass(frozen=True)
class TextFile:
    """One text: its file, the hash of its lines, and how many it has."""

    path: Path
    sha256: str
    lines: int

    def read(self) -> list[str]:
        """The sentences."""
        return read_lines(self.path)


@dataclass(frozen=True)
class DirectionTexts:
    """The texts of one direction: references, the hypotheses of each run, and the source texts if found."""

    direction: Direction
    reference: TextFile
    hypotheses: tuple[TextFile, ...]
    source: TextFile | None = None


def find_texts(
    runs: Sequence[Run], directions: Iterable[Direction], folder: Path | None = None
) -> tuple[dict[Direction, DirectionTexts], list[str]]:
    """Finds the texts of every direction and checks that they are those that were scored.

    References and sources come from ``texts/`` of any of the runs, then from ``SPLIT.LANG`` in ``folder``, then from
    where ``evaluate`` had read them.

    Returns:
        The texts of each direction that has them, and why the others have not, in sentences.

    Raises:
        UserError: hypotheses or references are not those that were scored, or differ in number, or the runs were
            scored against different references.
    """
    finder = _Finder(runs, folder)
    found: dict[Direction, DirectionTexts] = {}
    lacking: dict[str, list[Direction]] = defaultdict(list)
    for direction in directions:
        without = [run.name for run in runs if not run.hypotheses(direction).is_file()]
        if without:
            why = f"{without[0]} has no hypotheses beside its scores; put them back, or evaluate again"
            lacking[why].append(direction)
        elif reference := finder.reference(direction):
            hypotheses = tuple(_scored_hypotheses(run, direction, reference) for run in runs)
            source = finder.source(direction, reference)
            found[direction] = DirectionTexts(direction, reference, hypotheses, source)
        else:
            why = "no references; give the folder with SPLIT.LANG as --references, or evaluate again"
            lacking[why].append(direction)
    return found, [
        f"{why}: {members[0]}" + (f" and {len(members) - 1} more" if len(members) > 1 else "")
        for why, members in lacking.items()
    ]


def _scored_hypotheses(run: Run, direction: Direction, reference: TextFile) -> TextFile:
    text = describe(run.hypotheses(direction))
    if text.lines != reference.lines:
        raise UserError(
            f"{text.path} has {text.lines} lines but its references {reference.path} have {reference.lines}; "
            "give the references of the sentences that were translated, or evaluate again"
        )
    if text.sha256 != run.entries.get(direction, {}).get("hypotheses_sha256", text.sha256):
        raise UserError(
            f"{text.path} has changed since it was scored; run 'langspec-lora evaluate' again on this folder"
        )
    return text


def describe(path: Path) -> TextFile:
    """Reads a text and counts and hashes its lines."""
    lines = read_lines(path)
    return TextFile(path, text_sha256(lines), len(lines))


class _Finder:
    """Looks for references and sources; each text is read once."""

    def __init__(self, runs: Sequence[Run], folder: Path | None) -> None:
        self._runs, self._folder = runs, folder
        self._describe: Callable[[Path], TextFile] = cache(describe)
        self._subset = next((run.settings["subset"] for run in runs if "subset" in run.settings), "test")
        recorded = [Path(run.references) for run in runs if run.references]
        self._raw = list(dict.fromkeys([*([folder] if folder else []), *recorded]))

    def reference(self, direction: Direction) -> TextFile | None:
        """The references that all runs were scored against.

        Of runs that have no hash of them: those in the folder that was given, or else those that
        ``scripts/evaluate.sh`` has taken from the data.
        """
        hashes = self._hashes(direction, "references_sha256")
        if len(hashes) > 1:
            one, other = list(hashes.values())[:2]
            raise UserError(
                f"{one} and {other} were scored against different references in {direction}, so their scores cannot "
                "be compared; evaluate both on the same test set, or report them separately"
            )
        if hashes:
            ((wanted, run),) = hashes.items()
            text = self._by_hash(direction.target, wanted)
            if text is None and self._folder and (given := self._named(self._folder, direction.target)):
                raise UserError(f"{given.path} is not the text that {run} was scored against in {direction}")
            return text
        if self._folder is None:
            files = (below(run.folder, f"{direction}.ref") for run in self._runs)
            return next((self._describe(path) for path in files if path.is_file()), None)
        text = self._named(self._folder, direction.target)
        if text is None:
            raise UserError(
                f"{self._folder / f'{self._subset}.{direction.target}'} is missing; put the references of "
                f"{direction.target} there as plain text, or leave --references out"
            )
        return text

    def source(self, direction: Direction, reference: TextFile) -> TextFile | None:
        """The source sentences; of a folder that has no hash of them, those beside the references."""
        hashes = self._hashes(direction, "source_text_sha256")
        if hashes:
            return self._by_hash(direction.source, next(iter(hashes)))
        text = self._named(reference.path.parent, direction.source)
        return text if text and text.lines == reference.lines else None

    def _hashes(self, direction: Direction, key: str) -> Mapping[str, str]:
        """Every hash that a run has under ``key``, with the name of the first run that has it."""
        found: dict[str, str] = {}
        for run in self._runs:
            if key in run.entries.get(direction, {}):
                found.setdefault(run.entries[direction][key], run.name)
        return found

    def _by_hash(self, language: str, sha256: str) -> TextFile | None:
        for run in self._runs:
            path = text_path(run.folder, language, sha256)
            if path.is_file():
                text = self._describe(path)
                if text.sha256 != sha256:
                    raise UserError(f"{path} is damaged; delete it and run 'langspec-lora evaluate' again")
                return text
        named = (self._named(folder, language) for folder in self._raw)
        return next((text for text in named if text and text.sha256 == sha256), None)

    def _named(self, folder: Path, language: str) -> TextFile | None:
        path = below(folder, f"{self._subset}.{language}")
        return self._describe(path) if path.is_file() else None
