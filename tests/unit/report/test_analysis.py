"""What is found out of results folders: figures of several runs, remarks on what is lacking, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from pathlib import Path

import pytest

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.evaluation.results import read_run
from langspec_lora.report import analysis, off_target
from langspec_lora.report.analysis import Analysis, OffTarget, Request, analyse
from langspec_lora.report.off_target import Judge
from langspec_lora.report.significance import ALPHA, default_samples, holm, metric_settings
from langspec_lora.report.texts import DirectionTexts, TextFile
from tests.reports import change_scores, invented_texts, noisy, p_values, write_lines, write_results

LEVELS = {"en": "high", "fr": "med", "wo": "low"}
TEXTS = invented_texts(tuple(LEVELS), 30)
EN_FR, EN_WO, WO_EN = (Direction.parse(name) for name in ("en-fr", "en-wo", "wo-en"))
KEPT = {"base": (0.7, 1), "better": (0.95, 2), "worse": (0.4, 3)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Results of three runs; copy them before changing them."""
    folder = tmp_path_factory.mktemp("runs")
    return [write_results(folder / name, TEXTS, noisy(TEXTS, *how)) for name, how in KEPT.items()]


@pytest.fixture
def own(folders: list[Path], tmp_path: Path) -> list[Path]:
    return [Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in folders]


def analysed(folders: list[Path], out: Path, **options) -> Analysis:
    """What is found with few resamples, and nothing skipped but what is named."""
    options = {"levels": LEVELS, "samples": 200, "processes": 1, **options}
    return analyse(Request(folders, cache=out / "cache", **options))


def test_every_later_run_is_tested_against_the_first(folders, tmp_path) -> None:
    found = analysed(folders, tmp_path, skip=("off-target", "sentences"))
    runs = [read_run(folder, folder.name) for folder in folders]
    metric = metric_settings(runs[0], "bleu")
    lines = [{d: (f / f"{d}.hyp.txt").read_text().split("\n")[:-1] for d in found.directions} for f in folders]
    verdicts = []
    for number, comparison in enumerate(found.comparisons, start=1):
        for direction in found.directions:
            own = (TEXTS[direction.target], lines[0][direction], [lines[number][direction]])
            assert [comparison.p_values[direction]] == p_values(metric, *own, 200)
        corrected = holm([comparison.p_values[d] for d in found.directions])
        assert [comparison.corrected[d] for d in found.directions] == corrected
        for direction, value in zip(found.directions, corrected, strict=True):
            better = runs[number].metric("bleu")[direction] > runs[0].metric("bleu")[direction]
            assert comparison.verdicts[direction] == ("tie" if value >= ALPHA else "win" if better else "loss")
        verdicts.append(set(comparison.verdicts.values()))
    assert verdicts == [{"win"}, {"loss"}]
    assert (found.samples, found.notes) == (200, ())
    assert (found.off_target, found.worst, found.losses) == (None, (), ())


def test_sentences_of_every_run_are_ranked_and_only_losses_are_losses(folders, tmp_path) -> None:
    found = analysed(folders, tmp_path, skip=("off-target", "significance"))
    assert [len(own) for own in found.worst] == [20, 20, 20]
    lowest = [min(sentence.value for sentence in own) for own in found.worst]
    assert lowest[2] < lowest[0] < lowest[1]
    assert len(found.losses) == 2
    assert all(sentence.value < 0 for own in found.losses for sentence in own)
    assert len(found.losses[1]) == 20
    assert found.comparisons == ()
    one = analysed(folders[:1], tmp_path, skip=("off-target",))
    assert (len(one.worst), one.losses, one.comparisons) == (1, (), ())
    assert one.directions == found.directions


def test_a_small_loss_is_a_loss_and_none_is_not(folders, tmp_path, monkeypatch) -> None:
    def measured(texts, *words) -> dict:
        return defaultdict(dict, {("losses", 1): {direction: [(-0.25, 0), (0.0, 1)] for direction in texts}})

    monkeypatch.setattr(analysis, "measure", measured)
    (losses,) = analysed(folders[:2], tmp_path, skip=("off-target", "significance", "intervals", "degeneration")).losses
    assert [sentence.value for sentence in losses] == [-0.25] * 6


