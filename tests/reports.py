"""Results folders for the tests of the report, and the report itself in one call."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path

from langspec_lora.data.directions import Direction
from langspec_lora.evaluation.scoring import TargetScorer, text_sha256
from langspec_lora.report.analysis import Analysis, Request, analyse
from langspec_lora.report.report import CACHE, make_folder, write_files
from langspec_lora.report.significance import MetricSettings, p_value, resample

Texts = Mapping[str, Sequence[str]]


def write_lines(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def invented_texts(languages: Sequence[str], sentences: int, seed: int = 0) -> dict[str, list[str]]:
    """Sentences of 5 to 12 words; every language has words of its own."""
    draw = random.Random(seed)
    meanings = [[draw.randrange(60) for _ in range(draw.randint(5, 12))] for _ in range(sentences)]
    return {name: [" ".join(f"{name}{word}" for word in meaning) for meaning in meanings] for name in languages}


def noisy(texts: Texts, keep: float, seed: int) -> dict[Direction, list[str]]:
    """Hypotheses of all directions: the references without some of their words."""
    draw = random.Random(seed)
    return {
        Direction(source, target): [
            " ".join(word for word in line.split() if draw.random() < keep) for line in texts[target]
        ]
        for source, target in permutations(texts, 2)
    }


def write_results(
    folder: Path,
    texts: Texts,
    hypotheses: Mapping[Direction, Sequence[str]],
    tokenize: str = "13a",
    with_texts: bool = True,
    **settings: object,
) -> Path:
    """A folder as ``langspec-lora evaluate`` leaves it; without texts, as its earlier versions did."""
    scores, scorer = {}, None
    for direction, lines in hypotheses.items():
        write_lines(folder / f"{direction}.hyp.txt", lines)
        scorer = TargetScorer(texts[direction.target], tokenize)
        scores[str(direction)] = scorer.score(direction, lines)
        if with_texts:
            scores[str(direction)]["source_text_sha256"] = text_sha256(texts[direction.source])
    for language, lines in texts.items() if with_texts else ():
        write_lines(folder / "texts" / f"{language}.{text_sha256(lines)[:12]}.txt", lines)
    content = {
        "scoring": {"tokenize": tokenize},
        "signatures": scorer.signatures(),
        "references": "nowhere",
        "settings": {"checkpoint": [{"path": f"{folder.name}.pt", "sha256": "0" * 64}], "subset": "test", **settings},
        "directions": scores,
    }
    (folder / "scores.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def change_scores(folder: Path, change) -> None:
    """Changes the content of ``scores.json``, as one of an earlier version, which has no hash."""
    content = json.loads((folder / "scores.json").read_text())
    content.pop("sha256", None)
    change(content)
    (folder / "scores.json").write_text(json.dumps(content))


def report(folders: Sequence[Path], levels: Mapping[str, str], out: Path, **options) -> tuple[Analysis, list[Path]]:
    """Analyses the folders and writes the files, in this process unless ``processes`` says otherwise."""
    make_folder(out)
    analysis = analyse(Request(folders, levels, out / CACHE, **{"processes": 1, **options}))
    return analysis, write_files(analysis, out)


def p_values(
    settings: MetricSettings,
    references: Sequence[str],
    base: Sequence[str],
    others: Sequence[Sequence[str]],
    samples: int,
) -> list[float]:
    """Those of other hypotheses against a base."""
    metric = settings.build(references)
    first, *later = (resample(settings, metric, lines, samples) for lines in (base, *others))
    return [p_value(first, own) for own in later]


def sacrebleu(*arguments: object) -> str:
    """What sacrebleu's command line prints."""
    command = [sys.executable, "-m", "sacrebleu", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
