"""The paired bootstrap against sacrebleu's command line, its formulas against sacrebleu's, and Holm's correction."""

from __future__ import annotations

import itertools
import random
import re

import numpy as np
import pytest
from sacrebleu import metrics as sacrebleu_metrics
from sacrebleu.significance import PairedTest

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.evaluation.metrics.bleu import Bleu
from langspec_lora.evaluation.metrics.chrf import Chrf
from langspec_lora.evaluation.results import Run
from langspec_lora.report.significance import (
    ALPHA,
    Comparison,
    MetricSettings,
    comparable,
    compare,
    default_samples,
    holm,
    metric_settings,
    resampled_sums,
)
from tests.reports import invented_texts, noisy, p_values, sacrebleu, write_lines

EN_FR, EN_WO, WO_EN = (Direction.parse(name) for name in ("en-fr", "en-wo", "wo-en"))
BLEU = MetricSettings("bleu", "", (("tokenize", "13a"), ("force", True)))
CHRF = MetricSettings("chrf", "", (("word_order", 2),))
TEXTS = invented_texts(("en", "fr"), 60)
REFERENCES = TEXTS["fr"]


def hypotheses(keep: float, seed: int) -> list[str]:
    return noisy(TEXTS, keep, seed)[("en", "fr")]


@pytest.mark.parametrize(
    ("settings", "flags"),
    [(BLEU, ("--tokenize", "13a", "--force")), (CHRF, ("-m", "chrf", "--chrf-word-order", "2"))],
    ids=["bleu", "chrf"],
)
def test_p_values_are_those_of_the_sacrebleu_command_line(settings, flags, tmp_path) -> None:
    base, others = hypotheses(0.7, 1), [hypotheses(0.72, 2), hypotheses(0.68, 3), hypotheses(0.9, 4)]
    files = [tmp_path / name for name in ("ref", "base", "one", "two", "three")]
    for path, lines in zip(files, [REFERENCES, base, *others], strict=True):
        write_lines(path, lines)
    # More than one chunk of resamples, and a last one that is not full.
    found = p_values(settings, REFERENCES, base, others, 2500)
    printed = sacrebleu(files[0], "-i", *files[1:], *flags, "--paired-bs", "--paired-bs-n", 2500, "-f", "text")
    assert [f"{p:.4f}" for p in found] == re.findall(r"p = ([0-9.]+)", printed)
    assert len(set(found)) == 3


@pytest.mark.parametrize("settings", [BLEU, CHRF], ids=["bleu", "chrf"])
def test_p_values_are_those_of_sacrebleus_own_test(settings) -> None:
    # Runs on both sides of the base, and longer ones.
    longer = [f"{line} {line.split()[0]}" if number % 4 else line for number, line in enumerate(REFERENCES)]
    runs = [hypotheses(0.7, 1), hypotheses(0.72, 2), hypotheses(0.68, 3), longer]
    found = p_values(settings, REFERENCES, runs[0], runs[1:], 150)
    named = list(zip(("base", "one", "two", "three"), runs, strict=True))
    test = PairedTest(named, {"x": settings.build(REFERENCES)}, None, test_type="bs", n_samples=150)
    (results,) = (own for name, own in test()[1].items() if name != "System")
    assert found == pytest.approx([result.p_value for result in results[1:]], abs=1e-12)
    assert len(set(found)) == 3


# Short and poor sentences, so that some resamples lack matches of an order, or all n-grams of one; and longer ones than
# the references.
SHORT = ["a b c d e f g", "a b", "c", "d e f a b c", "b b b", "f e d c b a"]
POOR = ["a b c d x", "a b", "", "d e f y", "b", "a f"]
LONG = ["a b c d e f g h", "a b c", "c c c", "d e f a b c x y", "b b b b", "f e d c b a a"]


@pytest.mark.parametrize(
    ("settings", "formula"), [(BLEU, Bleu().scores_from_sums), (CHRF, Chrf().scores_from_sums)], ids=["bleu", "chrf"]
)
@pytest.mark.parametrize("lines", [POOR, LONG], ids=["poor", "long"])
def test_scores_of_resamples_are_sacrebleus_own_of_their_sums(settings, formula, lines) -> None:
    metric = settings.build(SHORT)
    sums = resampled_sums(metric._extract_corpus_statistics(lines, None), 1500)
    # Lists of Python's floats: compute_bleu takes them as it takes sums of a corpus.
    expected = [metric._compute_score_from_stats(row.tolist()).score for row in sums]
    assert formula(sums) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert len(set(expected)) > 100
    assert settings is CHRF or 0 in expected


