"""Means over groups against plain loops that score every resample with sacrebleu, and against sacrebleu's own tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.report import measure
from langspec_lora.report.analysis import Analysis, Request, analyse
from langspec_lora.report.means import Resamples, mean_figures, relative_mean
from langspec_lora.report.seeds import seed_weights
from langspec_lora.report.shared_sentences import find_test_sets
from langspec_lora.report.texts import DirectionTexts, TextFile
from tests.reports import invented_texts, noisy, write_results

LEVELS = {"en": "high", "fr": "med", "wo": "low"}
SENTENCES, SAMPLES = 12, 60
TEXTS = invented_texts(tuple(LEVELS), SENTENCES)
RUNS = {"base": (0.8, 1), "mine": (0.85, 2), "again": (0.95, 3), "third": (0.75, 4)}
HYPOTHESES = {name: noisy(TEXTS, *how) for name, how in RUNS.items()}
DIRECTIONS = list(HYPOTHESES["base"])
METRICS = {"bleu": BLEU(tokenize="13a", force=True), "chrf": CHRF(word_order=2)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("runs")
    return {name: write_results(home / name, TEXTS, lines) for name, lines in HYPOTHESES.items()}


def analysed(folders: list[Path | tuple[Path, ...]], out: Path, **options) -> Analysis:
    kept = {"skip": ("off-target", "sentences"), "samples": SAMPLES, "mean_samples": SAMPLES, "processes": 1}
    return analyse(Request(folders, LEVELS, out / "cache", **{**kept, **options}))


def score(metric: str, hypotheses: list[str], references: list[str]) -> float:
    return METRICS[metric].corpus_score(hypotheses, [references]).score


def drawn(name: str, metric: str = "bleu") -> tuple[dict[Direction, float], list[dict[Direction, float]]]:
    """The scores of a run's directions, and those of every resample, one corpus_score each."""
    draws = np.random.default_rng(12345).choice(SENTENCES, size=(SAMPLES, SENTENCES), replace=True)
    own = {d: score(metric, HYPOTHESES[name][d], TEXTS[d.target]) for d in DIRECTIONS}
    return own, [
        {d: score(metric, [HYPOTHESES[name][d][i] for i in ids], [TEXTS[d.target][i] for i in ids]) for d in DIRECTIONS}
        for ids in draws
    ]


def average(scores: dict[Direction, float], members) -> float:
    return sum(scores[d] for d in members) / len(members)


GROUPS = {
    ("group", "all"): DIRECTIONS,
    ("group", "high→low"): [Direction("en", "wo")],
    ("from", "fr"): [d for d in DIRECTIONS if d.source == "fr"],
    ("into", "en"): [d for d in DIRECTIONS if d.target == "en"],
}


@pytest.mark.parametrize("metric", ["bleu", "chrf"])
def test_intervals_and_p_values_are_those_of_a_plain_loop_over_resamples(folders, tmp_path, metric) -> None:
    found = analysed([folders["base"], folders["mine"]], tmp_path, metric=metric)
    (base, bases), (mine, mines) = drawn("base", metric), drawn("mine", metric)
    for group, members in GROUPS.items():
        first, later = found.means.of[group]
        means = [np.array([average(scores, members) for scores in all_scores]) for all_scores in (bases, mines)]
        real = average(mine, members) - average(base, members)
        spread = np.abs(means[1] - means[0])
        p = (1 + sum(value - spread.mean() > abs(real) for value in spread)) / (SAMPLES + 1)
        assert first.interval == pytest.approx(np.percentile(means[0], [2.5, 97.5]), abs=1e-4)
        assert later.interval == pytest.approx(np.percentile(means[1], [2.5, 97.5]), abs=1e-4)
        assert later.difference == pytest.approx(np.percentile(means[1] - means[0], [2.5, 97.5]), abs=1e-4)
        assert later.p == pytest.approx(p, abs=1e-12)
        ratios = [
            np.exp(np.mean([np.log(max(later[d], 1) / max(first[d], 1)) for d in members]))
            for first, later in zip(bases, mines, strict=True)
        ]
        assert later.relative == pytest.approx(np.percentile(ratios, [2.5, 97.5]), abs=1e-4)
        assert (first.difference, first.p, first.relative) == (None, None, None)
    assert len({figures[1].p for figures in found.means.of.values()}) > 2
    assert found.means.of.keys() >= {*GROUPS, ("group", "low→med"), ("into", "wo")}


