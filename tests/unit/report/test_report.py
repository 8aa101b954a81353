"""Group averages, the table, what is read from results folders, and the heat maps."""

from __future__ import annotations

import csv
import json
import random
from itertools import permutations
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from langspec_lora.data.directions import Direction, choose_directions, find_directions
from langspec_lora.errors import UserError
from langspec_lora.evaluation.results import Run, read_run
from langspec_lora.languages import PAPER_LEVELS
from langspec_lora.report.groups import group_members, order_by_level
from langspec_lora.report.heat_map import draw
from langspec_lora.report.map_list import direction_map
from langspec_lora.report.report import terminal_text
from langspec_lora.report.table import Table
from langspec_lora.report.tables import group_table, language_table, settings_table
from langspec_lora.resources import read_resources
from tests import ROOT
from tests.reports import report

LEVELS = {"en": "high", "fr": "high", "nl": "med", "wo": "low", "sd": "low"}
CONFIGS = ROOT / "configs" / "languages"


def random_scores(seed: int, languages=tuple(LEVELS)) -> dict[Direction, float]:
    draw = random.Random(seed)
    return {Direction(a, b): round(draw.uniform(0, 40), 2) for a, b in permutations(languages, 2)}


def write_published(folder: Path, scores: dict[Direction, float]) -> Path:
    """A folder as the published loop leaves it, with the JSON that sacrebleu prints."""
    folder.mkdir(parents=True)
    signature = "nrefs:1|case:mixed|eff:no|tok:flores101|smooth:exp|version:2.6.0"
    with (folder / "all_direction.spbleu").open("w") as file:
        for direction, score in scores.items():
            block = {"name": "BLEU", "score": score, "signature": signature, "verbose_score": "1.0/2.0 (BP = 1.000)"}
            file.write(f"{direction}\n{json.dumps(block, indent=1)}\n")
    return folder


def test_groups_hold_the_directions_of_a_loop_over_all_languages() -> None:
    directions = list(random_scores(1))
    groups = group_members(directions, LEVELS)
    for source_level in ("high", "med", "low"):
        for target_level in ("high", "med", "low"):
            members = [
                (source, target)
                for source in LEVELS
                for target in LEVELS
                if source != target and (LEVELS[source], LEVELS[target]) == (source_level, target_level)
            ]
            assert groups.get(f"{source_level}→{target_level}", []) == members
    assert groups["all"] == directions
    assert list(groups)[-1] == "all"


def test_means_of_groups_and_languages_are_those_of_a_loop_over_all_directions(tmp_path) -> None:
    runs = [random_scores(1), random_scores(2)]
    for scores in runs:
        del scores[Direction("sd", "en")]
    folders = [write_published(tmp_path / name, scores) for name, scores in zip("ab", runs, strict=True)]
    analysis, _ = report(folders, LEVELS, tmp_path / "out")

    def figures(members: list[Direction]) -> list[float]:
        one, two = (float(np.mean([scores[direction] for direction in members])) for scores in runs)
        return [one, two, two - one]

    def printed(cells: list[str]) -> object:
        return pytest.approx([float(cell) for cell in cells], abs=0.005001)

    for label, count, *cells in group_table(analysis).cells:
        own = [d for d in runs[0] if label in ("all", f"{LEVELS[d.source]}→{LEVELS[d.target]}")]
        assert int(count) == len(own)
        assert figures(own) == printed(cells)
    assert {line[0]: line[1] for line in language_table(analysis).cells} == LEVELS
    for language, _, *cells in language_table(analysis).cells:
        sides = ([d for d in runs[0] if d[side] == language] for side in (0, 1))
        assert [figure for members in sides for figure in figures(members)] == printed(cells)


def test_a_language_that_is_only_translated_from_has_no_mean_into_it(tmp_path) -> None:
    folder = write_published(tmp_path / "run", {Direction("en", "fr"): 1.0})
    analysis, _ = report([folder], LEVELS, tmp_path / "out")
    assert [line[2:] for line in language_table(analysis).cells] == [["1.00", "—"], ["—", "1.00"]]


def test_the_papers_twelve_languages_make_groups_of_12_and_16_directions() -> None:
    groups = group_members(list(random_scores(1, tuple(PAPER_LEVELS))), PAPER_LEVELS)
    assert {label: len(members) for label, members in groups.items()} == {
        **{"high→high": 12, "high→med": 16, "high→low": 16, "med→high": 16, "med→med": 12, "med→low": 16},
        **{"low→high": 16, "low→med": 16, "low→low": 12, "all": 132},
    }


