"""The scores of a results folder: computed once for each text, and written together with how they were made."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from langspec_lora import __version__
from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.evaluation.metrics import METRICS, SACREBLEU_METRICS, Scorer
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
from langspec_lora.evaluation.scores_file import TEXT_HASHES, is_score, parse_scores, sealed
from langspec_lora.evaluation.scoring import ENTRY_KEYS, TargetScorer, text_sha256
from langspec_lora.evaluation.split_text import languages_of
from langspec_lora.files import read_json, read_lines, write_json, write_whole
from langspec_lora.locks import Locks
from langspec_lora.progress import Progress

_SECONDS_BETWEEN_FILES = 30.0


class Scoreboard:
    """The scores so far; scores in ``scores.json`` are kept if they are of the same text.

    Other processes may add to the file at the same time.

    Args:
        evaluation: what is scored; its ``to_score`` is the order in which the directions are written.
        scorers: of further metrics.
        locks: those of the results folder.
    """

    def __init__(self, evaluation: Evaluation, scorers: Sequence[Scorer], locks: Locks) -> None:
        self._evaluation, self._scorers, self._locks = evaluation, scorers, locks
        self._out, self._texts = evaluation.options.out, evaluation.texts
        self._versions = _versions()
        # What sacrebleu's scores depend on, besides hypotheses and references.
        packages = {name: self._versions[name] for name in ("sacrebleu", "sentencepiece")}
        self._scoring = {"tokenize": evaluation.options.scoring.tokenize, **packages}
        self._scores: dict[Direction, dict[str, Any]] = {}
        self._added: set[Direction] = set()  # the scores of the others may be of other texts
        self._signatures: dict[str, str] = {}
        self._levels: dict[str, str] = dict(evaluation.levels)
        self._trained = evaluation.trained
        self._references: tuple[tuple, TargetScorer] | None = None
        self._sources: tuple[tuple, list[str]] | None = None
        self._written, self._pause = time.monotonic(), _SECONDS_BETWEEN_FILES
        self.seconds = 0.0
        self._read()

    def add(self, direction: Direction) -> None:
        """Scores the hypotheses of a direction by sacrebleu's metrics, unless that has been done."""
        if direction in self._added:
            return
        start = time.monotonic()
        hypotheses = read_lines(hypotheses_path(self._out, direction))
        scorer, sources = self._scorer_for(direction), self._sources_of(direction)
        hashes = {
            "hypotheses_sha256": text_sha256(hypotheses),
            "references_sha256": self._keep(direction.target, scorer.references),
            "source_text_sha256": self._keep(direction.source, sources),
        }
        self._evaluation.provenance.check(str(direction), hashes["hypotheses_sha256"])
        score = self._scores.get(direction, {})
        if not hashes.items() <= score.items():
            score = {}
        if not score.keys() >= ENTRY_KEYS:
            score = {**scorer.score(direction, hypotheses), **hashes, **score}
            self._signatures |= scorer.signatures()
        self._scores[direction] = score
        self._added.add(direction)
        self.seconds += time.monotonic() - start
        self._write_now_and_then()

    def complete(self) -> dict[Direction, dict[str, Any]]:
        """Scores what no process has scored, then by models, and writes the files.

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
            for scorer in self._scorers:
                for direction in Progress(directions, desc=scorer.label, unit="direction"):
                    if scorer.name not in self._scores[direction]:
                        texts = self._sources_of(direction), read_lines(hypotheses_path(self._out, direction))
                        score = scorer.score(*texts, self._scorer_for(direction).references)
                        if not is_score(score, *METRICS[scorer.name].bounds):
                            raise UserError(
                                f"{scorer.label} gives {score} for {direction}, which is no score; leave "
                                f"--{scorer.name} out, or give another model"
                            )
                        self._scores[direction][scorer.name] = score
                        self._signatures[scorer.name] = scorer.signature
                        self._write_now_and_then()
            scores = self.write()
            self._evaluation.provenance.tidy(self._locks)
        return {direction: scores[direction] for direction in self._evaluation.directions}

    def write(self) -> dict[Direction, dict[str, Any]]:
        """Adds the scores to those that other processes have written, and returns all in the order of the file."""
        start = time.monotonic()
        with self._locks.held(SCORES):
            self._read()
            there = decoded(self._out)
            order = dict.fromkeys((*self._evaluation.to_score, *self._scores))
            known = {direction: self._scores[direction] for direction in order if direction in self._scores}
            scores = {d: score for d, score in known.items() if score.keys() >= ENTRY_KEYS and str(d) in there}
            if not scores:
                return {}
            languages, metrics = languages_of([*scores]), set().union(*scores.values())
            levels = {name: level for name, level in self._levels.items() if name in languages}
            trained = [name for name in sorted(self._trained or ()) if set(name.split("-")) <= set(languages)]
            content = {
                "scoring": self._scoring,
                "signatures": {name: self._signatures[name] for name in METRICS if name in metrics},
                "references": self._texts.origin,
                "versions": self._versions,
                "settings": read_json(self._out / SETTINGS),
                **({"levels": levels} if levels else {}),
                **({} if self._trained is None else {"trained": trained}),
                "directions": {str(direction): score for direction, score in scores.items()},
            }
            write_json(self._out / SCORES, sealed(content))
            write_whole(self._out / SCORES_TABLE, scores_csv(scores))
            write_whole(self._out / PUBLISHED, published_format(scores))
        self._written = time.monotonic()
        # However many processes write however many scores, they do not spend their time on it.
        self._pause = max(_SECONDS_BETWEEN_FILES, 20 * (self._written - start))
        return scores

    def _read(self) -> None:
        """Takes over what ``scores.json`` holds: earlier scores, and those of other processes.

        Scores are left out that another tokenizer, version or model has made than is asked for now.
        """
        path = self._out / SCORES
        if not path.is_file():
            return
        held = parse_scores(read_json(path), path)
        models = {**held.signatures, **{scorer.name: scorer.signature for scorer in self._scorers}}
        outdated = {name for name in METRICS if name not in held.signatures or held.signatures[name] != models[name]}
        if held.scoring != self._scoring:
            outdated |= {*SACREBLEU_METRICS, "bleu_json"}
        for direction, entry in held.entries.items():
            kept = {name: value for name, value in entry.items() if name not in outdated}
            own = self._scores.get(direction, {})
            if direction not in self._added:
                self._scores[direction] = kept
            elif all(kept.get(key) == own[key] for key in TEXT_HASHES):
                self._scores[direction] = {**own, **kept, **own}
        kept_signatures = {name: text for name, text in held.signatures.items() if name not in outdated}
        self._signatures = {**kept_signatures, **self._signatures}
        self._levels = {**self._levels, **held.levels, **self._evaluation.levels}
        if held.trained is not None:
            self._trained = held.trained | (self._trained or frozenset())

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
