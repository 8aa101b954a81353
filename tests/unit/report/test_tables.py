"""The tables, notes and files of a report on runs whose figures are known."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.evaluation.results import Run
from langspec_lora.report import heat_map as matrix
from langspec_lora.report import tables
from langspec_lora.report.analysis import Analysis
from langspec_lora.report.map_list import difference_maps, off_target_maps, score_maps
from langspec_lora.report.mean_tables import relative_notes
from langspec_lora.report.report import make_folder, terminal_text, write_files
from langspec_lora.report.table import Table
from langspec_lora.report.tables import (
    directions_table,
    group_table,
    language_table,
    off_target_table,
    overview_table,
    percent,
    settings_table,
    verdict_table,
)
from tests.analyses import BLEU, EN_FR, EN_WO, WO_EN, WO_FR, bare, made_analysis, only_the_first_run


@pytest.fixture(scope="module")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    return made_analysis(tmp_path_factory.mktemp("texts"))


def lines_of(table: Table) -> list[list[str]]:
    """The header and the lines, each as wide as the header."""
    assert {len(line) for line in table.cells} <= {len(table.header)}
    return [list(table.header), *map(list, table.cells)]


def test_a_table_is_the_same_in_markdown_and_as_comma_separated_values() -> None:
    table = Table(["a|b", "n", "n"], [["x,y", "1", "1,5"], ["longer", '"', "-12.25"]])
    assert table.markdown().split("\n") == [
        "| a\\|b   |   n |      n |",
        "| :----- | --: | -----: |",
        "| x,y    |   1 |    1,5 |",
        '| longer |   " | -12.25 |',
    ]
    assert Table(["n"], []).markdown() == "| n   |\n| :-- |"
    assert table.csv() == 'a|b,n,n\n"x,y",1,"1,5"\nlonger,"""",-12.25\n'


def test_the_overview_has_a_line_for_each_run(analysis) -> None:
    one, two = 32 / 30 * 9 / 10 * 26 / 20, 8 / 10 * 14 / 20 * 13 / 12  # products of four ratios
    assert [f"{100 * product**0.25 - 100:+.1f} %" for product in (one, two)] == ["+5.7 %", "-11.7 %"]
    assert lines_of(overview_table(analysis)) == [
        ["run", "BLEU (13a)", "against base", "relative", "wins / ties / losses", "wrong language", "no text"],
        ["base", "18.00", "", "", "", "≥ 17.5 %", "8.3 %"],
        ["one & 1", "19.75", "+1.75", "+5.7 %", "1 / 2 / 0", "≥ 25.0 %", "0.0 %"],
        ["two", "16.25", "-1.75", "-11.7 %", "1 / 0 / 2", "≥ 0.0 %", "25.0 %"],
    ]
    told = replace(analysis, off_target=replace(analysis.off_target, bounds=frozenset()))
    assert [line[-2] for line in overview_table(told).cells] == ["17.5 %", "25.0 %", "0.0 %"]
    assert lines_of(overview_table(bare(analysis))) == [
        ["run", "BLEU (13a)", "against base", "relative"],
        ["base", "18.00", "", ""],
        ["one & 1", "19.75", "+1.75", "+5.7 %"],
        ["two", "16.25", "-1.75", "-11.7 %"],
    ]
    two = replace(bare(analysis), runs=analysis.runs[:2], metrics={"bleu": analysis.scores[:2]})
    assert lines_of(overview_table(two))[2] == ["one & 1", "19.75", "+1.75", "+5.7 %"]
    assert lines_of(overview_table(only_the_first_run(analysis))) == [["run", "BLEU (13a)"], ["base", "18.00"]]


