"""The scores of a results folder: computed once for each text, and written together with how they were made."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from langspec_lora import __version__
from langspec_lora.data.directions import Direction
from langspec_lora.evaluation.metrics import METRICS, MODEL_METRICS, ModelScorer
from langspec_lora.evaluation.prepare import Evaluation, by_target
from langspec_lora.evaluation.results import (
    PUBLISHED,
    SCORES,
    SCORES_TABLE,
    SETTINGS,
    decoded,
    hypotheses_path,
    published_format,
    scores_csv,
    text_path,
)
from langspec_lora.evaluation.scores_file import TEXT_HASHES, ScoresFile, parse_scores
from langspec_lora.evaluation.scoring import ENTRY_KEYS, TargetScorer, text_sha256
from langspec_lora.evaluation.split_text import languages_of
from langspec_lora.files import read_json, read_lines, write_json, write_whole
from langspec_lora.locks import Locks
from langspec_lora.progress import Progress

_SECONDS_BETWEEN_FILES = 30.0

_NOTHING = ScoresFile({}, {}, {"tokenize": ""}, (), {}, "", {})


class Scoreboard:
    """The scores so far; for a text that ``scores.json`` has scores of, they are taken from there.

    Other processes may add to the file at the same time.

    Args:
        evaluation: what is scored; its ``to_score`` is the order in which the directions are written.
        scorers: models of further metrics.
        locks: those of the results folder.
    """

    def __init__(self, evaluation: Evaluation, scorers: Sequence[ModelScorer], locks: Locks) -> None:
        self._evaluation, self._locks = evaluation, locks
        self._out, self._texts = evaluation.options.out, evaluation.texts
        self._scorers = {scorer.name: scorer for scorer in scorers}
        self._versions = _versions()
        # What sacrebleu's scores depend on, besides hypotheses and references.
        packages = {name: self._versions[name] for name in ("sacrebleu", "sentencepiece")}
        self._scoring = {"tokenize": evaluation.options.scoring.tokenize, **packages}
        self._scores: dict[Direction, dict[str, Any]] = {}
        self._signatures: dict[str, str] = {}
        self._references: tuple[tuple, TargetScorer] | None = None
        self._sources: tuple[tuple, list[str]] | None = None
        self._written, self._pause = time.monotonic(), _SECONDS_BETWEEN_FILES
        self.seconds = 0.0
        self._read()

    def add(self, direction: Direction) -> None:
        """Scores the hypotheses of a direction by sacrebleu's metrics, unless that has been done."""
        if direction in self._scores:
            return
        start = time.monotonic()
        hypotheses = read_lines(hypotheses_path(self._out, direction))
        scorer, sources = self._scorer_for(direction), self._sources_of(direction)
        hashes = {
            "hypotheses_sha256": text_sha256(hypotheses),
            "references_sha256": self._keep(direction.target, scorer.references),
            "source_text_sha256": self._keep(direction.source, sources),
        }
        held = self._held.entries.get(direction, {})
        if self._held.scoring == self._scoring and held.keys() >= ENTRY_KEYS and hashes.items() <= held.items():
            score = {name: value for name, value in held.items() if name not in MODEL_METRICS}
            self._signatures = {**self._held.signatures, **self._signatures}
        else:
            score = {**scorer.score(direction, hypotheses), **hashes}
            self._signatures |= scorer.signatures()
        self._scores[direction] = {**score, **self._by_models(direction, score)}
        self.seconds += time.monotonic() - start
        self._write_now_and_then()

    def complete(self) -> dict[Direction, dict[str, Any]]:
        """Scores what no process has scored, also by models, and writes the files.

        Returns:
            The scores of the directions that were asked for.
        """
        self._read()
        directions = by_target(self._evaluation.to_score)
        for direction in directions:
            self.add(direction)
        # One process scores by models; those that come after it find its scores.
        with self._locks.held("scores by models"):
            self._read()
            for scorer in self._scorers.values():
                for direction in Progress(directions, desc=scorer.label, unit="direction"):
                    self.add_by_model(direction, scorer)
            scores = self.write()
        return {direction: scores[direction] for direction in self._evaluation.directions}

    def add_by_model(self, direction: Direction, scorer: ModelScorer) -> None:
        """Scores a direction, which :meth:`add` has scored, by a metric's model, unless that has been done."""
        if scorer.name in self._scores[direction]:
            return
        hypotheses = read_lines(hypotheses_path(self._out, direction))
        references = self._scorer_for(direction).references
        self._scores[direction][scorer.name] = scorer.score(self._sources_of(direction), hypotheses, references)
        self._signatures[scorer.name] = scorer.signature
        self._write_now_and_then()

    def write(self) -> dict[Direction, dict[str, Any]]:
        """Adds the scores to those that other processes have written, and returns all in the order of the file."""
        start = time.monotonic()
        with self._locks.held(SCORES):
            self._read()
            known = {**self._of_others(), **self._scores}
            order = dict.fromkeys((*self._evaluation.to_score, *known))
            scores = {direction: known[direction] for direction in order if direction in known}
            if not scores:
                return {}
            metrics = set().union(*scores.values())
            languages, levels = set(languages_of(list(scores))), self._evaluation.levels
            others = {name: level for name, level in self._held.levels.items() if name in languages}
            levels = {**levels, **others, **levels}
            content = {
                "scoring": self._scoring,
                "signatures": {
                    name: self._signatures[name] for name in METRICS if name in metrics & self._signatures.keys()
                },
                "references": self._texts.origin,
                "versions": self._versions,
                "settings": read_json(self._out / SETTINGS),
                **({"levels": levels} if levels else {}),
                "directions": {str(direction): score for direction, score in scores.items()},
            }
            write_json(self._out / SCORES, content)
            write_whole(self._out / SCORES_TABLE, scores_csv(scores))
            write_whole(self._out / PUBLISHED, published_format(scores))
        self._written = time.monotonic()
        # However many processes write however many scores, they do not spend their time on it.
        self._pause = max(_SECONDS_BETWEEN_FILES, 20 * (self._written - start))
        return scores

    def _read(self) -> None:
        """Reads what all processes have written; scores by models are taken over."""
        path = self._out / SCORES
        self._held = parse_scores(read_json(path), path) if path.is_file() else _NOTHING
        for direction, score in self._scores.items():
            self._scores[direction] = {**score, **self._by_models(direction, score), **score}

    def _of_others(self) -> dict[Direction, dict[str, Any]]:
        """What ``scores.json`` holds of directions that this process has not scored."""
        if self._held.scoring != self._scoring:
            return {}
        there, found = decoded(self._out), {}
        for direction, entry in self._held.entries.items():
            if direction not in self._scores and str(direction) in there:
                score = {name: value for name, value in entry.items() if name not in MODEL_METRICS}
                found[direction] = {**score, **self._by_models(direction, score)}
        self._signatures = {**self._held.signatures, **self._signatures}
        return found

    def _by_models(self, direction: Direction, score: Mapping) -> dict[str, Any]:
        """Scores by models that ``scores.json`` holds of the same texts.

        They are kept if they name their model, and no other model is asked for now.
        """
        entry, signatures = self._held.entries.get(direction, {}), self._held.signatures
        if any(entry.get(key) != score.get(key) for key in TEXT_HASHES):
            return {}
        kept = {}
        for name in MODEL_METRICS.keys() & entry.keys() & signatures.keys():
            if name not in self._scorers or self._scorers[name].signature == signatures[name]:
                kept[name], self._signatures[name] = entry[name], signatures[name]
        return kept

    def _write_now_and_then(self) -> None:
        if time.monotonic() - self._written > self._pause:
            self.write()

    def _scorer_for(self, direction: Direction) -> TargetScorer:
        key = self._texts.key(direction, direction.target)
        if self._references is None or self._references[0] != key:
            self._references = (
                key,
                TargetScorer(self._texts.lines(direction, direction.target), self._scoring["tokenize"]),
            )
        return self._references[1]

    def _sources_of(self, direction: Direction) -> list[str]:
        key = self._texts.key(direction, direction.source)
        if self._sources is None or self._sources[0] != key:
            self._sources = key, self._texts.lines(direction, direction.source)
        return self._sources[1]

    def _keep(self, language: str, lines: Sequence[str]) -> str:
        """Writes a text into the folder, for the report, and returns its hash."""
        digest = text_sha256(lines)
        path = text_path(self._out, language, digest)
        if not path.is_file():
            write_whole(path, "".join(f"{line}\n" for line in lines))
        return digest


def _versions() -> dict[str, str]:
    versions = {"langspec_lora": __version__, "python": platform.python_version()}
    for package in ("fairseq", "torch", "sacrebleu", "sentencepiece"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "unknown"
    return versions
