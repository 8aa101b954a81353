"""``scores.json`` with anything in it that should not be there, and with and without levels."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from langspec_lora.cli.main import main
from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.evaluation.results import read_run
from langspec_lora.evaluation.scores_file import parse_scores, sealed
from langspec_lora.evaluation.settings import held_sources
from tests.reports import change_scores, invented_texts, noisy, write_results

TEXTS = invented_texts(("aa_Latn", "bb_Latn", "cc_Latn"), 6)
LEVELS = {"cc_Latn": "high", "aa_Latn": "low", "bb_Latn": "high"}
FIRST = "aa_Latn-bb_Latn"


def folder_of(path: Path, keep: float = 0.7, **content) -> Path:
    folder = write_results(path, TEXTS, noisy(TEXTS, keep, 1))
    change_scores(folder, lambda scores: scores.update(content))
    return folder


def report(*words: object) -> None:
    assert main(["report", *map(str, words), "--skip", "off-target,sentences,significance"]) == 0


def refusal(folder: Path) -> str:
    with pytest.raises(SystemExit) as refused:
        report(folder)
    message = refused.value.code
    assert message.startswith("langspec-lora: error: ")
    assert message.isprintable()
    return message


def put(*path: str, value: object = None):
    """Puts a value at a place of the file; None takes it out."""

    def change(content: dict) -> None:
        for key in path[:-1]:
            content = content[key]
        if value is None:
            del content[path[-1]]
        else:
            content[path[-1]] = value

    return change


DAMAGE = [
    (put("directions", FIRST, "bleu", value="abc"), f"says that bleu of {FIRST} is 'abc'"),
    (put("directions", FIRST, "chrf", value=float("nan")), f"says that chrf of {FIRST} is nan"),
    (put("directions", FIRST, "bleu", value=float("inf")), f"says that bleu of {FIRST} is inf"),
    (put("directions", FIRST, "bleu", value=-3), f"says that bleu of {FIRST} is -3"),
    (put("directions", FIRST, "bleu", value=10**400), f"says that bleu of {FIRST} is 1000"),
    (put("directions", FIRST, "bleu", value=100.5), f"says that bleu of {FIRST} is 100.5"),
    (put("directions", FIRST, "bleu", value=True), f"says that bleu of {FIRST} is True"),
    (put("directions", FIRST, "bleu", value=[1]), f"says that bleu of {FIRST} is [1]"),
    (put("directions", FIRST, "bleu"), f"says that bleu of {FIRST} is missing"),
    (put("directions", FIRST, "comet", value="x"), f"says that comet of {FIRST} is 'x'"),
    (put("directions", FIRST, "sentences", value=-4), f"says that {FIRST} has -4 sentences"),
    (put("directions", FIRST, "sentences", value=2.5), f"says that {FIRST} has 2.5 sentences"),
    (put("directions", FIRST, "hypotheses_sha256", value=7), f"holds no hash as hypotheses_sha256 of {FIRST}"),
    (put("directions", FIRST, "references_sha256", value="../../x"), "holds no hash as references_sha256"),
    (put("directions", FIRST, value=[]), f"holds no scores of {FIRST}"),
    (put("directions", value={}), "holds no direction"),
    (put("directions", value=[1]), "holds directions that is not an object"),
    (put("directions"), "lacks directions"),
    (put("directions", "aa", value={}), "names a direction 'aa'"),
    (put("directions", "a/../b-c", value={}), "names a direction 'a/../b-c'"),
    (put("directions", "a b-c", value={}), "names a direction 'a b-c'"),
    (put("directions", "\ud800-c", value={}), "names a direction '\\ud800-c'"),
    (put("directions", f" {FIRST}", value={"bleu": 1, "chrf": 1}), f"names {FIRST} twice"),
    (put("signatures"), "lacks signatures"),
    (put("signatures", "bleu", value=3), "holds bleu that is not text"),
    (put("settings"), "lacks settings"),
    (put("settings", "checkpoint"), "lacks settings.checkpoint"),
    (put("settings", "checkpoint", value=["x"]), "lacks path"),
    (put("settings", "checkpoint", value=[{"path": "x"}]), "lacks sha256"),
    (put("settings", "subset", value=3), "holds the subset '3'"),
    (put("settings", "subset", value="/" + "a" * 50), f"holds the subset '/{'a' * 39}';"),
    (put("directions", "a" * 41, value={}), f"names a direction '{'a' * 40}'; expected one like 'en-fr'"),
    (put("directions", FIRST, "bleu", value="a" * 50), f"says that bleu of {FIRST} is '{'a' * 39};"),
    (put("directions", FIRST, "sentences", value=True), f"says that {FIRST} has True sentences"),
    (put("directions", FIRST, "source_text_sha256", value="0" * 65), "holds no hash as source_text_sha256"),
    (put("scoring", value=[]), "holds scoring that is not an object"),
    (put("scoring", "tokenize", value=None), "lacks tokenize"),
    (put("references", value=5), "holds references that is not text"),
    (put("levels", value=[]), "holds levels that is not an object"),
    (put("trained", value="en-fr"), "holds trained that is not a list of directions"),
    (put("trained", value=[1]), "holds trained that is not a list of directions"),
    (put("levels", value={"aa": "highest"}), "holds levels other than high, med, low"),
]


@pytest.mark.parametrize(("change", "expected"), DAMAGE, ids=[expected for _, expected in DAMAGE])
def test_damaged_scores_end_a_report_in_one_sentence(change, expected, tmp_path) -> None:
    folder = folder_of(tmp_path / "run")
    change_scores(folder, change)
    message = refusal(folder)
    assert f"{folder / 'scores.json'} is damaged: it {expected}" in message
    assert "run 'langspec-lora evaluate' again" in message


@pytest.mark.parametrize(
    ("old", "new"), [("12.5", "13.5"), ("12.5", "12.50000000000001"), ("aa-bb", "aa-bc"), ('"13a"', '"char"')]
)
def test_a_changed_digit_ends_a_report_in_one_sentence(old, new, tmp_path) -> None:
    path = folder_of(tmp_path / "run") / "scores.json"
    text = json.dumps(
        sealed({**json.loads(path.read_text()), "note": [12.5, "aa-bb", "13a", -0.0, 1e-300, "ñ", 10**20]})
    )
    path.write_text(json.dumps(json.loads(text), indent=3))  # the hash is that of the content, however it is written
    parse_scores(json.loads(path.read_text()), path)
    assert old in text
    path.write_text(text.replace(old, new))
    assert f"{path} is damaged: it was changed after it was written" in refusal(path.parent)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[]", "3", "null", '"abc"', "", "{", "\x00", '{"a": 1' + "0" * 5000 + "}"]
)
def test_files_that_are_no_scores_end_a_report_in_one_sentence(text, tmp_path) -> None:
    folder = folder_of(tmp_path / "run")
    (folder / "scores.json").write_text(text)
    assert re.search(r"scores\.json is damaged", refusal(folder))


@pytest.mark.parametrize(
    "block",
    [
        *("nan", "inf", "-1", "101", "", "[1]", "[null]", "{}", "[" * 99999, '{"name": "chrF2", "score": 12.5}'),
        *('{"name": "BLEU", "score": "x"}', '{"name": "BLEU", "score": null}'),
    ],
)
def test_damaged_scores_of_the_published_loop_are_named(block, tmp_path) -> None:
    (tmp_path / "all_direction.spbleu").write_text(f"en-fr\n{block}\n")
    message = refusal(tmp_path)
    assert "no score of sacrebleu under en-fr" in message


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "{", "\x00"])
def test_a_damaged_cache_of_measurements_is_measured_again(text, tmp_path, capsys) -> None:
    folder = folder_of(tmp_path / "run")
    (folder / "report.cache.json").write_text(text)
    assert main(["report", str(folder), "--skip", "off-target", "--processes", "1"]) == 0
    assert isinstance(json.loads((folder / "report.cache.json").read_text()), dict)


def test_whole_scores_are_read_as_they_were_written(tmp_path) -> None:
    folder = folder_of(tmp_path / "run", levels=LEVELS)
    change_scores(folder, put("directions", FIRST, "comet", value=-12.5))
    content = json.loads((folder / "scores.json").read_text())
    run = read_run(folder, "run")
    assert {str(d): score for d, score in run.metric("bleu").items()} == {
        name: entry["bleu"] for name, entry in content["directions"].items()
    }
    assert {str(d): score for d, score in run.metric("comet").items()} == {FIRST: -12.5}
    assert (run.levels, run.tokenize, run.references) == (LEVELS, "13a", "nowhere")


EN_FR, FR_EN = Direction("en", "fr"), Direction("fr", "en")


def parsed(**entry: object):
    """What is read from a file whose direction en-fr holds this."""
    content = {
        "settings": {"checkpoint": []},
        "signatures": {},
        "scoring": {"tokenize": "13a"},
        "directions": {"en-fr": {"bleu": 1, "chrf": 2.5, **entry}, "fr-en": {"bleu": 3, "chrf": 4, "comet": 50}},
    }
    return parse_scores(content, Path("scores.json"))


@pytest.mark.parametrize(("metric", "low", "high"), [("bleu", 0, 100), ("chrf", 0, 100), ("comet", -10_000, 10_000)])
def test_scores_lie_between_bounds_with_room_for_the_rounding_of_sums(metric, low, high) -> None:
    for value in (low, high, low - 1e-6, high + 1e-6):
        assert parsed(**{metric: value}).scores()[metric][EN_FR] == value
    for value in (low - 2e-6, high + 2e-6):
        with pytest.raises(UserError, match=f"says that {metric} of en-fr is {value}"):
            parsed(**{metric: value})


def test_what_earlier_versions_did_not_write_is_not_asked_for() -> None:
    held = parsed()
    assert held.scores() == {"bleu": {EN_FR: 1, FR_EN: 3}, "chrf": {EN_FR: 2.5, FR_EN: 4}, "comet": {FR_EN: 50}}
    assert all(isinstance(score, float) for scores in held.scores().values() for score in scores.values())
    assert (held.references, held.levels, held.checkpoints) == ("", {}, ())
    assert parsed(sentences=0).entries[EN_FR]["sentences"] == 0


def test_a_metric_that_was_added_later_is_missing_in_earlier_files_only() -> None:
    content = {
        "settings": {"checkpoint": []},
        "signatures": {"bleu": "tok:13a"},
        "scoring": {"tokenize": "13a"},
        "directions": {"en-fr": {"bleu": 1.0}},
    }
    assert parse_scores(content, Path("scores.json")).scores() == {"bleu": {EN_FR: 1.0}}
    content["signatures"] = {"bleu": "tok:13a", "chrf": "nc:6"}
    with pytest.raises(UserError, match="says that chrf of en-fr is"):
        parse_scores(content, Path("scores.json"))


@pytest.mark.parametrize(
    "content",
    [
        {"checkpoint": "x"},
        {"checkpoint": ["x"]},
        {"sources": []},
        {"sources": {"aa-bb": 4}},
        {"generation": 3},
        {"checkpoint": None},
    ],
    ids=str,
)
def test_damaged_settings_are_named_before_an_evaluation_goes_on(content, tmp_path) -> None:
    whole = {"checkpoint": [{"path": "x", "sha256": "0"}], "sources": {}, "generation": {}}
    (tmp_path / "aa-bb.hyp.txt").write_text("x\n")
    (tmp_path / "settings.json").write_text(json.dumps({**whole, **content}))
    with pytest.raises(ValueError, match=r"settings.json is damaged: .*; give another --out, or --overwrite"):
        held_sources(tmp_path, {})


def test_levels_that_are_stored_make_the_groups(tmp_path, capsys) -> None:
    folder = folder_of(tmp_path / "run", levels=LEVELS)
    report(folder)
    said = capsys.readouterr().out
    scores = read_run(folder, "run").metric("bleu")
    between = [scores[d] for d in scores if LEVELS[d.source] == LEVELS[d.target] == "high"]
    assert f"| {sum(between) / 2:.2f} (" in next(line for line in said.splitlines() if line.startswith("| high→high"))
    assert "groups are left out" not in said
    # A file goes before.
    (tmp_path / "levels.yaml").write_text("med: [aa_Latn, bb_Latn, cc_Latn]\n")
    report(folder, "--lang-resources", tmp_path / "levels.yaml")
    said = capsys.readouterr().out
    assert "| med→med" in said
    assert "| high→high" not in said


def test_without_levels_groups_are_left_out_and_the_rest_is_there(tmp_path, capsys) -> None:
    folder = folder_of(tmp_path / "run")
    report(folder, folder_of(tmp_path / "other", 0.4), "--out", tmp_path / "out")
    said = capsys.readouterr().out
    note = "groups are left out: no resource level is known for aa_Latn, bb_Latn, cc_Latn; give the levels of all"
    assert said.count(note) == 1
    assert "by resource group" not in said
    scores = read_run(folder, "run").metric("bleu")
    assert f"| {sum(scores.values()) / 6:.2f} (" in next(line for line in said.splitlines() if line.startswith("| all"))
    assert "→" not in said
    page = (tmp_path / "out" / "report.html").read_text()
    assert note in page
    assert "resource group" not in page.lower()
    assert "from high" not in page
    for name in ("heatmap.run.png", "heatmap.other-minus-run.svg", "report.directions.csv"):
        assert (tmp_path / "out" / name).stat().st_size > 0
    assert ">from<" in page


def test_runs_that_differ_in_levels_are_told(tmp_path, capsys) -> None:
    one = folder_of(tmp_path / "one", levels=LEVELS)
    other = folder_of(tmp_path / "other", levels={**LEVELS, "aa_Latn": "med"})
    report(one, other, "--out", tmp_path / "out")
    said = capsys.readouterr().out
    assert "other has other levels of aa_Latn than the runs before it, which count" in said
    assert "| low→high" in said
    assert "| med→high" not in said
