"""What the runs of a report are called, which of their scores compare, and which levels their languages have."""

from __future__ import annotations

from pathlib import Path

import pytest

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.evaluation.metrics import METRICS
from langspec_lora.evaluation.results import Run
from langspec_lora.report.groups import group_members, known_levels, mean, order_by_level
from langspec_lora.report.runs import common_directions, require_comparable, run_names, shared_metrics

EN_FR, EN_WO, FR_WO = (Direction.parse(name) for name in ("en-fr", "en-wo", "fr-wo"))
SPM = "nrefs:1|case:mixed|eff:no|tok:flores101|smooth:exp|version:2.4.0"


def run(name: str, scores=None, **fields) -> Run:
    return Run(name, Path("of") / name, {"bleu": scores or {}}, **fields)


def test_runs_are_called_as_they_are_named_or_else_by_their_folders(tmp_path, monkeypatch) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    assert run_names(folders, ("x", "y")) == ["x", "y"]
    assert run_names(folders, None) == ["a", "b"]
    assert run_names([tmp_path / "a" / "r", tmp_path / "b" / "r"], None) == ["a/r", "b/r"]
    monkeypatch.chdir(tmp_path)
    assert run_names([Path(), Path("a")], None) == [tmp_path.name, "a"]
    with pytest.raises(UserError, match="the folders r, r have the same names; give --names"):
        run_names([tmp_path / "a" / "c" / "r", tmp_path / "b" / "c" / "r"], None)
    for names in (("x",), ("x", "y", "z"), ("x", "x")):
        with pytest.raises(UserError, match=rf"--names gives {','.join(names)} for 2 folders; give a different name"):
            run_names(folders, names)


@pytest.mark.parametrize(
    ("metric", "signature", "label"),
    [
        *(("bleu", f"nrefs:1|tok:{name}|version:2", "spBLEU") for name in ("spm", "flores101", "flores200")),
        ("bleu", "nrefs:1|tok:spBLEU-1K|version:2", "spBLEU"),
        ("bleu", "nrefs:1|tok:13a", "BLEU (13a)"),
        ("bleu", "nrefs:1|case:mixed", "BLEU"),
        ("bleu", "", "BLEU"),
        ("chrf", "nrefs:1|nw:2", "chrF++"),
        ("comet", "", "COMET × 100"),
    ],
)
def test_a_metric_is_called_as_the_field_calls_it(metric, signature, label) -> None:
    assert METRICS[metric].title(signature) == label


def test_runs_are_restricted_to_what_all_of_them_have() -> None:
    runs = [run("a", {FR_WO: 1.0, EN_WO: 2.0}), run("b", {EN_FR: 3.0, EN_WO: 4.0, FR_WO: 5.0})]
    assert common_directions(runs, "bleu") == ([FR_WO, EN_WO], 1)
    assert common_directions(runs[::-1], "bleu") == ([EN_WO, FR_WO], 1)
    assert common_directions(runs[:1], "bleu") == ([FR_WO, EN_WO], 0)
    with pytest.raises(UserError, match="of/a, of/c have no direction in common; nothing to compare"):
        common_directions([runs[0], run("c", {EN_FR: 3.0})], "bleu")


def test_runs_that_say_nothing_of_how_they_were_scored_compare_with_any() -> None:
    said = run("a", signatures={"bleu": SPM}, settings={"subset": "test"})
    newer = run("b", signatures={"bleu": SPM.replace("2.4.0", "2.6.0")}, settings={"subset": "test"})
    require_comparable([said, run("c"), newer], "bleu")


def test_runs_that_were_scored_otherwise_are_named_with_what_differs() -> None:
    runs = [run(name, signatures={"bleu": f"nrefs:1|tok:{name}"}) for name in ("13a", "char", "zh")]
    with pytest.raises(
        UserError, match=r"^13a has BLEU nrefs:1\|tok:13a and char has nrefs:1\|tok:char, so .* compared"
    ):
        require_comparable(runs, "bleu")
    with pytest.raises(UserError, match=r"^13a has BLEU nrefs:1\|tok:13a and char has nrefs:1\|tok:char, so"):
        require_comparable(runs[:2], "bleu")
    require_comparable(runs, "chrf")
    runs = [run("x"), *(run(name, settings={"subset": name}) for name in ("dev", "test", "valid"))]
    with pytest.raises(
        UserError, match=r"^dev has the subset dev and test has test, so their scores cannot be compared"
    ):
        require_comparable(runs, "bleu")