def test_groups_have_means_and_differences_in_any_metric(analysis) -> None:
    names = ["base", "one & 1", "two", "one & 1 − base", "two − base"]
    assert lines_of(group_table(analysis)) == [
        ["group", "directions", *names],
        ["high→med", "1", "30.00", "32.00", "30.00", "+2.00", "+0.00"],
        ["high→low", "1", "10.00", "9.00", "8.00", "-1.00", "-2.00"],
        ["low→high", "1", "20.00", "26.00", "14.00", "+6.00", "-6.00"],
        ["low→med", "1", "12.00", "12.00", "13.00", "+0.00", "+1.00"],
        ["all", "4", "18.00", "19.75", "16.25", "+1.75", "-1.75"],
    ]
    assert lines_of(group_table(analysis, "chrf")) == [
        ["group", "directions", *names],
        *([label, "1", "35.00", "37.50", "34.00", "+2.50", "-1.00"] for label in list(analysis.groups)[:4]),
        ["all", "4", "35.00", "37.50", "34.00", "+2.50", "-1.00"],
    ]


def test_languages_have_the_figures_from_them_and_into_them(analysis) -> None:
    names = ["base", "one & 1", "two", "one & 1 − base", "two − base"]
    header = ["language", "level", *(f"from: {name}" for name in names), *(f"into: {name}" for name in names)]
    en = ("20.00", "20.50", "19.00", "+0.50", "-1.00", "20.00", "26.00", "14.00", "+6.00", "-6.00")
    fr = (*["—"] * 5, "21.00", "22.00", "21.50", "+1.00", "+0.50")
    wo = ("16.00", "19.00", "13.50", "+3.00", "-2.50", "10.00", "9.00", "8.00", "-1.00", "-2.00")
    assert lines_of(language_table(analysis)) == [
        header,
        ["en", "high", *en],
        ["fr", "med", *fr],
        ["wo", "low", *wo],
    ]
    means = [0, 1, 2, 3, 4, 7, 8, 9]
    assert lines_of(language_table(analysis, differences=False)) == [
        [line[place] for place in means] for line in lines_of(language_table(analysis))
    ]
    assert [line[1] for line in language_table(bare(analysis)).cells] == ["—"] * 3


def test_verdicts_are_counted_for_each_later_run(analysis) -> None:
    assert lines_of(verdict_table(analysis)) == [
        ["group", "one & 1: wins / ties / losses", "two: wins / ties / losses"],
        ["high→med", "0 / 0 / 0", "0 / 0 / 0"],
        ["high→low", "0 / 1 / 0", "0 / 0 / 1"],
        ["low→high", "1 / 0 / 0", "0 / 0 / 1"],
        ["low→med", "0 / 1 / 0", "1 / 0 / 0"],
        ["all", "1 / 2 / 0", "1 / 0 / 2"],
    ]


def test_wrong_language_is_given_for_each_target_with_how_it_was_told(analysis) -> None:
    assert lines_of(off_target_table(analysis)) == [
        ["into", "told by", "references", "base", "one & 1", "two"],
        ["en", "py3langid", "5.0 %", "—", "—", "—"],
        ["fr", "py3langid", "0.0 %", "10.0 %", "0.0 %", "0.0 %"],
        ["wo", "script (Latin, Arabic)", "—", "≥ 25.0 %", "≥ 50.0 %", "≥ 0.0 %"],
        ["all", "", "", "≥ 17.5 %", "≥ 25.0 %", "≥ 0.0 %"],
    ]
    found = analysis.off_target
    judges = {language: judge for language, judge in found.judges.items() if language != "en"}
    told = replace(analysis, off_target=replace(found, judges=judges, bounds=frozenset()))
    assert [[line[0], line[3]] for line in off_target_table(told).cells] == [
        ["fr", "10.0 %"],
        ["wo", "25.0 %"],
        ["all", "17.5 %"],
    ]