@pytest.mark.parametrize("test", ["bootstrap", "randomization"])
def test_where_a_group_is_one_direction_the_test_is_sacrebleus(folders, tmp_path, test) -> None:
    found = analysed([folders[name] for name in ("base", "mine", "again")], tmp_path, test=test)
    direction = Direction("en", "wo")
    names = ("base", "mine", "again")
    paired = PairedTest(
        [(name, HYPOTHESES[name][direction]) for name in names],
        {"bleu": BLEU(tokenize="13a", force=True, references=[TEXTS["wo"]])},
        None,
        test_type={"bootstrap": "bs", "randomization": "ar"}[test],
        n_samples=SAMPLES,
    )
    (results,) = (own for name, own in paired()[1].items() if name != "System")
    expected = [result.p_value for result in results[1:]]
    assert [figures.p for figures in found.means.of["group", "high→low"][1:]] == pytest.approx(expected, abs=1e-12)
    assert [own.p_values[direction] for own in found.comparisons] == pytest.approx(expected, abs=1e-12)
    assert len(set(expected)) == 2


def test_randomization_swaps_a_sentence_in_all_directions_at_once(folders, tmp_path) -> None:
    found = analysed(
        [folders["base"], folders["mine"]], tmp_path, test="randomization", skip=("off-target", "sentences")
    )
    kept = np.random.default_rng(12345).integers(2, size=(SAMPLES, SENTENCES), dtype=bool)
    for group, members in GROUPS.items():
        trials = []
        for row in kept:
            differences = []
            for d in members:
                pairs = list(zip(row, HYPOTHESES["base"][d], HYPOTHESES["mine"][d], strict=True))
                one = score("bleu", [a if stays else b for stays, a, b in pairs], TEXTS[d.target])
                other = score("bleu", [b if stays else a for stays, a, b in pairs], TEXTS[d.target])
                differences.append(other - one)
            trials.append(abs(np.mean(differences)))
        real = found.scores[1], found.scores[0]
        difference = abs(average(real[0], members) - average(real[1], members))
        p = (1 + sum(trial > difference for trial in trials)) / (SAMPLES + 1)
        assert found.means.of[group][1].p == pytest.approx(p, abs=1e-12)
    assert len({figures[1].p for figures in found.means.of.values()}) > 2


def test_seeds_are_drawn_together_with_the_sentences(folders, tmp_path) -> None:
    seeds = ("mine", "again", "third")
    runs = [folders["base"], tuple(folders[name] for name in seeds)]
    found = analysed(runs, tmp_path, names=["base", "lslo"])
    base, bases = drawn("base")
    drawn_seeds = [drawn(name) for name in seeds]
    chosen = np.random.default_rng((12345, 1)).integers(3, size=(2, SAMPLES))  # two of three
    for group, members in GROUPS.items():
        means = [
            np.mean([average(drawn_seeds[seed][1][sample], members) for seed in chosen[:, sample]])
            for sample in range(SAMPLES)
        ]
        firsts = np.array([average(scores, members) for scores in bases])
        real = np.mean([average(own, members) for own, _ in drawn_seeds]) - average(base, members)
        spread = np.abs(means - firsts)
        _, later = found.means.of[group]
        assert later.interval == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=1e-4)
        assert later.difference == pytest.approx(np.percentile(means - firsts, [2.5, 97.5]), abs=1e-4)
        assert later.p == pytest.approx(np.mean([*(spread - spread.mean() > abs(real)), True]), abs=1e-12)
    direction = Direction("en", "wo")
    p = found.means.of["group", "high→low"][1].p
    assert found.comparisons[0].p_values[direction] == pytest.approx(p, abs=1e-12)
    assert found.scores[1][direction] == pytest.approx(np.mean([own[direction] for own, _ in drawn_seeds]))


def test_draws_of_seeds_give_the_mean_its_unbiased_variance() -> None:
    values = np.array([20.0, 23.0, 31.0])
    drawn_means = values @ seed_weights(3, 200_000, 1)
    assert drawn_means.var() == pytest.approx(values.var(ddof=1) / 3, rel=0.02)
    assert np.allclose(seed_weights(3, 50, 1).sum(axis=0), 1)
    assert not np.array_equal(seed_weights(3, 50, 1), seed_weights(3, 50, 2))
    assert np.array_equal(seed_weights(1, 4, 1), np.ones((1, 4)))


def test_intervals_of_the_same_run_and_of_a_second_report_are_the_same(folders, tmp_path, monkeypatch) -> None:
    runs = [folders["base"], folders["mine"]]
    first = analysed(runs, tmp_path).means
    monkeypatch.setattr(measure, "_measure_direction", lambda task: pytest.fail("measured again"))
    assert analysed(runs, tmp_path).means == first
    assert (
        analysed(runs[::-1], tmp_path, skip=("significance", "off-target", "sentences")).means.of.keys()
        == first.of.keys()
    )
    equal = analysed(
        [folders["base"], folders["base"]], tmp_path, names=["x", "y"], skip=("significance", "off-target", "sentences")
    ).means
    assert all(own[1].difference == (0.0, 0.0) and own[1].p == 1.0 for own in equal.of.values())


def test_the_seeds_of_a_test_with_swaps_are_refused(folders, tmp_path) -> None:
    runs = [folders["base"], (folders["mine"], folders["again"])]
    with pytest.raises(UserError, match=r"--test randomization swaps .* and cannot swap the seeds of lslo; leave"):
        analysed(runs, tmp_path, names=["base", "lslo"], test="randomization")


