"""``langspec-lora evaluate`` against the command line of sacrebleu, on text that its tokenizers treat differently."""

# ruff: noqa: RUF001  (the text is meant to hold such characters)

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import sacrebleu.tokenizers.tokenizer_spm
import sacrebleu.utils

from langspec_lora.cli.main import main
from langspec_lora.data.vocabulary import train_sentencepiece
from langspec_lora.evaluation.options import TOKENIZERS

REFERENCES = (
    "Hello, World! It's 3.14% of $1,000.50 (or so).",
    "“Quoted” – and then… a dash—or two; naïve café, ΑΒΓ αβγ.",
    "他说：“你好，世界！”然后在2024年走了。",
    "東京タワーは高さ333メートルです。とても有名な観光地だ。",
    "서울은 대한민국의 수도이다. 인구는 약 940만 명이다.",
    "&quot;A &amp; B&quot; <skipped> 5-year-old well-known U.S.A.",
    "one\u2028two\u0085three\u200bfour five\u00a0six seven",
    "यह एक परीक्षा है, और यह अच्छी है।",
    "ALL CAPITALS AND NOTHING ELSE HERE AT ALL",
    "same words same words same words same words",
    "Ünïcödé e\u0301 = é, ﬁ ≠ fi, ½ + ¼, 10°C … ok",
    "the last line ends like a file of Windows, with both ends\r",
)
HYPOTHESES = (
    "Hello , world! Its 3.14 % of $1,000.50 (or so) .",
    '"Quoted" - and then... a dash - or two; naive café, ΑΒΓ αβγ.',
    "他说：“你好世界！”之后在2024年离开了。",
    "東京タワーの高さは333メートルです。有名な観光地です。",
    "서울은 한국의 수도이다. 인구는 940만 명이다.",
    '"A & B" <skipped> 5 year old well-known USA.',
    "one two\u0085three\u200bfour  five six seven ",
    "यह एक परीक्षा है और यह अच्छा है।",
    "all capitals and nothing else here at all",
    "same words same words",
    "",
    "the last line ends like a file of Unix, with one end",
)
SIDES = {"en-fr": (REFERENCES, HYPOTHESES), "wo-nl": (HYPOTHESES, REFERENCES)}
"""References and hypotheses of each."""


@dataclass(frozen=True)
class Evaluated:
    """An evaluation whose texts were replaced by hand.

    Attributes:
        data: the binarised folder.
        checkpoint: its checkpoint.
        results: its folder.
        references: the folder of references.
        sacrebleu: the folder where sacrebleu finds its SentencePiece models.
    """

    data: Path
    checkpoint: Path
    results: Path
    references: Path
    sacrebleu: Path


def write(path: Path, lines: tuple[str, ...]) -> None:
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())


@pytest.fixture(scope="module")
def evaluated(results, toy_data, adapted, tmp_path_factory) -> Evaluated:
    folder = tmp_path_factory.mktemp("scores")
    shutil.copytree(results, folder / "results")
    (folder / "results" / "provenance.tsv").unlink()  # as an earlier version left it: the hypotheses are replaced
    shutil.copytree(toy_data.parent, folder / "references", ignore=lambda *_: ["bin"])
    for direction, (references, hypotheses) in SIDES.items():
        language = direction.split("-")[1]
        write(folder / "references" / f"test.{language}", references)
        for path in (folder / "results").glob(f"*-{language}.hyp.txt"):
            write(path, hypotheses)
    (folder / "sacrebleu" / "models").mkdir(parents=True)
    for lines, name in ((REFERENCES, "sacrebleu_tokenizer_spm.model"), (REFERENCES[:2], "flores200sacrebleuspm")):
        model = train_sentencepiece(lines * 3, 250)
        (folder / "sacrebleu" / "models" / name).write_bytes(model)
    return Evaluated(toy_data, adapted, folder / "results", folder / "references", folder / "sacrebleu")


def command_line(evaluated: Evaluated, direction: str, tokenize: str) -> tuple[float, float]:
    """BLEU and chrF++ as sacrebleu prints them, to two decimals."""
    reference = evaluated.references / f"test.{direction.split('-')[1]}"
    flags = ("-m", "bleu", "chrf", "--tokenize", tokenize, "--chrf-word-order", "2", "-w", "2", "-b")
    done = subprocess.run(
        [sys.executable, "-m", "sacrebleu", reference, "-i", evaluated.results / f"{direction}.hyp.txt", *flags],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "SACREBLEU": str(evaluated.sacrebleu)},
    )
    return tuple(json.loads(done.stdout))


@pytest.mark.parametrize("tokenize", TOKENIZERS)
def test_scores_of_every_tokenizer_are_those_of_sacrebleus_command_line(evaluated, tokenize, monkeypatch) -> None:
    for module in (sacrebleu.utils, sacrebleu.tokenizers.tokenizer_spm):
        monkeypatch.setattr(module, "SACREBLEU_DIR", str(evaluated.sacrebleu))
    command = ["evaluate", evaluated.data, "--checkpoint", evaluated.checkpoint, "--out", evaluated.results, "--cpu"]
    command += ["--references", evaluated.references, "--tokenize", tokenize, "--lang-pairs", ",".join(SIDES)]
    assert main([str(word) for word in command]) == 0
    scores = json.loads((evaluated.results / "scores.json").read_text())["directions"]
    for direction in SIDES:
        ours = tuple(round(scores[direction][metric], 2) for metric in ("bleu", "chrf"))
        assert ours == command_line(evaluated, direction, tokenize)


def test_the_text_tells_the_tokenizers_apart(evaluated) -> None:
    different = [name for name in TOKENIZERS if name != "flores101"]  # which is spm
    assert len({command_line(evaluated, "en-fr", name)[0] for name in different}) == len(different)