def test_every_direction_has_a_line_with_all_that_is_known_of_it(analysis) -> None:
    names = ["base", "one & 1", "two", "one & 1 − base", "two − base"]
    wrong = [f"{name}: wrong language" for name in ("base", "one & 1", "two")]
    tested = [f"{name}: {what}" for name in ("one & 1", "two") for what in ("p (Holm)", "verdict")]
    assert lines_of(directions_table(analysis)) == [
        ["source", "target", "group", *names, *tested, *wrong],
        [*("en", "fr", "high→med", "30.00", "32.00", "30.00", "+2.00", "+0.00"), *[""] * 4, *["—"] * 3],
        [
            *("en", "wo", "high→low", "10.00", "9.00", "8.00", "-1.00", "-2.00"),
            *("0.1200", "tie", "0.0400", "loss", "25.0 %", "50.0 %", "0.0 %"),
        ],
        [
            *("wo", "en", "low→high", "20.00", "26.00", "14.00", "+6.00", "-6.00"),
            *("0.0015", "win", "0.0060", "loss", "—", "—", "—"),
        ],
        [
            *("wo", "fr", "low→med", "12.00", "12.00", "13.00", "+0.00", "+1.00"),
            *("1.0000", "tie", "0.0400", "win", "10.0 %", "0.0 %", "0.0 %"),
        ],
    ]
    full = [f"{name}: {what}" for name in ("one & 1", "two") for what in ("p", "p (Holm)", "verdict")]
    lines = lines_of(directions_table(analysis, full=True))
    assert lines[0] == ["source", "target", "group", *names, *full, *wrong]
    assert lines[1][8:14] == [""] * 6
    assert lines[3] == [
        *("wo", "en", "low→high", "20.0000", "26.0000", "14.0000", "+6.0000", "-6.0000"),
        *("0.000500", "0.001500", "win", "0.002000", "0.006000", "loss", "—", "—", "—"),
    ]
    assert lines_of(directions_table(bare(analysis)))[:2] == [
        ["source", "target", "group", *names],
        ["en", "fr", "—", "30.00", "32.00", "30.00", "+2.00", "+0.00"],
    ]


def test_settings_that_differ_are_named_but_for_those_of_the_data(analysis) -> None:
    assert lines_of(settings_table(analysis.runs)) == [
        ["setting", "base", "one & 1", "two"],
        ["beam", "5", "4", "not said"],
    ]
    data = [{"dictionary_sha256": name, "sources": name, "checkpoint": name, "beam": 5} for name in "ab"]
    assert settings_table([Run("x", Path(), {}, settings=settings) for settings in data]).cells == []


def test_a_share_is_a_percentage_a_lower_bound_or_unknown() -> None:
    assert [percent(0.1234), percent(0.1234, True), percent(None), percent(0.0)] == ["12.3 %", "≥ 12.3 %", "—", "0.0 %"]


def test_maps_of_scores_share_their_colours_and_say_their_mean(analysis) -> None:
    maps = score_maps(analysis)
    assert [(m.title, m.values, m.limits, m.signed) for m in maps] == [
        (run.name, scores, (0.0, 32.0), False) for run, scores in zip(analysis.runs, analysis.scores, strict=True)
    ]
    assert [m.subtitle for m in maps] == [
        f"mean {mean} over 4 directions, source × target" for mean in ("18.00", "19.75", "16.25")
    ]
    nothing = replace(analysis, metrics={"bleu": [dict.fromkeys(scores, 0.0) for scores in analysis.scores]})
    low, high = score_maps(nothing)[0].limits  # a scale needs two ends
    assert low == 0 < high < 1


def test_maps_of_differences_share_their_colours_and_say_where_a_run_is_better(analysis) -> None:
    one, two = difference_maps(analysis)
    assert (one.title, one.limits, one.signed) == ("one & 1 − base", (-6.0, 6.0), True)
    assert (two.title, two.limits, two.signed) == ("two − base", (-6.0, 6.0), True)
    assert one.values == {EN_FR: 2.0, EN_WO: -1.0, WO_EN: 6.0, WO_FR: 0.0}
    assert two.values == {EN_FR: 0.0, EN_WO: -2.0, WO_EN: -6.0, WO_FR: 1.0}
    assert one.subtitle == "mean +1.75; higher in 2 of 4 directions"
    assert two.subtitle == "mean -1.75; higher in 1 of 4 directions"
    equal = replace(analysis, metrics={"bleu": analysis.scores[:1] * 3})
    assert -1 < difference_maps(equal)[0].limits[0] < 0
    assert difference_maps(only_the_first_run(analysis)) == []


