"""Translation directions: those that the data have, and the choice among them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from langspec_lora.errors import UserError
from langspec_lora.languages import check_name
from langspec_lora.naming import some_of
from langspec_lora.values import names_of, shortened


class Direction(NamedTuple):
    """One direction of translation, written ``src-tgt``."""

    source: str
    target: str

    def __str__(self) -> str:
        return f"{self.source}-{self.target}"

    @classmethod
    def parse(cls, text: str) -> Direction:
        """Reads ``src-tgt``.

        Raises:
            UserError: the text is not a direction, or both languages are the same.
        """
        source, dash, target = text.strip().partition("-")
        if not dash or not source or not target or "-" in target or source == target:
            raise UserError(f"{shortened(text)} is not a direction; expected two different languages such as en-fr")
        label = f"the direction {shortened(text)}"
        return cls(check_name(source, label), check_name(target, label))


def side_path(data_bin: Path, subset: str, direction: Direction, language: str) -> Path | None:
    """Finds one side of a direction in a binarised folder.

    fairseq reads both directions of a language pair from the files of either, so both names are tried, in its order.

    Args:
        data_bin: the binarised folder.
        subset: ``test``, ``valid`` or another prefix of the files.
        direction: the direction.
        language: its source or its target.

    Returns:
        The path without ``.bin`` and ``.idx``, or None if the data lack the direction.
    """
    for source, target in ((direction.source, direction.target), (direction.target, direction.source)):
        name = f"{data_bin}/{subset}.{source}-{target}"
        if _exists(f"{name}.{direction.source}"):
            return Path(f"{name}.{language}") if _exists(f"{name}.{language}") else None
    return None


def _exists(prefix: str) -> bool:
    # Path.is_file takes three times as long, and there are thousands of directions.
    return os.path.isfile(f"{prefix}.bin") and os.path.isfile(f"{prefix}.idx")  # noqa: PTH113


def find_directions(data_bin: Path, subset: str) -> list[Direction]:
    """Lists the directions in a binarised folder, sorted by name.

    Raises:
        UserError: the folder is missing or has no direction of this subset.
    """
    if not data_bin.is_dir():
        raise UserError(f"{data_bin} is not a folder; give the folder that fairseq-preprocess wrote")
    pattern = re.compile(rf"{re.escape(subset)}\.([^.-]+)-([^.-]+)\.\1\.idx")
    found = set()
    for path in data_bin.iterdir():
        match = pattern.fullmatch(path.name)
        if match and match[1] != match[2]:  # data of one language, to denoise, are no direction
            found |= {Direction(*match.groups()), Direction(match[2], match[1])}
    for name in {name for direction in found for name in direction}:
        check_name(name, f"a file of {data_bin}")
    found = {direction for direction in found if side_path(data_bin, subset, direction, direction.target)}
    if not found:
        raise UserError(
            f"{data_bin} has no direction of the subset {subset!r}; expected files such as {subset}.en-fr.en.idx"
        )
    return sorted(found)


def choose_directions(
    available: Iterable[Direction], langs: Sequence[str] | None = None, lang_pairs: str | None = None
) -> list[Direction]:
    """Picks the directions to translate.

    Args:
        available: the directions in the data.
        langs: languages to translate between; by default all languages of the data.
        lang_pairs: a comma-separated list of directions, or ``all``: every direction in the data between ``langs``.

    Returns:
        The directions in the order of ``lang_pairs``, or else by source, then target, in the order of ``langs``.

    Raises:
        UserError: a language or direction is not in the data or given twice, or no direction is left.
    """
    available = set(available)
    known = sorted({language for direction in available for language in direction})
    names = known if langs is None else names_of(",".join(langs), "--langs")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"--langs names {some_of(unknown)}, but the data have only {some_of(known)}")
    if lang_pairs is not None and lang_pairs != "all":
        wanted = [Direction.parse(pair) for pair in names_of(lang_pairs, "--lang-pairs", "en-fr,fr-en")]
        lacking = [str(direction) for direction in wanted if direction not in available]
        if lacking:
            raise UserError(
                f"--lang-pairs names {some_of(lacking)}, but the data have only directions of {some_of(known)}"
            )
        outside = [str(direction) for direction in wanted if not set(direction) <= set(names)]
        if outside:
            raise UserError(f"--lang-pairs names {outside[0]}, but not both languages are in --langs")
        return wanted
    chosen = [Direction(s, t) for s in names for t in names if s != t and Direction(s, t) in available]
    if not chosen:
        raise UserError(f"the data have no direction between {some_of(names)}; give at least two languages of the data")
    return chosen
