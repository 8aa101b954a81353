"""Scores of hypotheses, against sacrebleu used as its documentation says."""

from __future__ import annotations

import hashlib
import logging
import subprocess
import sys

import pytest
import sacrebleu.metrics
from sacrebleu.metrics import BLEU, CHRF

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.evaluation.scoring import TargetScorer, text_sha256
from tests.reports import write_lines

EN_FR, NL_FR = Direction("en", "fr"), Direction("nl", "fr")
REFERENCES = ["one two three four five six", "seven eight nine ten eleven", "ö 日本 x y z"]
HYPOTHESES = ["one two three four five sex", "seven eight nine nine eleven", "ö 日本 x y"]


@pytest.mark.parametrize("tokenize", ["13a", "char"])
def test_scores_and_signatures_are_those_of_sacrebleu(tokenize) -> None:
    scorer = TargetScorer(REFERENCES, tokenize)
    for hypotheses in (HYPOTHESES, REFERENCES):
        found = scorer.score(EN_FR, hypotheses)
        bleu, chrf = BLEU(tokenize=tokenize), CHRF(word_order=2)
        scores = [metric.corpus_score(hypotheses, [REFERENCES]).score for metric in (bleu, chrf)]
        assert [found["bleu"], found["chrf"]] == scores
        assert found["sentences"] == 3
        assert found["hypotheses_sha256"] == digest(hypotheses)
        assert found["references_sha256"] == digest(REFERENCES)
        signatures = {name: metric.get_signature().format() for name, metric in (("bleu", bleu), ("chrf", chrf))}
        assert scorer.signatures() == signatures


def digest(lines: list[str]) -> str:
    return hashlib.sha256(b"".join(f"{line}\n".encode() for line in lines)).hexdigest()


def test_the_hash_of_lines_is_that_of_their_file(tmp_path) -> None:
    write_lines(tmp_path / "text", REFERENCES)
    assert text_sha256(REFERENCES) == hashlib.sha256((tmp_path / "text").read_bytes()).hexdigest()


def test_the_entry_is_what_the_command_line_prints(tmp_path) -> None:
    write_lines(tmp_path / "references", REFERENCES)
    write_lines(tmp_path / "hypotheses", HYPOTHESES)
    command = [sys.executable, "-m", "sacrebleu", tmp_path / "references", "-i", tmp_path / "hypotheses", "-w", "2"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"{TargetScorer(REFERENCES, '13a').score(EN_FR, HYPOTHESES)['bleu_json']}\n" == printed


def test_references_are_tokenized_once_for_all_directions_into_a_language(monkeypatch) -> None:
    made = []
    for metric in (BLEU, CHRF):

        class Counted(metric):
            def __init__(self, *args, **options) -> None:
                made.append(type(self).__mro__[1])
                super().__init__(*args, **options)

        monkeypatch.setattr(sacrebleu.metrics, metric.__name__, Counted)
    scorer = TargetScorer(REFERENCES, "13a")
    for direction in (EN_FR, NL_FR):
        scorer.score(direction, HYPOTHESES)
    assert sorted(metric.__name__ for metric in made) == ["BLEU", "CHRF"]


def test_nothing_is_said_of_text_that_looks_tokenized(caplog) -> None:
    lines = [f"a sentence {number} ." for number in range(120)]
    with caplog.at_level(logging.WARNING, "sacrebleu"):
        TargetScorer(lines, "13a").score(EN_FR, lines)
    assert not caplog.records
    with caplog.at_level(logging.WARNING, "sacrebleu"):
        BLEU().corpus_score(lines, [lines])
    assert caplog.records  # sacrebleu by itself


def test_another_number_of_hypotheses_is_named() -> None:
    with pytest.raises(UserError, match="nl-fr: 2 hypotheses but 3 references; give the references of the sentences"):
        TargetScorer(REFERENCES, "13a").score(NL_FR, HYPOTHESES[:2])