def test_notes_say_how_significance_was_tested(analysis) -> None:
    found = tables.significance_note(analysis)
    for part in ("against base", "--paired-bs, 2,000 resamples, seed 12345", "p below 0.05", "over the 3 directions"):
        assert part in found
    single = tables.significance_note(replace(analysis, comparisons=analysis.comparisons[:1]))
    assert single == found
    assert tables.significance_note(bare(analysis)) == ""
    assert "higher than base" in tables.difference_note(analysis)
    assert "Significant differences are bold" in tables.difference_note(analysis)
    assert "bold" not in tables.difference_note(bare(analysis))


def test_there_is_nothing_on_wrong_language_where_it_was_not_told(analysis) -> None:
    assert off_target_table(bare(analysis)).cells == []
    assert tables.off_target_notes(bare(analysis)) == []
    assert off_target_maps(bare(analysis)) == []


@pytest.mark.parametrize(
    ("languages", "told", "expected"),
    [
        (("wo", "en", "fr"), 2, ("Share of", "py3langid 1.2.3 judges", "Where the script judges", "told in 2 of 3")),
        (("wo",), 3, ("Share of", "Where the script judges")),
        (("en", "fr"), 3, ("Share of", "py3langid 1.2.3 judges")),
    ],
)
def test_notes_say_how_wrong_language_was_told(analysis, monkeypatch, languages, told, expected) -> None:
    monkeypatch.setattr(tables, "identifier_version", lambda: "1.2.3")
    found = analysis.off_target
    shares = dict.fromkeys(list(analysis.texts)[:told], 0.0)
    judges = {language: found.judges[language] for language in languages}
    changed = replace(analysis, off_target=replace(found, judges=judges, shares=(shares, {}, {})))
    lines = tables.off_target_notes(changed)
    for line, part in zip(lines, (*expected, "without any letter"), strict=True):
        assert part in line


def test_notes_say_what_a_score_is(analysis) -> None:
    assert [line.partition(" ")[0] for line in tables.made_notes(analysis)] == ["BLEU", "Sentences"]
    assert "BLEU (13a) is sacrebleu's corpus score" in tables.made_notes(analysis)[0]
    assert "chrF++ (--chrf-word-order 2)" in tables.made_notes(analysis)[1]
    (comet,) = tables.made_notes(replace(bare(analysis), metric="comet", labels={"comet": "COMET"}))
    assert comet.startswith("COMET is the mean over the sentences of a direction, times 100")


def summary(analysis: Analysis) -> list[str]:
    """The parts that the terminal and the file have in common."""
    return [
        "# BLEU (13a) by resource group",
        group_table(analysis).markdown(),
        "- BLEU (13a), means over directions\n- something is left out\n- so is another",
        "## Runs",
        overview_table(analysis).markdown(),
        "\n".join(f"- {line}" for line in relative_notes(analysis)),
        "≥ is a lower bound: neither a script nor the identifier tells all languages apart.",
        "## Wins, ties and losses",
        verdict_table(analysis).markdown(),
        tables.significance_note(analysis),
    ]


def test_the_terminal_shows_all_but_what_is_too_long_for_it(analysis) -> None:
    languages = ["## From and into each language", language_table(analysis, differences=False).markdown()]
    assert terminal_text(analysis).split("\n\n") == summary(analysis) + languages
    # As many languages as a terminal holds, and one more.
    for count, shown in ((40, True), (41, False)):
        many = replace(analysis, languages=[*analysis.languages, *map(str, range(3, count))])
        assert ("## From and into" in terminal_text(many)) == shown


def test_the_terminal_shows_no_part_that_there_is_nothing_for(analysis) -> None:
    plain = bare(analysis)
    titles = [part for part in terminal_text(plain).split("\n\n") if part.startswith(("#", "-", "≥"))]
    assert titles == ["# BLEU (13a)", "- BLEU (13a), means over directions", "## From and into each language"]
    found = replace(analysis.off_target, bounds=frozenset())
    for some, title in (
        (replace(plain, comparisons=analysis.comparisons), "## Wins, ties and losses"),
        (replace(plain, off_target=found), "## From and into each language"),
    ):
        parts = terminal_text(some).split("\n\n")
        assert [*parts[3:5], parts[6]] == ["## Runs", overview_table(some).markdown(), title]
        assert parts[5].startswith("- “Relative” to base is")


