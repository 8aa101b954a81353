"""Reports on random runs: means of a plain loop, tables as written, and sacrebleu's own p-values."""

from __future__ import annotations

import csv
import io
import json
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sacrebleu.significance import PairedTest

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.languages import LEVELS
from langspec_lora.report import tables
from langspec_lora.report.analysis import PARTS, Request, analyse
from langspec_lora.report.measure import merge
from langspec_lora.report.measure_direction import lowest
from langspec_lora.report.significance import ALPHA, MetricSettings, holm
from tests.properties import examples
from tests.reports import p_values

LANGUAGES = ("en", "fr", "wo", "sd")
DIRECTIONS = [Direction(a, b) for a in LANGUAGES for b in LANGUAGES if a != b]
RUNS = st.lists(
    st.dictionaries(st.sampled_from(DIRECTIONS), st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=1),
    min_size=1,
    max_size=3,
)
TABLE = st.dictionaries(st.sampled_from(LANGUAGES), st.sampled_from(LEVELS))


def write_run(folder, scores) -> None:
    folder.mkdir()
    entries = {
        str(direction): {"bleu": bleu, "chrf": chrf, "sentences": 3} for direction, (bleu, chrf) in scores.items()
    }
    settings = {"checkpoint": [{"path": "a.pt", "sha256": "0" * 64}], "subset": "test"}
    signatures = {"bleu": "nrefs:1|tok:13a", "chrf": "nrefs:1|nw:2"}
    content = {"scoring": {"tokenize": "13a"}, "signatures": signatures, "settings": settings, "directions": entries}
    (folder / "scores.json").write_text(json.dumps(content))


@examples(60)
@given(RUNS, TABLE, st.sampled_from(("bleu", "chrf")))
def test_means_of_groups_are_those_of_a_plain_loop(tmp_path_factory, runs, levels, metric) -> None:
    home = tmp_path_factory.mktemp("report")
    folders = [home / f"run{number}" for number in range(len(runs))]
    for folder, scores in zip(folders, runs, strict=True):
        write_run(folder, scores)
    common = [direction for direction in runs[0] if all(direction in run for run in runs)]
    languages = {language for direction in common for language in direction}
    request = Request(folders, levels or None, home / "cache", metric=metric, skip=PARTS, processes=1)
    try:
        analysis = analyse(request)
    except UserError as error:
        lacking = bool(levels) and not languages <= set(levels)
        assert not common or lacking, str(error)
        return
    assert analysis.directions == common
    column = 0 if metric == "bleu" else 1
    rows = list(csv.reader(io.StringIO(tables.group_table(analysis).csv())))
    by_label = {row[0]: row for row in rows[1:]}
    known = analysis.levels
    for label, row in by_label.items():
        members = [d for d in common if label == "all" or f"{known[d.source]}→{known[d.target]}" == label]
        assert row[1] == str(len(members))
        means = [math.fsum(run[d][column] for d in members) / len(members) for run in runs]
        differences = [value - means[0] for value in means[1:]]
        for cell, value in zip(row[2:], [*means, *differences], strict=True):
            assert abs(float(cell.replace("−", "-")) - value) <= 0.0051
    if known:
        assert sum(int(row[1]) for label, row in by_label.items() if label != "all") == len(common)
    else:
        assert list(by_label) == ["all"]


WORDS = st.lists(st.sampled_from(("a", "b", "c", "the", "cat", ".")), max_size=7).map(" ".join)
RUN_OF_TEXTS = st.lists(st.tuples(WORDS.filter(bool), WORDS, WORDS), min_size=2, max_size=7)
METRICS = (
    MetricSettings("bleu", "", (("tokenize", "13a"), ("force", True))),
    MetricSettings("chrf", "", (("word_order", 2),)),
)


@examples(30)
@given(RUN_OF_TEXTS, st.sampled_from(METRICS))
def test_p_values_of_any_texts_are_sacrebleus_own(texts, settings) -> None:
    references, base, later = (list(lines) for lines in zip(*texts, strict=True))
    metric = settings.build(references)
    scores = [metric.corpus_score(lines, None).score for lines in (base, later)]
    (found,) = p_values(settings, references, base, [later], 60)
    if scores[0] == scores[1]:
        assert found == 1.0
        return
    test = PairedTest(
        [("base", base), ("later", later)], {"x": settings.build(references)}, None, test_type="bs", n_samples=60
    )
    (results,) = (own for name, own in test()[1].items() if name != "System")
    assert found == pytest.approx(results[1].p_value, abs=1e-12)


@examples(100)
@given(
    st.lists(st.floats(0, 1) | st.floats(0, 0.1) | st.sampled_from((0.001, 0.01, 0.02, 0.03)), min_size=1, max_size=30)
)
def test_holm_rejects_what_the_step_down_procedure_rejects(values) -> None:
    rejected, order = set(), sorted(range(len(values)), key=values.__getitem__)
    for step, index in enumerate(order):
        if values[index] * (len(values) - step) >= ALPHA:
            break
        rejected.add(index)
    corrected = holm(values)
    assert {index for index, value in enumerate(corrected) if value < ALPHA} == rejected
    least = 0.0
    for step, index in enumerate(order):
        least = max(least, min(1.0, values[index] * (len(values) - step)))
        assert corrected[index] == pytest.approx(least, abs=1e-12)


@examples(60)
@given(st.dictionaries(st.sampled_from(DIRECTIONS), st.lists(st.floats(0, 100), max_size=30), min_size=1))
def test_the_worst_sentences_of_all_are_the_lowest_of_a_plain_sort(values) -> None:
    found = merge({direction: lowest(own, range(len(own))) for direction, own in values.items()})
    every = sorted(value for own in values.values() for value in own)
    assert [sentence.value for sentence in found] == every[: len(found)]
    assert len(found) == min(20, len(every))
    assert len({(sentence.direction, sentence.index) for sentence in found}) == len(found)
    assume(found)
    assert all(values[sentence.direction][sentence.index] == sentence.value for sentence in found)
