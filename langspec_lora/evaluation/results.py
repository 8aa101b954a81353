"""A results folder: what is in it, how it is written, and how it is read.

::

    DIR/settings.json          what the hypotheses depend on; another call with other settings is refused
    DIR/SRC-TGT.hyp.txt        hypotheses of one direction, plain text in the order of the source
    DIR/provenance.tsv         hashes of the settings and of the text of each such file (see provenance.py)
    DIR/texts/LANG.SHA.txt     its sources and references, each text once; SHA: the first digits of its hash
    DIR/scores.json, .csv      scores of every direction, with signatures, settings and versions
    DIR/all_direction.spbleu   the same in the format of the published evaluation loop
    DIR/.lock                  always empty: which directions and files a process is working at (see evaluate.py)

Every file appears whole or not at all: it is written under another name, then renamed.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.evaluation.metrics import METRICS, USUAL_METRICS
from langspec_lora.evaluation.scores_file import is_score, parse_scores
from langspec_lora.files import below, read_json, read_lines
from langspec_lora.naming import some_of

logger = logging.getLogger(__name__)

SETTINGS = "settings.json"
SCORES = "scores.json"
SCORES_TABLE = "scores.csv"
PUBLISHED = "all_direction.spbleu"
LOCK = ".lock"
PROVENANCE = "provenance.tsv"

TEXTS = "texts"

_HYPOTHESES = ".hyp.txt"

RESULT_FILES = (SETTINGS, SCORES, SCORES_TABLE, PUBLISHED, f"*-*{_HYPOTHESES}", PROVENANCE, f"{TEXTS}/*.{'?' * 12}.txt")
"""Patterns of all results, in the order of their removal: hypotheses without settings are refused."""


def hypotheses_path(folder: Path, direction: Direction) -> Path:
    """The file of a direction's hypotheses in a results folder."""
    return below(folder, f"{direction}{_HYPOTHESES}")


def decoded(folder: Path) -> set[str]:
    """Names of the directions that a results folder has hypotheses of; empty if there is no folder."""
    look_again(folder)
    with suppress(OSError):
        names = os.listdir(folder)  # noqa: PTH208  half the time, for tens of thousands of files
        return {name.removesuffix(_HYPOTHESES) for name in names if name.endswith(_HYPOTHESES) and "-" in name}
    return set()


def look_again(folder: Path) -> None:
    """Lets an NFS client ask the server which files there are; until the folder changes, it may remember."""
    with suppress(OSError):
        os.utime(folder)


def text_path(folder: Path, language: str, digest: str) -> Path:
    """The file of a source or reference text in a results folder, by the hash of its lines."""
    return below(folder / TEXTS, f"{language}.{digest[:12]}.txt")


def scores_csv(scores: Mapping[Direction, Mapping]) -> str:
    """One line a direction: source, target, every metric that any direction has, and the number of sentences."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    metrics = [name for name in METRICS if name in USUAL_METRICS or any(name in score for score in scores.values())]
    writer.writerow(["source", "target", *metrics, "sentences"])
    for direction, score in scores.items():
        cells = [f"{score[metric]:.2f}" if metric in score else "" for metric in metrics]
        writer.writerow([*direction, *cells, score["sentences"]])
    return text.getvalue()


def published_format(scores: Mapping[Direction, Mapping]) -> str:
    """``all_direction.spbleu``: the direction's name, then what sacrebleu's command line prints for it."""
    return "".join(f"{direction}\n{score['bleu_json']}\n" for direction, score in scores.items())


@dataclass(frozen=True)
class Run:
    """The scores of one results folder.

    Attributes:
        name: what it is called in tables.
        folder: the folder.
        scores: for each metric the score of each direction, in percent.
        signatures: sacrebleu's signature of each metric.
        checkpoint: the checkpoint that was evaluated, where the folder says so.
        entries: all that ``scores.json`` holds of each direction; empty for a folder of the published loop.
        settings: how the hypotheses were made, where the folder says so.
        tokenize: sacrebleu's name of the BLEU tokenizer, where the folder says so.
        references: the folder from which the references were read, where the folder says so.
        levels: resource level of each language, where the folder says so.
        trained: the directions, by name, that the model was trained with, as far as its languages are evaluated; None
            if the folder does not say.
    """

    name: str
    folder: Path
    scores: Mapping[str, Mapping[Direction, float]]
    signatures: Mapping[str, str] = field(default_factory=dict)
    checkpoint: str = ""
    entries: Mapping[Direction, Mapping] = field(default_factory=dict)
    settings: Mapping = field(default_factory=dict)
    tokenize: str = ""
    references: str = ""
    levels: Mapping[str, str] = field(default_factory=dict)
    trained: frozenset[str] | None = None

    def metric(self, name: str) -> Mapping[Direction, float]:
        """The score of each direction by one metric.

        Raises:
            UserError: the folder does not have this metric.
        """
        if not self.scores.get(name):
            raise UserError(f"{self.folder} has no {name} scores; it has {some_of(self.scores)}")
        return self.scores[name]

    def hypotheses(self, direction: Direction) -> Path:
        """The file of a direction's hypotheses, which may be missing; the published loop names it differently."""
        return hypotheses_path(self.folder, direction) if self.entries else below(self.folder, f"{direction}.spbleu.h")


