"""Metrics that are computed on request: TER against sacrebleu, BLEURT by a stand-in, and how they are asked for."""

from __future__ import annotations

import itertools
import sys
import types
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from sacrebleu.metrics import TER
from sacrebleu.significance import PairedTest

from langspec_lora.cli.main import main
from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.evaluation.metrics import METRICS, RequestedScorer
from langspec_lora.evaluation.metrics.bleurt import BleurtScorer
from langspec_lora.evaluation.metrics.ter import Ter
from langspec_lora.evaluation.options import ScoringSettings, _metrics
from langspec_lora.report.analysis import Request, analyse
from langspec_lora.report.html import html_report
from langspec_lora.report.significance import MetricSettings, comparable, resampled_sums
from tests.reports import change_scores, invented_texts, noisy, write_results

TEXTS = invented_texts(("en", "fr"), 10)
EN_FR = Direction("en", "fr")


def test_scores_of_resamples_are_sacrebleus_own_of_their_sums() -> None:
    references = ["a b c d e f", "a b", "", "d e f a"]
    metric = Ter().build({}, references)
    sums = resampled_sums(metric._extract_corpus_statistics(["a c b d x", "", "y", "f e d"], None), 300)
    sums = np.concatenate([sums, [[0.0, 0.0], [2.0, 0.0]]])
    expected = [metric._compute_score_from_stats(row.tolist()).score for row in sums]
    assert Ter().scores_from_sums(sums) == pytest.approx(expected, rel=1e-9)
    assert len(set(expected)) > 10


@pytest.mark.parametrize(("norm", "punct", "case", "asian"), itertools.product((False, True), repeat=4))
def test_a_signature_says_how_to_score_again(norm, punct, case, asian) -> None:
    arguments = {"normalized": norm, "no_punct": punct, "case_sensitive": case, "asian_support": asian}
    metric = TER(**arguments, references=[["a"]])
    metric.corpus_score(["a"], None)
    signature = comparable(metric.get_signature().format())
    parts = dict(part.partition(":")[::2] for part in signature.split("|"))
    assert Ter().arguments_from(parts, "13a") == arguments
    MetricSettings("ter", signature, tuple(arguments.items())).build(["a"])


def test_a_lower_ter_is_a_win(tmp_path: Path) -> None:
    base, mine = noisy(TEXTS, 0.5, 1), noisy(TEXTS, 0.95, 2)
    scorer = RequestedScorer(Ter(), "13a")
    folders = []
    for name, lines in (("base", base), ("mine", mine)):
        folders.append(write_results(tmp_path / name, TEXTS, lines))
        scores = {str(d): scorer.score([], own, TEXTS[d.target]) for d, own in lines.items()}
        assert scores["en-fr"] == TER().corpus_score(lines[EN_FR], [TEXTS["fr"]]).score
        change_scores(folders[-1], lambda c: c["signatures"].update(ter=scorer.signature))
        change_scores(
            folders[-1], lambda c, scores=scores: [entry.update(ter=scores[d]) for d, entry in c["directions"].items()]
        )
    options = {"metric": "ter", "samples": 200, "mean_samples": 200, "processes": 1}
    found = analyse(Request(folders, {}, tmp_path / "cache", skip=("off-target", "sentences"), **options))
    assert found.label == "TER (lower is better)"
    assert set(found.comparisons[0].verdicts.values()) == {"win"}
    assert found.differences(1)[EN_FR] < 0
    paired = PairedTest(
        [("base", base[EN_FR]), ("mine", mine[EN_FR])],
        {"ter": TER(references=[TEXTS["fr"]])},
        None,
        test_type="bs",
        n_samples=200,
    )
    (results,) = (own for name, own in paired()[1].items() if name != "System")
    assert found.comparisons[0].p_values[EN_FR] == pytest.approx(results[1].p_value)
    page = html_report(found)
    assert 'class="gain">−' in page
    assert 'class="drop">−' not in page
    assert ">relative" not in page


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("tre", "--metrics names 'tre', which is none of bleu, chrf, ter; did you mean ter"),
        ("bleu,xyz", "--metrics names 'xyz', which is none of bleu, chrf, ter$"),
        ("comet", "--metrics names comet, which needs a model; give it as --comet MODEL"),
        ("ter,ter", "ter"),
        ("ter,,", "empty name"),
    ],
)
def test_unknown_metrics_are_named(text, error) -> None:
    with pytest.raises(UserError, match=error):
        _metrics(text)


def test_usual_metrics_need_not_be_asked_for() -> None:
    assert ScoringSettings().metrics == ("bleu", "chrf")
    assert _metrics("ter") == ("ter",)
    assert [name for name, metric in METRICS.items() if not metric.higher_is_better] == ["ter"]


def test_bleurt_is_its_mean_over_sentences_times_100(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(UserError, match=r"--bleurt needs the package BLEURT: pip install git\+https.*, or leave"):
        BleurtScorer(str(tmp_path))
    asked = []

    class Model:
        def __init__(self, path: str) -> None:
            asked.append(path)

        def score(self, *, references, candidates, batch_size) -> list[float]:
            asked.append((references, candidates))
            return [0.5, 0.75, -0.5]

    package, module = types.ModuleType("bleurt"), types.ModuleType("bleurt.score")
    package.__spec__ = types.SimpleNamespace()
    module.BleurtScorer = Model
    monkeypatch.setitem(sys.modules, "bleurt", package)
    monkeypatch.setitem(sys.modules, "bleurt.score", module)
    monkeypatch.setattr(metadata, "version", lambda name: "0.0.2")
    with pytest.raises(UserError, match=r"is no BLEURT checkpoint; give the unpacked folder, such as BLEURT-20"):
        BleurtScorer(str(tmp_path))
    (tmp_path / "BLEURT-20").mkdir()
    (tmp_path / "BLEURT-20" / "bleurt_config.json").write_text("{}")
    scorer = METRICS["bleurt"].load(str(tmp_path / "BLEURT-20"), cpu=True)
    assert scorer.score(["s"] * 3, ["h"] * 3, ["r"] * 3) == pytest.approx(25.0)
    assert asked == [str(tmp_path / "BLEURT-20"), (["r"] * 3, ["h"] * 3)]
    assert scorer.signature == "model:BLEURT-20|scale:100|version:0.0.2"


def test_the_command_refuses_an_unknown_metric(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["evaluate", str(tmp_path), "--checkpoint", "x.pt", "--out", str(tmp_path / "o"), "--metrics", "blue"])
    assert "--metrics names 'blue', which is none of bleu, chrf, ter; did you mean bleu?" in str(raised.value)