def test_other_metrics_are_shown_where_all_runs_have_them_and_computed_them_alike() -> None:
    directions = [EN_FR, EN_WO]
    scores = dict.fromkeys(directions, 1.0)
    every = {"bleu": scores, "chrf": {**scores, FR_WO: 1.0}, "comet": scores}
    runs = [Run("a", Path(), every, {"chrf": "nw:2|version:1"}), Run("b", Path(), every, {"chrf": "nw:2|version:2"})]
    assert shared_metrics(runs, directions, "bleu") == ["bleu", "chrf", "comet"]
    assert shared_metrics(runs, directions, "comet") == ["comet", "bleu", "chrf"]
    silent = Run("c", Path(), every)
    assert shared_metrics([*runs, silent], directions, "chrf") == ["chrf", "bleu", "comet"]
    otherwise = Run("d", Path(), every, {"chrf": "nw:0"})
    assert shared_metrics([*runs, otherwise], directions, "bleu") == ["bleu", "comet"]
    lacking = Run("e", Path(), {"bleu": scores, "comet": {EN_FR: 1.0}})
    assert shared_metrics([*runs, lacking], directions, "bleu") == ["bleu"]


def test_levels_are_those_that_the_runs_have_stored() -> None:
    one = run("one", levels={"en": "high", "fr": "med"})
    two = run("two", levels={"fr": "low", "en": "high", "wo": "low"})
    assert known_levels([one, two], [EN_FR, FR_WO]) == (
        {"en": "high", "fr": "med", "wo": "low"},
        ["two has other levels of fr than the runs before it, which count"],
    )
    assert known_levels([two], [EN_WO]) == (two.levels, [])


def test_levels_that_are_not_stored_are_the_papers_or_not_known() -> None:
    levels, remarks = known_levels([run("one"), run("two")], [EN_FR, EN_WO])
    assert [levels[name] for name in ("en", "fr", "wo")] == ["high", "high", "low"]
    assert remarks == []
    # Levels of which only some languages have one are none, and whether they differ is of no matter.
    some = [run("one", levels={"fr": "low"}), run("two", levels={"fr": "med"})]
    levels, remarks = known_levels(some, [EN_FR])
    assert levels["fr"] == "high"
    assert remarks == []
    other = Direction("xx", "fr")
    levels, (remark,) = known_levels(some, [other, Direction("fr", "yy"), Direction("yy", "xx")])
    assert levels == {}
    assert "no resource level is known for xx, yy; give the levels of all languages as --lang-resources" in remark
    assert "is known for xx;" in known_levels([run("one")], [other])[1][0]
    # Where some are stored, the others are lacking, whether or not the paper has them.
    stored = run("one", levels={"xx": "low"})
    assert "is known for yy, fr;" in known_levels([stored], [Direction("xx", "yy"), other])[1][0]


def test_a_language_without_a_level_is_named_and_without_any_levels_there_is_one_group() -> None:
    directions = [EN_FR, EN_WO]
    for sort, names in ((group_members, directions), (order_by_level, ["en", "fr", "wo"])):
        with pytest.raises(UserError, match="no resource level for fr, wo; put every language under high, med or low"):
            sort(names, {"en": "high"})
    assert group_members(directions, {}) == {"all": directions}


def test_languages_without_levels_come_as_they_are_named() -> None:
    assert order_by_level(["fr", "wo", "en", "fr", "wo"], {}) == ["fr", "wo", "en"]


def test_a_mean_is_that_of_the_directions_that_have_a_value() -> None:
    values = {EN_FR: 1.0, EN_WO: 4.0}
    assert mean(values, [EN_FR, EN_WO]) == mean(values, [EN_FR, FR_WO, EN_WO]) == 2.5
    assert mean(values, [FR_WO]) is None
    assert mean(values, []) is None