def test_the_weight_of_recall_is_chrfs_beta() -> None:
    metric = sacrebleu_metrics.CHRF(word_order=2, beta=3, references=[SHORT])
    sums = resampled_sums(metric._extract_corpus_statistics(POOR, None), 10)
    expected = [metric._compute_score_from_stats(row.tolist()).score for row in sums]
    assert Chrf().scores_from_sums(sums, beta=3) == pytest.approx(expected, rel=1e-9)


@pytest.mark.filterwarnings("error")  # of NumPy, which would stand between the lines of the report
def test_no_hypothesis_at_all_scores_nothing() -> None:
    cases = itertools.product(((BLEU, Bleu().scores_from_sums), (CHRF, Chrf().scores_from_sums)), ("a b c d e", ""))
    for (settings, formula), reference in cases:
        metric = settings.build([reference])
        assert metric.corpus_score([""], None).score == 0
        assert formula(resampled_sums(metric._extract_corpus_statistics([""], None), 3)).tolist() == [0, 0, 0]


def test_equal_runs_do_not_differ() -> None:
    base = hypotheses(0.7, 1)
    assert p_values(BLEU, REFERENCES, base, [list(base)], 1000) == [1.0]


def test_holm_rejects_what_the_step_down_procedure_rejects() -> None:
    draw = random.Random(7)
    for size in (1, 2, 5, 40):
        own = [round(draw.random() ** 4, 3) for _ in range(size)]  # with ties
        corrected = holm(own)
        for alpha in (0.001, 0.01, 0.05, 0.2, 0.9):
            rejected = set()
            for step, index in enumerate(sorted(range(size), key=lambda i: own[i])):
                if own[index] > alpha / (size - step):
                    break
                rejected.add(index)
            assert {i for i in range(size) if corrected[i] <= alpha + 1e-12} == rejected
        assert all(p <= c <= 1 for p, c in zip(own, corrected, strict=True))


def test_holm_multiplies_the_least_by_all_and_never_falls() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7, 0.0]) == [1.0, 1.0, 0.0]
    assert holm([]) == []


def test_the_default_resamples_are_25_for_each_direction_in_whole_thousands() -> None:
    expected = {1: 1000, 40: 1000, 41: 2000, 80: 2000, 81: 3000, 132: 4000, 870: 22000, 40000: 1000000}
    assert {directions: default_samples(directions) for directions in expected} == expected


@pytest.mark.parametrize("directions", [1, 2, 40, 132, 870])
def test_the_default_resamples_leave_room_for_significance_in_every_direction(directions) -> None:
    samples = default_samples(directions)
    least = 1 / (samples + 1)
    assert max(holm([least] * directions)) < ALPHA
    assert samples >= 1000  # sacrebleu's own


@pytest.mark.parametrize(
    ("difference", "p_value", "verdict"),
    [
        *((1.0, 0.01, "win"), (-1.0, 0.01, "loss"), (5.0, 0.05, "tie")),
        *((0.01, 0.0499, "win"), (-0.01, 0.0, "loss"), (-5.0, 0.06, "tie"), (0.0, 1.0, "tie")),
    ],
)
def test_verdicts_follow_the_sign_of_what_is_significant(difference, p_value, verdict) -> None:
    assert compare({EN_FR: p_value}, {EN_FR: difference, EN_WO: 9.0}).verdicts == {EN_FR: verdict}


def test_verdicts_are_of_corrected_values() -> None:
    found = compare({EN_FR: 0.03, EN_WO: 0.02, WO_EN: 0.01}, {EN_WO: 1.0, EN_FR: 1.0, WO_EN: -1.0})
    assert found.corrected == pytest.approx({EN_FR: 0.04, EN_WO: 0.04, WO_EN: 0.03})
    assert found.verdicts == {EN_FR: "win", EN_WO: "win", WO_EN: "loss"}