def test_a_group_with_directions_without_sentences_has_no_interval(folders, tmp_path) -> None:
    own = Path(shutil.copytree(folders["mine"], tmp_path / "mine"))
    (own / "en-wo.hyp.txt").unlink()
    found = analysed([folders["base"], own], tmp_path)
    assert ("group", "all") not in found.means.of
    assert ("group", "high→low") not in found.means.of
    assert ("from", "en") not in found.means.of
    assert {("group", "low→high"), ("from", "wo"), ("into", "en")} <= found.means.of.keys()


def text(name: str, lines: int = 5) -> TextFile:
    return TextFile(Path(name), f"{sum(map(ord, name)):08x}" + name.encode().hex().zfill(56)[:56], lines)


def directions_of(*pairs: tuple[str, str, str | None, str]) -> dict[Direction, DirectionTexts]:
    found = {}
    for source, target, source_text, reference in pairs:
        direction = Direction(source, target)
        found[direction] = DirectionTexts(direction, text(reference), (), text(source_text) if source_text else None)
    return found


def test_directions_that_a_chain_of_texts_connects_share_sentences() -> None:
    multi = directions_of(("a", "b", "A", "B"), ("c", "b", "C", "B"), ("c", "d", "C", "D"), ("d", "a", "D", "A"))
    sets = find_test_sets(multi)
    assert {found.seed for found in sets.of.values()} == {12345}
    assert sets.note().startswith("All 4 directions have the same 5 sentences")
    own = directions_of(("a", "b", "A1", "B1"), ("b", "a", "B1", "A1"), ("a", "c", "A2", "C2"), ("c", "a", "C2", "A2"))
    sets = find_test_sets(own)
    seeds = [found.seed for found in sets.of.values()]
    assert seeds[0] == seeds[1] != seeds[2] == seeds[3]
    assert "The 4 directions have 2 test sets, which have no text in common" in sets.note()
    assert find_test_sets(dict(reversed(own.items()))).of == sets.of
    # A set keeps its resamples when the report has other directions beside it.
    more = find_test_sets({**own, **directions_of(("x", "y", "X", "Y"))})
    assert [more.of[d] for d in own] == list(sets.of.values())


def test_directions_of_unknown_sources_count_as_one_set_if_they_are_as_long() -> None:
    some = directions_of(("a", "b", None, "B"), ("a", "c", None, "C"), ("a", "d", None, "D"))
    some[Direction("a", "d")] = DirectionTexts(Direction("a", "d"), text("D", 6), ())
    sets = find_test_sets(some)
    seeds = [found.seed for found in sets.of.values()]
    assert seeds[0] == seeds[1] != seeds[2]
    assert "The source texts of 3 directions are not known" in sets.note()


def test_relative_means_rank_runs_alike_whichever_is_the_base() -> None:
    one, two = Direction("a", "b"), Direction("b", "a")
    x, y, z = {one: 40.0, two: 2.0}, {one: 20.0, two: 4.0}, {one: 10.0, two: 9.0}
    assert relative_mean(y, x, [one, two]) == pytest.approx(1.0)  # half and twice
    both = [one, two]
    assert relative_mean(z, x, both) == pytest.approx(relative_mean(y, x, both) * relative_mean(z, y, both))
    assert relative_mean({one: 0.0, two: 4.0}, {one: 0.5, two: 2.0}, both) == pytest.approx(2**0.5)


def test_scores_below_one_count_as_one_in_the_resamples_of_relative_means() -> None:
    one, two = DIRECTIONS[:2]
    vectors = {(one, 0): [0.01, 4.0], (one, 1): [2.0, 0.5], (two, 0): [8.0, 8.0], (two, 1): [8.0, 2.0]}
    resamples = Resamples([1, 1], lambda d, run, seed: np.array(vectors[d, run]), None, 2)
    scores = [{one: 1.0, two: 8.0}, {one: 1.0, two: 4.0}]
    found = mean_figures(resamples, scores, {("group", "all"): [one, two]}, [one, two])
    ratios = [(2 / 1 * 8 / 8) ** 0.5, (1 / 4 * 2 / 8) ** 0.5]
    assert found["group", "all"][1].relative == pytest.approx(np.percentile(ratios, [2.5, 97.5]))


def test_other_seeds_are_not_taken_from_the_measurements_of_an_earlier_report(folders, tmp_path) -> None:
    names = ["base", "lslo"]
    (tmp_path / "kept").mkdir()
    for seeds in (("mine", "again"), ("mine", "third"), ("mine", "third", "again"), ("third", "mine", "again")):
        runs = [folders["base"], tuple(folders[name] for name in seeds)]
        kept = analysed(runs, tmp_path / "kept", names=names)
        fresh = analysed(runs, tmp_path / "-".join(seeds), names=names)
        assert (kept.means, kept.comparisons) == (fresh.means, fresh.comparisons)