def test_what_is_known_without_the_sentences(folders, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(analysis, "find_texts", lambda *words: pytest.fail("read"))
    found = analysed(folders, tmp_path, skip=analysis.PARTS, references=tmp_path / "none", metric="chrf")
    assert [run.name for run in found.runs] == list(KEPT)
    assert dict(found.labels) == {"chrf": "chrF++", "bleu": "BLEU (13a)"}
    assert found.label == "chrF++"
    scores = [json.loads((folder / "scores.json").read_text())["directions"] for folder in folders]
    assert [dict(own) for own in found.scores] == [{d: own[str(d)]["chrf"] for d in found.directions} for own in scores]
    bleu = [{d: own[str(d)]["bleu"] for d in found.directions} for own in scores]
    assert found.metrics == {"chrf": found.scores, "bleu": bleu}
    assert list(found.languages) == list(LEVELS)
    assert found.groups["high→low"] == [EN_WO]
    assert (found.levels, found.notes, found.texts, found.samples) == (LEVELS, (), {}, 0)
    for number in (1, 2):
        expected = {d: found.scores[number][d] - found.scores[0][d] for d in found.directions}
        assert found.differences(number) == expected
    names = analysed(folders, tmp_path, skip=analysis.PARTS, names=("x", "y", "z"))
    assert [run.name for run in names.runs] == ["x", "y", "z"]
    with pytest.raises(UserError, match=r"--references .*none is not a folder; give the one that holds SPLIT\.LANG"):
        analysed(folders, tmp_path, references=tmp_path / "none")


def test_remarks_come_in_the_order_in_which_they_matter(own, tmp_path) -> None:
    change_scores(own[1], lambda content: content["directions"].pop("fr-en"))
    change_scores(own[0], lambda content: content.update(levels={"en": "high", "fr": "low", "wo": "low"}))
    change_scores(own[1], lambda content: content.update(levels={"en": "med", "fr": "low", "wo": "low"}))
    (own[2] / "en-wo.hyp.txt").unlink()
    (own[2] / "wo-en.hyp.txt").unlink()
    found = analysed(own, tmp_path, levels=None, skip=("off-target",), samples=59)
    left_out, levels, lacking, few = found.notes
    assert left_out == "directions left out because not every run has them: 1"
    assert levels.startswith("better has other levels of en than")
    parts = "intervals, significance, sentences, degeneration"
    assert lacking.startswith(f"{parts} left out: worse has no hypotheses beside its scores")
    assert lacking.endswith(": en-wo and 1 more")
    assert few.startswith("59 resamples are too few for 3 directions")  # 3 / 60 = .05
    assert few.endswith(f"give --samples {default_samples(3)}")
    assert found.levels["en"] == "high"
    assert len(found.comparisons[0].p_values) == 3
    assert len(analysed(own, tmp_path, levels=None, skip=("off-target",), samples=60).notes) == 3
    alone, *_ = analysed(own[2:], tmp_path).notes
    assert alone.startswith("intervals, off-target, sentences, degeneration left out: worse has no hypotheses")


def test_the_bootstrap_has_as_many_resamples_as_it_needs_where_none_are_given(folders, tmp_path, monkeypatch) -> None:
    def measured(texts, options, *words) -> dict:
        return {("bootstrap", run): dict.fromkeys(texts, options.samples) for run in (1, 2)}

    monkeypatch.setattr(analysis, "measure", measured)
    monkeypatch.setattr(analysis, "compare", lambda values, *words: set(values.values()))
    found = analysed(folders, tmp_path, samples=None, skip=("off-target", "sentences", "intervals", "degeneration"))
    assert found.samples == default_samples(6)
    assert found.comparisons == ({1000}, {1000})


def test_a_metric_that_cannot_be_tested_leaves_the_test_out_and_says_why(own, tmp_path) -> None:
    signature = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:floor[0.10]|version:2"
    for folder in own:
        change_scores(folder, lambda content: content["signatures"].update(bleu=signature))
    found = analysed(own, tmp_path, skip=("off-target",))
    (note,) = found.notes
    assert note.startswith("intervals, significance left out: base was scored as")
    assert found.comparisons == ()
    assert len(found.worst) == 3


def test_the_metric_is_that_of_the_first_run_that_names_it(own, tmp_path) -> None:
    change_scores(own[0], lambda content: content["signatures"].pop("bleu"))
    found = analysed(own, tmp_path, skip=("off-target", "sentences"))
    assert len(found.comparisons) == 2
    assert found.label == "BLEU (13a)"
    for folder in own[1:]:
        change_scores(folder, lambda content: content["signatures"].pop("bleu"))
    (note,) = analysed(own, tmp_path, skip=("off-target", "sentences")).notes
    assert note.startswith("intervals, significance left out: base does not say how it was scored")


def without_hashes(folder: Path) -> None:
    """Makes a folder one of which no one knows what it was scored against."""
    change_scores(folder, lambda c: [entry.pop("references_sha256") for entry in c["directions"].values()])


def test_runs_of_unknown_references_have_to_score_again_as_they_did(own, tmp_path) -> None:
    without_hashes(own[2])
    options = {"skip": ("off-target", "sentences")}
    assert len(analysed(own, tmp_path, **options).comparisons) == 2
    first = str(analysed(own, tmp_path, skip=analysis.PARTS).directions[0])
    score = json.loads((own[2] / "scores.json").read_text())["directions"][first]["bleu"]
    for change in (0.005, -0.005):  # two digits of it are kept
        change_scores(own[2], lambda c, now=score + change: c["directions"][first].update(bleu=now))
        assert len(analysed(own, tmp_path, **options).comparisons) == 2
    for change in (0.0053, -0.0053, 2.0):
        change_scores(own[2], lambda c, now=score + change: c["directions"][first].update(bleu=now))
        expected = rf"{first} of worse scores {score:.2f} against .*, but {score + change:.2f} in .*worse; give the ref"
        with pytest.raises(UserError, match=expected):
            analysed(own, tmp_path, **options)
    # A run that knows its references is not scored again.
    change_scores(own[2], lambda c: c["directions"][first].update(bleu=score))
    change_scores(own[0], lambda c: c["directions"][first].update(bleu=99.0))
    assert len(analysed(own, tmp_path, **options).comparisons) == 2


def test_hypotheses_in_a_wrong_language_are_counted_for_each_run(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(off_target, "identifier_version", lambda: "")
    monkeypatch.setattr(off_target, "identifier_languages", frozenset)
    monkeypatch.setattr(analysis, "identifier_version", lambda: "")
    texts = {"en": ["one two"] * 4, "el": ["ένα δύο"] * 4}
    pair, back = Direction("en", "el"), Direction("el", "en")
    first = {pair: ["one", "ένα", "", "1"], back: ["one"] * 4}
    second = {pair: ["ένα"] * 4, back: ["ένα", "ένα", "one", "?"]}
    runs = [write_results(tmp_path / name, texts, own) for name, own in (("a", first), ("b", second))]
    found = analysed(runs, tmp_path, levels={}, skip=("significance", "sentences")).off_target
    assert found.shares == ({pair: 0.25, back: 0.0}, {pair: 0.0, back: 0.5})
    assert (found.silent, found.bounds) == ((0.25, 0.125), frozenset())
    assert list(found.judges) == ["el", "en"]


@pytest.mark.parametrize(("version", "words"), [("", "py3langid is not installed"), ("1", "py3langid does not know")])
def test_wrong_language_that_cannot_be_told_at_all_is_left_out(folders, tmp_path, monkeypatch, version, words) -> None:
    monkeypatch.setattr(off_target, "identifier_languages", frozenset)
    monkeypatch.setattr(analysis, "identifier_version", lambda: version)
    found = analysed(folders, tmp_path, skip=("significance", "sentences"))
    assert found.off_target is None
    (note,) = found.notes
    assert note.startswith(f"off-target left out: the languages share a script, and {words}")


def test_a_direction_is_told_if_the_target_is_told_from_its_source() -> None:
    judges = {
        "en": Judge("en", ("Latn",), True, twins=("en_GB",)),
        "en_GB": Judge("en_GB", ("Latn",), True, twins=("en",)),
        "wo": Judge("wo", ("Latn",)),
        "fr": Judge("fr", ("Latn",), True),
        "el": Judge("el", ("Grek",)),
        "bg": Judge("bg", ("Cyrl",)),
        "mn": Judge("mn", ("Mong", "Cyrl")),
    }
    # Of "xx" there is no text, so that its script is not known.
    names = ("wo-en", "en_GB-en", "xx-fr", "xx-wo", "fr-wo", "el-wo", "wo-el", "wo-en_GB")
    directions = [Direction.parse(name) for name in names]
    reference = TextFile(Path("x"), "", 4)
    texts = {direction: DirectionTexts(direction, reference, (reference,) * 2) for direction in directions}
    found = analysis.judge_runs(texts, judges, [dict.fromkeys(directions, own) for own in ((1, 2), (4, 0))])
    told = {Direction.parse(name) for name in ("wo-en", "xx-fr", "el-wo", "wo-el", "wo-en_GB")}
    assert found == OffTarget(
        {name: judges[name] for name in ("en", "fr", "wo", "el", "en_GB")},
        (dict.fromkeys(told, 0.25), dict.fromkeys(told, 1.0)),
        (0.5, 0.0),
        frozenset(("en", "en_GB", "wo", "bg", "mn")),  # Greek is told by its script, French by the identifier
    )


def test_references_of_the_published_loop_are_found_beside_the_hypotheses(tmp_path) -> None:
    write_lines(tmp_path / "all_direction.spbleu", ["en-wo", "12.5"])
    write_lines(tmp_path / "en-wo.spbleu.h", TEXTS["wo"])
    write_lines(tmp_path / "en-wo.ref", TEXTS["wo"])
    found = analysed([tmp_path], tmp_path / "out")
    assert found.texts[EN_WO].reference.path == tmp_path / "en-wo.ref"
    assert len(found.worst[0]) == 20
