"""``scores.json``, read and checked: the report and later evaluations rely on its content."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.evaluation.metrics import METRICS, USUAL_METRICS
from langspec_lora.files import json_text
from langspec_lora.languages import LEVELS
from langspec_lora.naming import some_of

TEXT_HASHES = ("hypotheses_sha256", "references_sha256", "source_text_sha256")
"""Keys of an entry: hashes of the texts that it scores."""


@dataclass(frozen=True)
class ScoresFile:
    """What ``scores.json`` says.

    Attributes:
        entries: scores, hashes and number of sentences of each direction.
        signatures: of each metric.
        scoring: what sacrebleu's scores depend on besides the texts: its name of the BLEU tokenizer, and versions.
        checkpoints: path and hash of each checkpoint of the model.
        settings: how the hypotheses were made.
        references: the folder that the references came from.
        levels: resource level of each language, where the checkpoint has them.
        trained: the directions of the model's training between the languages of the entries; None if not known.
    """

    entries: Mapping[Direction, Mapping[str, Any]]
    signatures: Mapping[str, str]
    scoring: Mapping[str, Any]
    checkpoints: tuple[tuple[str, str], ...]
    settings: Mapping[str, Any]
    references: str
    levels: Mapping[str, str]
    trained: frozenset[str] | None = None

    @property
    def tokenize(self) -> str:
        """Sacrebleu's name of the BLEU tokenizer."""
        return self.scoring["tokenize"]

    def scores(self) -> dict[str, dict[Direction, float]]:
        """For each metric the score of each direction that has it."""
        found = {m: {d: float(entry[m]) for d, entry in self.entries.items() if m in entry} for m in METRICS}
        return {metric: scores for metric, scores in found.items() if scores}


_SEAL = "sha256"


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a ``scores.json`` with its hash, by which a changed digit is noticed."""
    return {**content, _SEAL: hashlib.sha256(json_text(content).encode("utf-8", "surrogatepass")).hexdigest()}


def parse_scores(content: Mapping[str, Any], path: Path) -> ScoresFile:
    """Checks the content of a ``scores.json``.

    Args:
        content: what was read.
        path: the file, for the message.

    Raises:
        UserError: something is missing, has the wrong type, or was changed after it was written.
    """
    reader = _Reader(path)
    # Files of earlier versions have no hash.
    if _SEAL in content and content[_SEAL] != sealed({key: content[key] for key in content if key != _SEAL})[_SEAL]:
        raise reader.damaged("was changed after it was written")
    settings, signatures = reader.mapping(content, "settings"), reader.mapping(content, "signatures")
    entries = {}
    for name, entry in reader.mapping(content, "directions").items():
        direction = reader.direction(name)
        if direction in entries:
            raise reader.damaged(f"names {direction} twice")
        entries[direction] = reader.entry(entry, direction, signatures)
    if not entries:
        raise reader.damaged("holds no direction")
    checkpoints = settings.get("checkpoint")
    if not isinstance(checkpoints, list):
        raise reader.damaged("lacks settings.checkpoint")
    scoring = reader.mapping(content, "scoring")
    reader.text(scoring, "tokenize")
    levels = reader.mapping(content, "levels") if "levels" in content else {}
    if not all(level in LEVELS for level in levels.values()):
        raise reader.damaged(f"holds levels other than {some_of(LEVELS)}")
    trained = content.get("trained")
    if trained is not None and not (isinstance(trained, list) and all(isinstance(name, str) for name in trained)):
        raise reader.damaged("holds trained that is not a list of directions")
    subset = settings.get("subset", "")
    if not isinstance(subset, str) or "/" in subset:
        raise reader.damaged(f"holds the subset {str(subset)[:40]!r}")
    return ScoresFile(
        entries,
        {metric: reader.text(signatures, metric) for metric in signatures},
        scoring,
        tuple((reader.text(one, "path"), reader.text(one, "sha256")) for one in checkpoints),
        settings,
        reader.text(content, "references") if "references" in content else "",
        levels,
        None if trained is None else frozenset(trained),
    )


class _Reader:
    """Reads values of the expected type from a file's content, or says what is wrong with it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def damaged(self, what: str) -> UserError:
        return UserError(f"{self._path} is damaged: it {what}; delete it and run 'langspec-lora evaluate' again")

    def mapping(self, content: Any, key: str) -> dict[str, Any]:
        value = content.get(key) if isinstance(content, dict) else None
        if not isinstance(value, dict):
            raise self.damaged(f"lacks {key}" if value is None else f"holds {key} that is not an object")
        return value

    def text(self, content: Any, key: str) -> str:
        value = content.get(key) if isinstance(content, dict) else None
        if not isinstance(value, str):
            raise self.damaged(f"lacks {key}" if value is None else f"holds {key} that is not text")
        return value

    def direction(self, name: str) -> Direction:
        with suppress(UserError):
            direction = Direction.parse(name)
            if re.fullmatch(r"[^\s/]+", str(direction)) and str(direction).isprintable():
                return direction
        raise self.damaged(f"names a direction {name[:40]!r}; expected one like 'en-fr'")

    def entry(self, entry: Any, direction: Direction, signatures: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(entry, dict):
            raise self.damaged(f"holds no scores of {direction}")
        for name, metric in METRICS.items():
            # A file of an earlier version has neither scores nor a signature of a metric that was added later.
            if (name in entry or (name in USUAL_METRICS and name in signatures)) and not is_score(
                entry.get(name), *metric.bounds
            ):
                raise self.damaged(f"says that {name} of {direction} is {_shown(entry.get(name))}")
        if "sentences" in entry and not _is_count(entry["sentences"]):
            raise self.damaged(f"says that {direction} has {_shown(entry['sentences'])} sentences")
        for key in TEXT_HASHES:
            if key in entry and not re.fullmatch("[0-9a-f]{64}", str(entry[key])):
                raise self.damaged(f"holds no hash as {key} of {direction}")
        return entry


def is_score(value: Any, low: float, high: float) -> bool:
    """Whether a value is a number between two bounds, with room for the rounding of sums."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return low - 1e-6 <= value <= high + 1e-6


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _shown(value: Any) -> str:
    return "missing" if value is None else repr(value)[:40]
