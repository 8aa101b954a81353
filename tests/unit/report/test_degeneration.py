"""Output that has come apart is counted by its definition, and directions that training never saw have a row."""

from __future__ import annotations

from pathlib import Path

import pytest
from sacrebleu.metrics import BLEU

from langspec_lora.data.directions import Direction
from langspec_lora.evaluation.results import Run
from langspec_lora.report.analysis import Request, analyse
from langspec_lora.report.degeneration import Degeneration, count_degenerate, mean_shares, shares
from langspec_lora.report.groups import untrained_groups, with_untrained
from langspec_lora.report.mean_tables import group_csv
from langspec_lora.report.report import terminal_text
from langspec_lora.report.tables import COPY, directions_table, group_table, overview_table
from tests.reports import change_scores, invented_texts, noisy, write_results

REFERENCE = "the cat sat on the mat near Paris today"


SOURCE = "le chat est sur le tapis"


def counted(hypothesis: str, reference: str = REFERENCE, source: str | None = SOURCE) -> list[float]:
    return count_degenerate([hypothesis], [reference], None if source is None else [source])


@pytest.mark.parametrize("hypothesis", ["", "   ", "\t"])
def test_a_hypothesis_of_spaces_is_empty(hypothesis) -> None:
    assert counted(hypothesis)[:4] == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("hypothesis", "copied"),
    [
        ("le chat est sur le tapis", 1),
        ("LE CHAT, est sur le tapis!", 1),
        ("le chat est the cat sat", 1),  # just half
        ("le chat the cat sat", 0),
        ("the cat is on the carpet", 0),
        ("...", 0),
    ],
)
def test_a_copy_has_at_least_half_of_its_words_from_the_source(hypothesis, copied) -> None:
    assert counted(hypothesis)[2] == copied


def test_what_the_reference_has_in_common_with_the_source_is_no_copy() -> None:
    assert counted("Angela Merkel Berlin", "Angela Merkel Berlin", "Angela Merkel Berlin")[2] == 0
    assert counted("Angela Merkel", REFERENCE, None)[2] == -1


@pytest.mark.parametrize(
    ("hypothesis", "reference", "repeated"),
    [
        ("a b c d " * 3, REFERENCE, 1),
        ("a b c d " * 2, REFERENCE, 0),
        ("the " * 6, REFERENCE, 1),
        ("the " * 5, REFERENCE, 0),
        ("a b c d " * 3, "a b c d e a b c d f g", 0),  # which repeats itself too
        ("我喜欢猫" * 3, "我非常喜欢很多种不同的猫和狗还有其他动物", 1),
        ("我喜欢猫" * 2, "我非常喜欢很多种不同的猫和狗还有其他动物", 0),
        ("abcd" * 3, REFERENCE, 0),  # a word where there are spaces
    ],
)
def test_a_hypothesis_repeats_itself_if_a_4_gram_occurs_two_times_more_than_in_the_reference(
    hypothesis, reference, repeated
) -> None:
    assert counted(hypothesis, reference)[3] == repeated


def test_lengths_and_shares() -> None:
    counts = count_degenerate(["ab c", "", "d"], ["abcd", "ef", "gh"], ["x", "y", "z"])
    assert counts == [3, 1, 0, 0, 4, 8]
    assert shares(counts) == Degeneration(1 / 3, 0.0, 0.0, 0.5)
    assert shares([0, 0, -1, 0, 0, 0]) == Degeneration(0.0, None, 0.0, None)
    one, two, three = (Direction("a", name) for name in "bcd")
    found = {one: Degeneration(0.5, None, 0.0, 1.0), two: Degeneration(0.0, 0.25, 1.0, None)}
    assert mean_shares(found, [one, two, three]) == Degeneration(0.25, 0.25, 0.5, 1.0)
    assert mean_shares(found, [three]) is None


LEVELS = {"en": "high", "fr": "low", "wo": "low"}
TEXTS = invented_texts(tuple(LEVELS), 8)
EN_FR, FR_EN, FR_WO = (Direction(*pair) for pair in (("en", "fr"), ("fr", "en"), ("fr", "wo")))


def test_a_report_shows_degenerate_output_copies_and_what_was_not_trained(tmp_path: Path) -> None:
    texts = {**TEXTS, "fr": [f"{line} {TEXTS['en'][n]}" for n, line in enumerate(TEXTS["fr"])]}  # French knows English
    base, mine = noisy(texts, 0.8, 1), noisy(texts, 0.9, 2)
    mine[FR_EN] = mine[FR_WO] = ["", *texts["fr"][1:]]
    folders = [write_results(tmp_path / name, texts, lines) for name, lines in (("base", base), ("mine", mine))]
    change_scores(folders[1], lambda c: c.update(trained=["en-fr", "fr-en", "en-wo", "wo-en"]))
    options = {"skip": ("off-target",), "samples": 20, "mean_samples": 20, "processes": 1}
    found = analyse(Request(folders, LEVELS, tmp_path / "cache", **options))
    own = found.degeneration[1]
    assert (own[FR_WO].empty, own[FR_WO].copied) == (1 / 8, 7 / 8)
    assert (own[FR_EN].empty, own[FR_EN].copied) == (1 / 8, 0.0)  # the references are in the sources too
    bleu = BLEU(tokenize="13a", force=True)
    copies = {d: bleu.corpus_score(texts[d.source], [texts[d.target]]).score for d in found.directions}
    assert found.copies == pytest.approx(copies)
    assert overview_table(found).cells[-1][:2] == [COPY, f"{sum(copies.values()) / 6:.2f}"]
    assert copies[EN_FR] > 5
    rows = {line[0]: line for line in group_table(found).cells}
    assert [*rows][-2:] == ["not trained", "all"]
    assert rows["not trained"][1] == "2"
    assert "2 of 6 directions were not among the training directions (row “not trained”)" in found.notes
    table = directions_table(found, full=True)
    column = table.header.index("not trained")
    assert {tuple(line[:2]) for line in table.cells if line[column] == "yes"} == {("fr", "wo"), ("wo", "fr")}
    assert table.cells[found.directions.index(FR_WO)][table.header.index("mine: copied")] == "87.5 %"
    assert f",{COPY}," in group_csv(found)
    said = terminal_text(found)
    assert "## Degenerate output" in said
    assert f"| {COPY}" in said


def test_directions_are_not_trained_for_the_runs_that_say_so() -> None:
    directions = [EN_FR, FR_EN, FR_WO]

    def run(trained: set[str] | None) -> Run:
        return Run("x", Path("x"), {}, trained=None if trained is None else frozenset(trained))

    hub, every, silent = run({"en-fr", "fr-en"}), run({"en-fr", "fr-en", "fr-wo"}), run(None)
    assert untrained_groups({"base": [silent], "hub": [hub]}, directions) == {"not trained": (FR_WO,)}
    assert untrained_groups({"hub": [hub], "every": [every]}, directions) == {"not trained by hub": (FR_WO,)}
    three = {"base": [every], "hub": [hub], "wheel": [hub]}
    assert untrained_groups(three, directions) == {"not trained by hub and wheel": (FR_WO,)}
    assert untrained_groups({"seeds": [hub, every]}, directions) == {}
    assert untrained_groups({"none": [run(set())]}, directions) == {"not trained": tuple(directions)}
    assert untrained_groups({"base": [silent]}, directions) == {}
    assert [*with_untrained({"all": directions}, {"not trained": (FR_WO,)})] == ["not trained", "all"]