def test_languages_are_ordered_from_high_to_low_and_as_the_file_names_them() -> None:
    assert order_by_level(["wo", "en", "nl", "sd", "fr", "en"], LEVELS) == ["en", "fr", "nl", "wo", "sd"]
    with pytest.raises(UserError, match="no resource level for xx"):
        order_by_level(["en", "xx"], LEVELS)


def test_report_compares_the_runs_on_their_common_directions(tmp_path) -> None:
    base, tuned = random_scores(1), random_scores(2)
    del tuned[Direction("wo", "sd")]
    folders = [write_published(tmp_path / "base", base), write_published(tmp_path / "fine tuned", tuned)]
    analysis, files = report(folders, LEVELS, tmp_path / "out")
    assert any("left out" in note and note.endswith(": 1") for note in analysis.notes)
    with (tmp_path / "out" / "report.csv").open() as file:
        rows = {row["group"]: row for row in csv.DictReader(file)}
    common = [direction for direction in base if direction in tuned]
    means = [sum(run[direction] for direction in common) / len(common) for run in (base, tuned)]
    assert rows["all"]["directions"] == "19"
    assert rows["all"]["base"] == f"{means[0]:.2f}"
    assert rows["all"]["fine tuned − base"] == f"{means[1] - means[0]:+.2f}"
    markdown = (tmp_path / "out" / "report.md").read_text()
    assert markdown.startswith(terminal_text(analysis).split("##")[0])
    assert markdown.startswith("# spBLEU")
    for path in files:
        assert path.stat().st_size > 0
        assert path.suffix != ".png" or f"({path.name})" in markdown


@pytest.mark.parametrize(
    ("block", "score"),
    [
        ('{\n "name": "BLEU",\n "score": 12.34,\n "signature": "nrefs:1|tok:13a"\n}', 12.34),
        ('[\n{"name": "BLEU", "score": 3.5, "signature": "s:1"},\n{"name": "chrF2++", "score": 50.0}\n]', 3.5),
        ("BLEU|nrefs:1|case:mixed|tok:spm|version:2.0.0 = 7.25 40.0/10.0/5.0/2.0 (BP = 1.000 ratio = 1.0)", 7.25),
        ("BLEU+case.mixed+numrefs.1+smooth.exp+tok.spm+version.1.5.1 = 31.7 60.1/40.0/20.0/10.0", 31.7),
        ("18.02", 18.02),
    ],
)
def test_every_form_of_sacrebleus_output_is_read(tmp_path, block, score) -> None:
    (tmp_path / "all_direction.spbleu").write_text(f"en-fr\n{block}\nzh-wo\n{block}\n")
    expected = {Direction("en", "fr"): score, Direction("zh", "wo"): score}
    assert read_run(tmp_path, "x").metric("bleu") == expected


def test_the_last_score_of_a_direction_counts_where_the_loop_ran_twice(tmp_path) -> None:
    (tmp_path / "all_direction.spbleu").write_text("en-fr\n1.0\nen-fr\n2.0\n")
    assert read_run(tmp_path, "x").metric("bleu") == {Direction("en", "fr"): 2.0}


