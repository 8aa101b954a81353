"""The files of a results folder that other programs read, and folders that the published evaluation loop wrote."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from sacrebleu.metrics import BLEU, CHRF

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.evaluation.results import hypotheses_path, published_format, read_run, scores_csv, text_path
from langspec_lora.files import read_json
from tests.reports import change_scores, invented_texts, noisy, write_results

EN_FR, FR_EN = Direction("en", "fr"), Direction("fr", "en")
SCORES = {
    EN_FR: {"bleu": 12.344, "chrf": 40.006, "sentences": 7, "bleu_json": "{…}"},
    FR_EN: {"bleu": 0.0, "chrf": 100.0, "sentences": 8, "bleu_json": "[…]"},
}


def test_the_table_has_a_line_for_each_direction_and_a_column_for_each_metric() -> None:
    assert scores_csv(SCORES) == (
        "source,target,bleu,chrf,sentences\nen,fr,12.34,40.01,7\nfr,en,0.00,100.00,8\n"  # by hand
    )
    with_comet = {**SCORES, EN_FR: {**SCORES[EN_FR], "comet": 71.5}}
    rows = list(csv.DictReader(scores_csv(with_comet).splitlines()))
    assert [row["comet"] for row in rows] == ["71.50", ""]
    assert [row["sentences"] for row in rows] == ["7", "8"]


def test_the_published_format_has_each_direction_above_its_score() -> None:
    assert published_format(SCORES) == "en-fr\n{…}\nfr-en\n[…]\n"


def test_files_stand_where_the_documentation_says() -> None:
    assert hypotheses_path(Path("out"), EN_FR) == Path("out/en-fr.hyp.txt")
    assert text_path(Path("out"), "en", "0123456789abcdef") == Path("out/texts/en.0123456789ab.txt")


REFERENCES, HYPOTHESES = ["a b c d e f", "g h i j k"], ["a b c d e x", "g h i j k"]


def printed(kind: str) -> tuple[str, float, str]:
    """What sacrebleu prints in one of its ways, and the score and signature in it."""
    bleu, chrf = BLEU(), CHRF()
    score, other = (metric.corpus_score(HYPOTHESES, [REFERENCES]) for metric in (bleu, chrf))
    signature, other_signature = (metric.get_signature().format() for metric in (bleu, chrf))
    entry, other_entry = score.format(2, False, signature, True), other.format(2, False, other_signature, True)
    texts = {
        "json": entry,
        "several metrics": json.dumps([json.loads(other_entry), json.loads(entry)], indent=1),
        "text": score.format(2, False, signature),
        "an early text": score.format(2, False, signature).replace("|", "+"),
        "a number": score.format(2, True),
    }
    signatures = {"a number": "", "an early text": signature.replace("|", "+")}
    return texts[kind], round(score.score, 2), signatures.get(kind, signature)


@pytest.mark.parametrize("kind", ["json", "several metrics", "text", "an early text", "a number"])
def test_scores_of_the_published_loop_are_read_however_sacrebleu_printed_them(tmp_path, kind) -> None:
    text, score, signature = printed(kind)
    (tmp_path / "all_direction.spbleu").write_text(f"\n  en-fr \n{text}\nfr-en\n\n{text}\n")
    run = read_run(tmp_path, "published")
    assert run.metric("bleu") == {EN_FR: score, FR_EN: score}
    assert run.signatures == {"bleu": signature}
    assert (run.name, run.folder, run.entries, run.checkpoint) == ("published", tmp_path, {}, "")
    assert run.hypotheses(EN_FR) == tmp_path / "en-fr.spbleu.h"
    with pytest.raises(UserError, match=f"{tmp_path} has no chrf scores; it has bleu"):
        run.metric("chrf")


def test_a_score_without_a_signature_is_read(tmp_path) -> None:
    (tmp_path / "all_direction.spbleu").write_text('en-fr\n{"name": "BLEU", "score": 100}\n')
    run = read_run(tmp_path, "run")
    assert (run.metric("bleu"), run.signatures) == ({EN_FR: 100.0}, {"bleu": ""})


@pytest.mark.parametrize("text", ["", "12.5\n", "en fr\n12.5\n"])
def test_a_published_file_without_directions_is_named(tmp_path, text) -> None:
    (tmp_path / "all_direction.spbleu").write_text(text)
    with pytest.raises(UserError, match=r"all_direction\.spbleu holds no direction; expected a line such as en-fr"):
        read_run(tmp_path, "run")


def test_a_folder_with_neither_file_is_named(tmp_path) -> None:
    with pytest.raises(UserError, match=r"holds neither scores\.json nor all_direction\.spbleu; give a folder that"):
        read_run(tmp_path, "run")
    with pytest.raises(
        UserError, match=r"settings\.json: No such file or directory; give a folder that 'langspec-lora"
    ):
        read_json(tmp_path / "settings.json")


def test_a_run_has_all_that_its_folder_says(tmp_path) -> None:
    texts = invented_texts(("en", "fr"), 3)
    write_results(tmp_path, texts, noisy(texts, 0.8, 1))
    checkpoints = [{"path": "/models/a.pt", "sha256": "0123456789abcdef"}, {"path": "b.pt", "sha256": "f" * 64}]
    change_scores(tmp_path, lambda content: content["settings"].update(checkpoint=checkpoints))
    (tmp_path / "all_direction.spbleu").write_text("en-fr\n1.5\n")  # for other programs; scores.json says more
    run, content = read_run(tmp_path, "run"), json.loads((tmp_path / "scores.json").read_text())
    assert run.checkpoint == "a.pt (sha256 0123456789ab), b.pt (sha256 ffffffffffff)"
    assert {str(direction): entry for direction, entry in run.entries.items()} == content["directions"]
    assert run.settings == content["settings"]
    assert run.signatures == content["signatures"]
    assert run.hypotheses(EN_FR) == tmp_path / "en-fr.hyp.txt"
    with pytest.raises(UserError, match="has no comet scores; it has bleu, chrf"):
        run.metric("comet")


def test_a_published_file_that_lost_its_first_name_is_refused(tmp_path) -> None:
    (tmp_path / "all_direction.spbleu").write_text('{"name": "BLEU", "score": 3.0}\nfr-en\n4.0\n')
    with pytest.raises(UserError, match=r"is damaged: it begins with .* and not with a direction"):
        read_run(tmp_path, "x")


def test_published_scores_of_different_settings_are_no_run(tmp_path) -> None:
    entry = '{{"name": "BLEU", "score": 3.0, "signature": "nrefs:1|tok:{}|version:{}"}}\n'
    path = tmp_path / "all_direction.spbleu"
    path.write_text(f"en-fr\n{entry.format('13a', '2.4')}fr-en\n{entry.format('13a', '2.6')}")
    assert read_run(tmp_path, "x").metric("bleu") == {EN_FR: 3.0, FR_EN: 3.0}
    path.write_text(f"en-fr\n{entry.format('13a', '2.4')}fr-en\n{entry.format('char', '2.4')}")
    with pytest.raises(
        UserError, match=r"scored en-fr as '.*13a' and fr-en as '.*char', so that their mean says nothing"
    ):
        read_run(tmp_path, "x")