def read_run(folder: Path, name: str) -> Run:
    """Reads a results folder of ``langspec-lora evaluate`` or of the published evaluation loop.

    Raises:
        UserError: the folder holds neither, or one of its files is damaged.
    """
    scores_file = find_scores(folder)
    if scores_file.name == SCORES:
        held = parse_scores(read_json(scores_file), scores_file)
        files = some_of(f"{Path(path).name} (sha256 {digest[:12]})" for path, digest in held.checkpoints)
        return Run(
            name,
            folder,
            held.scores(),
            held.signatures,
            files,
            held.entries,
            held.settings,
            held.tokenize,
            held.references,
            held.levels,
            held.trained,
        )
    (_, above), *named = _published_blocks(read_lines(scores_file))
    blocks = [(direction, block) for direction, block in named if direction is not None]
    if not blocks:
        raise UserError(f"{scores_file} holds no direction; expected a line such as en-fr, then its score")
    if above.strip():
        raise UserError(
            f"{scores_file} is damaged: it begins with {above.strip()[:40]!r}, and not with a direction; delete the "
            "file and evaluate again"
        )
    scores: dict[Direction, float] = {}
    signature = ""
    signatures: dict[str, Direction] = {}
    for direction, block in blocks:
        try:
            score, signature = _published_score(block)
            if scores.setdefault(direction, score) != score:  # the published loop appends to the file
                logger.warning(
                    "%s has two scores of %s, %s and %s; the later counts",
                    scores_file,
                    direction,
                    scores[direction],
                    score,
                )
            scores[direction] = score
            signatures.setdefault(_VERSION.sub("", signature), direction)
        except (ValueError, TypeError, AttributeError, KeyError, OverflowError, RecursionError):
            raise UserError(
                f"{scores_file}: no score of sacrebleu under {direction}; delete the file and evaluate again"
            ) from None
    if len(signatures) > 1:
        (first, one), (second, other) = list(signatures.items())[:2]
        raise UserError(
            f"{scores_file}: sacrebleu scored {one} as {first[:80]!r} and {other} as {second[:80]!r}, so that their "
            "mean says nothing; evaluate all directions alike"
        )
    return Run(name, folder, {"bleu": scores}, {"bleu": signature})


def find_scores(folder: Path) -> Path:
    """The file of a results folder that holds its scores.

    Raises:
        UserError: there is none.
    """
    for path in (folder / SCORES, folder / PUBLISHED):
        if path.is_file():
            return path
    raise UserError(
        f"{folder} holds neither {SCORES} nor {PUBLISHED}; give a folder that 'langspec-lora evaluate' or "
        "scripts/evaluate.sh wrote"
    )


_VERSION = re.compile(r"[|+]version[:.][^|+]*")  # of sacrebleu, which does not change scores
_NAME = re.compile(r"[^\s{}\[\]\"'=|:,-]+-[^\s{}\[\]\"'=|:,-]+")


def _published_blocks(lines: Sequence[str]) -> Iterator[tuple[Direction | None, str]]:
    """The directions, each with the lines below its name; None with those above the first name."""
    direction: Direction | None = None
    block: list[str] = []
    for line in [*lines, "end-end"]:
        if _NAME.fullmatch(line.strip()):
            yield direction, "\n".join(block)
            direction, block = (Direction(*line.strip().split("-")), [])
        else:
            block.append(line)


def _published_score(block: str) -> tuple[float, str]:
    """The score and its signature in what sacrebleu printed: JSON, a line of text, or (``-b``) a bare number.

    Raises:
        ValueError, TypeError, AttributeError, KeyError, OverflowError, RecursionError: it is none of these.
    """
    text, signature = block.strip(), ""
    if text.startswith(("{", "[")):
        content = json.loads(text)
        entries = content if isinstance(content, list) else [content]
        entry: dict[str, Any] = next((e for e in entries if e.get("name") == "BLEU"), {})
        score, signature = float(entry["score"]), str(entry.get("signature", ""))
    elif match := re.match(r"BLEU[|+](\S+) = ([0-9.]+)", text):
        score, signature = float(match[2]), match[1]
    else:
        score = float(text)
    if not is_score(score, *METRICS["bleu"].bounds):
        raise ValueError(f"{score} is not a BLEU score")
    return score, signature