def test_folders_without_scores_and_damaged_ones_are_named(tmp_path) -> None:
    with pytest.raises(UserError, match=r"holds neither scores\.json nor"):
        read_run(tmp_path, "x")
    (tmp_path / "all_direction.spbleu").write_text("en-fr\nsacreBLEU: error\n")
    with pytest.raises(UserError, match="no score of sacrebleu under en-fr"):
        read_run(tmp_path, "x")
    (tmp_path / "scores.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        read_run(tmp_path, "x")


@pytest.mark.parametrize(
    ("names", "words"), [(["a"], "for 2 folders"), (["a", "a"], "a different name"), (["a", "b", "c"], "for 2")]
)
def test_names_have_to_fit_the_folders(tmp_path, names, words) -> None:
    folders = [write_published(tmp_path / name, random_scores(1)) for name in ("base", "tuned")]
    with pytest.raises(UserError, match=words):
        report(folders, LEVELS, tmp_path / "out", names=names)


def test_folders_of_the_same_name_are_told_apart_by_their_parents(tmp_path) -> None:
    folders = [write_published(tmp_path / run / "results", random_scores(1)) for run in ("one", "two")]
    analysis, _ = report(folders, LEVELS, tmp_path / "out")
    assert [run.name for run in analysis.runs] == ["one/results", "two/results"]


def test_settings_are_compared_among_the_runs_that_say_them() -> None:
    said = [{"generation": {"beam": 5}, "subset": "test"}, {}, {"generation": {"beam": 4}, "subset": "test"}]
    runs = [Run(str(number), Path(), {}, settings=settings) for number, settings in enumerate(said)]
    assert settings_table(runs).cells == [["beam", "5", "not said", "4"]]
    assert settings_table(runs[:2]).cells == []


def test_markdown_columns_are_aligned() -> None:
    lines = Table(["group", "a|b"], [["high→high", "1.00"], ["all", "-12.34"]]).markdown().splitlines()
    assert len({len(line) for line in lines}) == 1
    assert "a\\|b" in lines[0]


@pytest.mark.parametrize("name", ["twelve", "thirty"])
@pytest.mark.parametrize("differences", [False, True])
def test_heat_maps_show_every_cell_where_it_belongs(tmp_path, name, differences) -> None:
    levels = read_resources(CONFIGS / f"{name}.yaml").levels
    languages = order_by_level(list(levels), levels)
    scores = dict.fromkeys((Direction(a, b) for a, b in permutations(languages, 2)), 0.0)
    corner = Direction(languages[-1], languages[0])  # bottom left: sources run down, targets to the right
    scores[corner] = 30.0
    path = tmp_path / "map.png"
    matrix = direction_map(
        "", "subtitle", scores, levels, limits=(-30.0 if differences else 0.0, 30.0), signed=differences
    )
    assert draw(matrix, path.with_suffix(""), "title") == [path, path.with_suffix(".svg")]
    assert "<svg" in path.with_suffix(".svg").read_text()
    picture = matplotlib.image.imread(path)[..., :3]
    assert picture.shape[1] > 1280
    darkest = picture.sum(axis=2) < 0.9  # nothing but the deepest colour of the scale and text
    rows, columns = np.nonzero(darkest[:, : picture.shape[1] * 8 // 10])
    block = [(r, c) for r, c in zip(rows, columns, strict=True) if darkest[r : r + 9, c : c + 9].all()]
    assert block
    assert min(r for r, _ in block) > picture.shape[0] * 0.85
    assert max(c for _, c in block) < picture.shape[1] * 0.25


def test_levels_of_the_configurations_agree_with_the_papers() -> None:
    twelve, thirty = (read_resources(CONFIGS / f"{name}.yaml") for name in ("twelve", "thirty"))
    assert dict(twelve.levels) == dict(PAPER_LEVELS)
    assert len(thirty.levels) == 30
    assert thirty.levels.items() >= twelve.levels.items()
    assert thirty.flores.items() >= twelve.flores.items()
    assert set(thirty.flores) == set(thirty.levels)


def test_directions_are_found_under_either_name_of_their_files(tmp_path) -> None:
    for name in ("test.en-fr.en", "test.en-fr.fr", "valid.en-de.en", "valid.en-de.de", "test.en-nl.en"):
        for suffix in ("bin", "idx"):
            (tmp_path / f"{name}.{suffix}").touch()
    assert find_directions(tmp_path, "test") == [Direction("en", "fr"), Direction("fr", "en")]


def test_directions_are_chosen_by_language_or_by_pair() -> None:
    available = [Direction(a, b) for a, b in permutations(("de", "en", "fr"), 2)]
    assert choose_directions(available, ["fr", "en"]) == [Direction("fr", "en"), Direction("en", "fr")]
    assert choose_directions(available, None, "en-de,fr-de") == [Direction("en", "de"), Direction("fr", "de")]
    assert len(choose_directions(available)) == 6
    for langs, pairs, words in (
        (["xx"], "all", "--langs names xx"),
        (["en", "en"], "all", "--langs names 'en' twice"),
        ([], "all", "--langs '' has an empty name"),
        (None, "", "--lang-pairs '' has an empty name"),
        (None, "en-fr,", "--lang-pairs 'en-fr,' has an empty name"),
        (None, "en-fr,fr-en,en-fr", "--lang-pairs names 'en-fr' twice"),
        (["de"], "all", "at least two"),
        (None, "en-xx", "--lang-pairs names en-xx"),
        (None, "en", "'en' is not a direction"),
        (None, "en-en", "'en-en' is not a direction"),
        (["de", "en"], "en-fr", "not both languages are in --langs"),
    ):
        with pytest.raises(UserError, match=words):
            choose_directions(available, langs, pairs)