def test_the_files_of_a_report_are_written_and_named(analysis, tmp_path, monkeypatch) -> None:
    drawn = []
    monkeypatch.setattr(matrix, "draw", lambda *words: drawn.append(words) or [words[1]])
    files = write_files(analysis, tmp_path)
    names = ("base", "one___1", "two", "one___1-minus-base", "two-minus-base")
    pictures = [tmp_path / f"heatmap.{name}" for name in names]
    written = [tmp_path / f"report{suffix}" for suffix in (".html", ".md", ".csv", ".languages.csv", ".directions.csv")]
    assert files == [*written, *pictures]
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    groups = list(csv.reader((tmp_path / "report.csv").read_text(encoding="utf-8").splitlines()))
    assert [line[:7] for line in groups] == [*map(list, lines_of(group_table(analysis)))]
    assert [line[7:] for line in groups[:2]] == [["one & 1 / base", "two / base"], ["1.0667", "1.0000"]]
    directions = directions_table(analysis, full=True).csv()
    assert (tmp_path / "report.directions.csv").read_text(encoding="utf-8") == directions
    maps = [*score_maps(analysis), *difference_maps(analysis)]
    assert drawn == [(m, stem, f"BLEU (13a): {m.title}") for m, stem in zip(maps, pictures, strict=True)]
    titles = ("base", "one & 1", "two", "one & 1 − base", "two − base")
    parts = [
        *summary(analysis),
        "## From and into each language",
        language_table(analysis).markdown(),
        "## Wrong language",
        off_target_table(analysis).markdown(),
        "\n".join(f"- {line}" for line in tables.off_target_notes(analysis)),
        "## Heat maps",
        *(f"![{title}](heatmap.{name}.png)" for title, name in zip(titles, names, strict=True)),
        "## How it was made",
        "\n".join(
            [
                *(f"- {line}" for line in tables.made_notes(analysis)),
                f"- **base**: `{BLEU}`, a.pt (sha256 0)",
                f"- **one & 1**: `{BLEU}`",
                "- **two**: `no signature`",
            ]
        ),
    ]
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == "\n\n".join(parts) + "\n"


def test_pictures_of_runs_with_like_names_have_names_of_their_own(analysis, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(matrix, "draw", lambda matrix, stem, title: [stem])
    names = ("a_b-1.5", "a b-1.5", "a − b")
    runs = tuple(replace(run, name=name) for run, name in zip(analysis.runs, names, strict=True))
    files = write_files(replace(bare(analysis), runs=runs), tmp_path)
    assert [path.name for path in files[5:]] == [
        *("heatmap.a_b-1.5", "heatmap.a_b-1.5.1", "heatmap.a___b"),
        *("heatmap.a_b-1.5-minus-a_b-1.5", "heatmap.a-minus-b-minus-a_b-1.5"),
    ]
    assert "## Wrong language" not in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_a_folder_that_cannot_be_made_is_named(tmp_path) -> None:
    make_folder(tmp_path / "of" / "two")
    make_folder(tmp_path / "of" / "two")
    assert (tmp_path / "of" / "two").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file: File exists; give a writable folder as --out"):
        make_folder(tmp_path / "file")


def test_a_difference_that_rounds_to_zero_is_no_loss() -> None:
    pair = Direction("en", "fr")
    runs = (Run("base", Path("base"), {}), Run("mine", Path("mine"), {}))
    scores = ({pair: 20.001}, {pair: 20.0})
    analysis = Analysis(runs, "bleu", {"bleu": "BLEU"}, {"bleu": scores}, {}, {"all": [pair]}, ["en", "fr"])
    assert group_table(analysis).cells == [["all", "1", "20.00", "20.00", "+0.00"]]
