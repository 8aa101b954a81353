"""Which scores a results folder keeps, and which hypotheses may be added to it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from langspec_lora.errors import UserError
from langspec_lora.evaluation import scoreboard
from langspec_lora.evaluation.directions import Direction
from langspec_lora.evaluation.scoreboard import Scoreboard
from langspec_lora.evaluation.scoring import TargetScorer
from langspec_lora.evaluation.settings import held_sources
from langspec_lora.evaluation.split_text import SplitText
from tests.reports import sacrebleu, write_lines

EN_WO = Direction("en", "wo")
OTHER = Direction("wo", "en")
TEXTS = {"en": ["a b c d e", "f g h i j"], "wo": ["k l m n o", "p q r s t"]}
HYPOTHESES = ["k l m n x", "p q r s t"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Texts beside the data, and hypotheses of two directions that have been scored."""
    for language, lines in TEXTS.items():
        write_lines(tmp_path / "mono" / f"test.{language}", lines)
    write_lines(tmp_path / "out" / "en-wo.hyp.txt", HYPOTHESES)
    write_lines(tmp_path / "out" / "wo-en.hyp.txt", TEXTS["en"])
    score(tmp_path)
    return tmp_path


def score(folder: Path, tokenize: str = "13a", directions=(EN_WO, OTHER)) -> dict:
    texts = SplitText(folder, "test", ("en", "wo"), folder / "mono", None, None)
    settings = {"checkpoint": [{"path": "model.pt", "sha256": "0"}]}
    board = Scoreboard(folder / "out", texts, tokenize, settings, (EN_WO, OTHER))
    for direction in directions:
        board.add(direction)
    board.write()
    return json.loads((folder / "out" / "scores.json").read_text())["directions"]


def command_line(folder: Path, *flags: str) -> str:
    files = (folder / "mono" / "test.wo", "-i", folder / "out" / "en-wo.hyp.txt", "--force")
    return sacrebleu(*files, "-b", "-w", 4, *(flags or ("--tokenize", "13a"))).strip()


def test_unchanged_text_is_not_scored_again(folder, monkeypatch) -> None:
    before = score(folder)
    monkeypatch.setattr(TargetScorer, "score", lambda *args: pytest.fail("scored again"))
    assert score(folder) == before


@pytest.mark.parametrize("changed", ["out/en-wo.hyp.txt", "mono/test.wo", "mono/test.en"])
def test_changed_text_is_scored_again(folder, changed) -> None:
    before = score(folder)
    write_lines(folder / changed, ["k l m o n", "p q r u v"])
    after = score(folder)
    assert f"{after['en-wo']['bleu']:.4f}" == command_line(folder)
    assert (after["en-wo"]["bleu"] != before["en-wo"]["bleu"]) == (changed != "mono/test.en")
    assert after["en-wo"] != before["en-wo"]


def test_another_tokenizer_scores_again_and_all_signatures_stay(folder) -> None:
    after = score(folder, "char")
    assert f"{after['en-wo']['bleu']:.4f}" == command_line(folder, "--tokenize", "char")
    kept = score(folder, "char")
    assert kept == after
    signatures = json.loads((folder / "out" / "scores.json").read_text())["signatures"]
    assert "tok:char" in signatures["bleu"]
    assert "nw:2" in signatures["chrf"]


def test_another_sacrebleu_scores_again(folder, monkeypatch) -> None:
    versions = scoreboard._versions
    scored = []
    score_one = TargetScorer.score
    monkeypatch.setattr(TargetScorer, "score", lambda *args: scored.append(args[1]) or score_one(*args))
    for package in ("sacrebleu", "sentencepiece"):
        monkeypatch.setattr(scoreboard, "_versions", lambda changed=package: {**versions(), changed: "0"})
        score(folder)
        assert scored == [EN_WO, OTHER], package
        scored.clear()
    monkeypatch.setattr(scoreboard, "_versions", lambda: {**versions(), "sentencepiece": "0", "torch": "0"})
    score(folder)
    assert scored == []


SETTINGS = {
    "checkpoint": [{"path": "a.pt", "sha256": "1" * 64}],
    "pairs": True,
    "dictionary_sha256": "2" * 64,
    "subset": "test",
    "generation": {"beam": 5},
    "encoder_langtok": "src",
    "decoder_langtok": True,
    "precision": "fp32",
    "sources": {"en-wo": "3" * 64},
}


def held(folder: Path, **changes: object) -> dict[str, str]:
    write_lines(folder / "en-wo.hyp.txt", HYPOTHESES)
    (folder / "settings.json").write_text(json.dumps(SETTINGS))
    return held_sources(folder, {**SETTINGS, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"checkpoint": [{"path": "a.pt", "sha256": "4" * 64}]}, "another checkpoint; its sha256 was 1+ and is 4+;"),
        ({"pairs": False}, "the checkpoint with its pairs, or without; it was True and is False"),
        ({"dictionary_sha256": "4" * 64}, "another dictionary; it was 2+ and is 4+"),
        ({"subset": "valid"}, "another subset; it was test and is valid"),
        ({"generation": {"beam": 4}}, "other generation settings; beam was 5 and is 4"),
        ({"encoder_langtok": "tgt"}, "another --encoder-langtok; it was src and is tgt"),
        ({"decoder_langtok": False}, "another --decoder-langtok; it was True and is False"),
        ({"precision": "bf16"}, "another precision; it was fp32 and is bf16"),
        ({"sources": {"en-wo": "4" * 64}}, "other data: the source text of en-wo has changed"),
    ],
)
def test_whatever_decides_a_hypothesis_is_compared(tmp_path, changes, words) -> None:
    with pytest.raises(UserError, match=words) as refusal:
        held(tmp_path, **changes)
    assert "--overwrite" in str(refusal.value)


def test_what_decides_no_hypothesis_is_not_compared(tmp_path) -> None:
    elsewhere = {"checkpoint": [{"path": "b.pt", "sha256": "1" * 64}], "references": "x"}
    more = {"sources": {"en-wo": "3" * 64, "wo-en": "5" * 64}, "generation": {"beam": 5, "lenpen": 1.0}}
    assert held(tmp_path, **elsewhere, **more) == {"en-wo": "3" * 64}
