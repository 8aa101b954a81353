"""The registry of metrics: what is in it, and that another metric needs nothing but its class there."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import pytest

from langspec_lora.cli import evaluate as evaluate_command
from langspec_lora.cli import report as report_command
from langspec_lora.cli.evaluate import mean_scores
from langspec_lora.data.directions import Direction
from langspec_lora.errors import ErrorCollector, UserError
from langspec_lora.evaluation.metrics import METRICS, MODEL_METRICS, SACREBLEU_METRICS, USUAL_METRICS, ModelMetric
from langspec_lora.evaluation.results import read_run, scores_csv
from langspec_lora.report.analysis import PARTS
from langspec_lora.report.tables import group_table, made_notes
from tests.reports import change_scores, invented_texts, noisy, report, write_results

TEXTS = invented_texts(("en", "fr"), 3)


class Length(ModelMetric):
    """A metric that this package does not have."""

    name, label = "length", "Length"
    bounds = (0.0, 10.0)
    package, extra, help = "length", "length", "score by length too"

    def explanation(self, title: str) -> str:
        return f"{title} is how long a hypothesis is"

    def load(self, model: str, cpu: bool):
        raise NotImplementedError


@pytest.fixture
def with_length(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in (METRICS, MODEL_METRICS):
        monkeypatch.setitem(registry, "length", Length())


def test_metrics_are_known_by_the_names_of_the_score_files() -> None:
    assert list(METRICS) == ["bleu", "chrf", "ter", "comet", "bleurt"]
    assert list(SACREBLEU_METRICS) == ["bleu", "chrf", "ter"]
    assert list(USUAL_METRICS) == ["bleu", "chrf"]
    assert list(MODEL_METRICS) == ["comet", "bleurt"]
    assert [metric.short_label("13a") for metric in METRICS.values()] == [
        *("BLEU (13a)", "chrF++", "TER", "COMET", "BLEURT")
    ]
    assert [metric.bounds for metric in USUAL_METRICS.values()] == [(0, 100), (0, 100)]


def test_another_metric_is_a_column_a_mean_and_a_flag(with_length) -> None:
    scores = {Direction("en", "fr"): {"bleu": 10.0, "chrf": 30.0, "length": 4.0, "sentences": 3}}
    (row,) = csv.DictReader(scores_csv(scores).splitlines())
    assert row["length"] == "4.00"
    assert mean_scores(scores) == {"bleu": 10.0, "chrf": 30.0, "length": 4.0}
    parser = argparse.ArgumentParser()
    evaluate_command.add_arguments(parser)
    args = parser.parse_args(["bin", "--checkpoint", "x.pt", "--out", "out", "--length", "model"])
    (options,) = evaluate_command._options(args, ErrorCollector()).values()
    assert options.scoring.models == {"length": "model"}
    parser = argparse.ArgumentParser()
    report_command.add_arguments(parser)
    assert parser.parse_args(["out", "--metric", "length"]).metric == "length"


def test_another_metric_is_read_checked_and_reported(with_length, tmp_path: Path) -> None:
    folder = write_results(tmp_path / "run", TEXTS, noisy(TEXTS, 0.5, 1))
    change_scores(folder, lambda content: [entry.update(length=4.0) for entry in content["directions"].values()])
    analysis, _ = report([folder], {}, tmp_path / "out", metric="length", skip=PARTS)
    assert analysis.label == "Length"
    assert group_table(analysis).cells == [["all", "2", "4.00"]]
    assert made_notes(analysis)[0].startswith("Length is how long a hypothesis is; means")
    change_scores(folder, lambda content: content["directions"]["en-fr"].update(length=11))
    with pytest.raises(UserError, match="says that length of en-fr is 11"):
        read_run(folder, "run")