def test_verdicts_are_counted_where_there_are_any() -> None:
    comparison = Comparison({}, {}, {EN_FR: "win", EN_WO: "loss", WO_EN: "win"})
    assert comparison.count([EN_FR, EN_WO, WO_EN, Direction("fr", "wo")]) == "2 / 0 / 1"
    assert comparison.count([]) == "0 / 0 / 0"


def run_with(metric: str, signature: str, tokenize: str = "") -> Run:
    return Run("x", None, {}, {metric: signature}, tokenize=tokenize)


def test_the_metric_is_that_of_the_signature() -> None:
    found = metric_settings(run_with("bleu", "nrefs:1|case:lc|eff:no|tok:char|smooth:exp|version:2.4.0"), "bleu")
    assert dict(found.arguments) == {"tokenize": "char", "lowercase": True, "force": True}
    chrf = metric_settings(run_with("chrf", "nrefs:1|case:mixed|eff:yes|nc:6|nw:2|space:no|version:2.4.0"), "chrf")
    assert dict(chrf.arguments) == {"word_order": 2, "char_order": 6}


def test_the_tokenizer_is_that_which_the_run_names_rather_than_its_signature() -> None:
    # The signature names one of several that share a model; older ones by another name.
    signature = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.4.0"
    found = metric_settings(run_with("bleu", signature, "13a"), "bleu")
    assert found == MetricSettings(
        "bleu", signature[:-14], (("tokenize", "13a"), ("lowercase", False), ("force", True))
    )
    with pytest.raises(UserError, match=r"x was scored as .*tok:13a.*, which cannot be repeated here"):
        metric_settings(run_with("bleu", signature, "char"), "bleu")


def test_orders_of_chrf_are_those_of_the_signature() -> None:
    for words, characters in ((0, 6), (2, 4)):
        signature = f"nrefs:1|case:mixed|eff:yes|nc:{characters}|nw:{words}|space:no"
        found = metric_settings(run_with("chrf", signature), "chrf")
        assert found.signature == signature
        assert dict(found.arguments) == {"word_order": words, "char_order": characters}
    for signature in ("nrefs:1|case:mixed|eff:yes|nc:6|nw:many|space:no", "nrefs:1|case:mixed|eff:yes|space:no"):
        with pytest.raises(UserError, match="which cannot be repeated here"):
            metric_settings(run_with("chrf", signature), "chrf")


@pytest.mark.parametrize(
    ("run", "metric", "words"),
    [
        (run_with("bleu", ""), "bleu", "x does not say how it was scored; score it with"),
        (run_with("chrf", ""), "chrf", "x does not say how it was scored; score it with"),
        (run_with("chrf", "chrF2+numchars.6+space.false+version.1.5.1"), "chrf", "does not say how it was scored"),
        (
            run_with("bleu", "nrefs:1|case:mixed|eff:no|tok:13a|smooth:floor[0.10]|version:2"),
            "bleu",
            "cannot be repeated",
        ),
        (run_with("comet", "x"), "comet", "--metric bleu or chrf"),
        (run_with("bleu", "nrefs:1|case:mixed|eff:no|tok:none-such|smooth:exp|version:2"), "bleu", "no tokenizer"),
    ],
)
def test_what_cannot_be_tested_says_why(run, metric, words) -> None:
    with pytest.raises(UserError, match=words):
        metric_settings(run, metric)


def test_signatures_compare_without_version_and_by_the_tokenizers_newer_name() -> None:
    assert comparable("nrefs:1|tok:spm|version:2.0.0") == comparable("nrefs:1|tok:flores101|version:2.6.0")
    assert comparable("nrefs:1|tok:13a|version:2.0.0") != comparable("nrefs:1|tok:char|version:2.0.0")
    assert comparable("BLEU+case.mixed+tok.spm") == ""
    assert comparable("nrefs:1||case:mixed|version:2.6.0|tok:spm|") == "nrefs:1|case:mixed|tok:flores101"


def test_resamples_add_up_to_whole_test_sets() -> None:
    sums = resampled_sums(np.ones((17, 2)), 1003)
    assert sums.shape == (1003, 2)
    assert (sums == 17).all()
