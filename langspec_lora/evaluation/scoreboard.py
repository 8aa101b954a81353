"""The scores of a results folder: computed once for each text, and written together with how they were made."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

from langspec_lora import __version__
from langspec_lora.data.directions import Direction
from langspec_lora.evaluation.metrics import MODEL_METRICS, ModelScorer
from langspec_lora.evaluation.results import (
    PUBLISHED,
    SCORES,
    SCORES_TABLE,
    hypotheses_path,
    published_format,
    scores_csv,
    text_path,
)
from langspec_lora.evaluation.scores_file import parse_scores
from langspec_lora.evaluation.scoring import ENTRY_KEYS, TargetScorer, text_sha256
from langspec_lora.evaluation.split_text import SplitText
from langspec_lora.files import read_json, read_lines, write_json, write_whole

_SECONDS_BETWEEN_FILES = 30.0


class Scoreboard:
    """The scores so far; for a text that ``scores.json`` has scores of, they are taken from there.

    Args:
        out: the results folder.
        texts: sources and references.
        tokenize: sacrebleu's tokenizer of BLEU.
        settings: what the hypotheses were made with, written beside the scores.
        directions: all directions of the folder, in the order in which they are written.
        scorers: models of further metrics.
        writes: whether this process writes the score files now and then.
        levels: resource level of each language, written beside the scores; empty if the model does not say.
    """

    def __init__(
        self,
        out: Path,
        texts: SplitText,
        tokenize: str,
        settings: Mapping,
        directions: Sequence[Direction],
        scorers: Sequence[ModelScorer] = (),
        writes: bool = True,
        levels: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._out, self._texts, self._tokenize, self._settings = out, texts, tokenize, settings
        self._directions, self._writes, self._levels = directions, writes, dict(levels)
        self._models = {scorer.name: scorer for scorer in scorers}
        self._scores: dict[Direction, Mapping] = {}
        self._signatures: dict[str, str] = {}
        self._earlier: Mapping[Direction, Mapping] = {}
        self._earlier_signatures: Mapping[str, str] = {}
        self._earlier_scoring: Mapping[str, str] = {}
        self._scorer: tuple[tuple, TargetScorer] | None = None
        self._source: tuple[tuple, list[str]] | None = None
        self._written = time.monotonic()
        self.seconds = 0.0
        if (out / SCORES).is_file():
            content = read_json(out / SCORES)
            held = parse_scores(content, out / SCORES)
            self._earlier, self._earlier_signatures = held.entries, held.signatures
            self._earlier_scoring = content["scoring"]

    def add(self, direction: Direction) -> None:
        """Scores the hypotheses of a direction by sacrebleu's metrics, unless that has been done."""
        if direction in self._scores:
            return
        start = time.monotonic()
        self._scores[direction] = self._score(direction)
        self.seconds += time.monotonic() - start
        self._write_now_and_then()

    def _score(self, direction: Direction) -> Mapping:
        hypotheses = read_lines(hypotheses_path(self._out, direction))
        scorer, sources = self._scorer_for(direction), self._sources_of(direction)
        hashes = {
            "hypotheses_sha256": text_sha256(hypotheses),
            "references_sha256": self._keep(direction.target, scorer.references),
            "source_text_sha256": self._keep(direction.source, sources),
        }
        earlier = self._earlier.get(direction, {})
        if not hashes.items() <= earlier.items():
            earlier = {}
        if earlier.keys() >= ENTRY_KEYS and self._earlier_scoring == self._scoring():
            self._signatures = {**self._earlier_signatures, **self._signatures}
            return {name: value for name, value in earlier.items() if name not in MODEL_METRICS or self._keeps(name)}
        score = {**scorer.score(direction, hypotheses), **hashes}
        self._signatures |= scorer.signatures()
        for name in MODEL_METRICS:
            if name in earlier and self._keeps(name):
                self._signatures[name] = self._earlier_signatures[name]
                score[name] = earlier[name]
        return score

    def _keeps(self, metric: str) -> bool:
        """Whether earlier scores by a model are kept: those that name their model, if no other is asked for now."""
        earlier, scorer = self._earlier_signatures.get(metric), self._models.get(metric)
        return earlier is not None and (scorer is None or scorer.signature == earlier)

    def add_by_model(self, direction: Direction, scorer: ModelScorer) -> None:
        """Scores a direction, which :meth:`add` has scored, by a metric's model, unless that has been done."""
        if scorer.name in self._scores[direction]:
            return
        hypotheses = read_lines(hypotheses_path(self._out, direction))
        references = self._scorer_for(direction).references
        score = scorer.score(self._sources_of(direction), hypotheses, references)
        self._scores[direction] = {**self._scores[direction], scorer.name: score}
        self._signatures[scorer.name] = scorer.signature
        self._write_now_and_then()

    def _write_now_and_then(self) -> None:
        if self._writes and time.monotonic() - self._written > _SECONDS_BETWEEN_FILES:
            self.write()

    def part(self) -> tuple[dict[Direction, Mapping], dict[str, str]]:
        """Scores and signatures so far, for :meth:`join`."""
        return self._scores, self._signatures

    def join(self, parts: Sequence[tuple[dict[Direction, Mapping], dict[str, str]]]) -> None:
        """Adds what other processes have scored."""
        for scores, signatures in parts:
            self._scores |= scores
            self._signatures |= signatures

    def write(self) -> dict[Direction, Mapping]:
        """Writes the score files and returns the scores in the order of the directions."""
        scores = {direction: self._scores[direction] for direction in self._directions if direction in self._scores}
        content = {
            "scoring": self._scoring(),
            "signatures": self._signatures,
            "references": self._texts.origin,
            "versions": _versions(),
            "settings": self._settings,
            **({"levels": self._levels} if self._levels else {}),
            "directions": {str(direction): score for direction, score in scores.items()},
        }
        write_json(self._out / SCORES, content)
        write_whole(self._out / SCORES_TABLE, scores_csv(scores))
        write_whole(self._out / PUBLISHED, published_format(scores))
        self._written = time.monotonic()
        return scores

    def _scorer_for(self, direction: Direction) -> TargetScorer:
        key = self._texts.key(direction, direction.target)
        if self._scorer is None or self._scorer[0] != key:
            self._scorer = key, TargetScorer(self._texts.lines(direction, direction.target), self._tokenize)
        return self._scorer[1]

    def _sources_of(self, direction: Direction) -> list[str]:
        key = self._texts.key(direction, direction.source)
        if self._source is None or self._source[0] != key:
            self._source = key, self._texts.lines(direction, direction.source)
        return self._source[1]

    def _keep(self, language: str, lines: Sequence[str]) -> str:
        """Writes a text into the folder, for the report, and returns its hash."""
        digest = text_sha256(lines)
        path = text_path(self._out, language, digest)
        if not path.is_file():
            write_whole(path, "".join(f"{line}\n" for line in lines))
        return digest

    def _scoring(self) -> dict[str, str]:
        """What sacrebleu's scores depend on, besides hypotheses and references."""
        versions = _versions()
        return {"tokenize": self._tokenize, **{name: versions[name] for name in ("sacrebleu", "sentencepiece")}}


def _versions() -> dict[str, str]:
    versions = {"langspec_lora": __version__, "python": platform.python_version()}
    for package in ("fairseq", "torch", "sacrebleu", "sentencepiece"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "unknown"
    return versions
