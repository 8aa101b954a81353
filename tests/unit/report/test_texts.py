"""The report on runs whose sentences are at hand: its figures, what it reads again, and what it refuses."""

from __future__ import annotations

import csv
import errno
import json
import re
import shutil
from pathlib import Path

import pytest

from langspec_lora.cli.main import main
from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.evaluation.scoring import text_sha256
from langspec_lora.report import measure
from langspec_lora.report.analysis import RESAMPLES
from tests.reports import change_scores, invented_texts, noisy, report, sacrebleu, write_lines, write_results

LEVELS = {"en": "high", "fr": "med", "wo": "low"}
TEXTS = invented_texts(tuple(LEVELS), 40)
EN_WO = Direction("en", "wo")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Results folders of a base and of a better run; copy them before changing them."""
    folder = tmp_path_factory.mktemp("runs")
    better = noisy(TEXTS, 0.8, 2)
    better[EN_WO] = noisy(TEXTS, 0.5, 3)[EN_WO]  # one direction loses
    better[Direction("fr", "wo")][7] = ""
    return [write_results(folder / "base", TEXTS, noisy(TEXTS, 0.7, 1)), write_results(folder / "tuned", TEXTS, better)]


@pytest.fixture(scope="module")
def written(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report on both."""
    out = tmp_path_factory.mktemp("out")
    report(runs, LEVELS, out)
    return out


@pytest.fixture
def own(runs: list[Path], tmp_path: Path) -> list[Path]:
    """Copies of the runs."""
    return [Path(shutil.copytree(run, tmp_path / run.name)) for run in runs]


def directions_of(out: Path) -> dict[str, dict[str, str]]:
    with (out / "report.directions.csv").open() as file:
        return {f"{row['source']}-{row['target']}": row for row in csv.DictReader(file)}


def reference(folder: Path, language: str) -> Path:
    return next((folder / "texts").glob(f"{language}.*"))


def test_figures_are_those_of_the_sacrebleu_command_line(runs, written) -> None:
    html = (written / "report.html").read_text()
    for direction in ("en-wo", "wo-fr"):
        row = directions_of(written)[direction]
        source, target = direction.split("-")
        files = [run / f"{direction}.hyp.txt" for run in runs]
        for name, path in zip(("base", "tuned"), files, strict=True):
            command = (reference(runs[0], target), "-i", path, "--tokenize", "13a", "--force", "-b")
            printed = sacrebleu(*command, "-w", 4).strip()
            assert row[name] == printed
            assert f'title="{source} → {target}: {sacrebleu(*command, "-w", 2).strip()}"' in html
        flags = ("--tokenize", "13a", "--force", "--paired-bs", "--paired-bs-n", 1000, "-f", "text")
        printed = sacrebleu(reference(runs[0], target), "-i", *files, *flags)
        assert f"{float(row['tuned: p']):.4f}" == re.search(r"p = ([0-9.]+)", printed)[1]


def test_chrf_figures_are_those_of_the_sacrebleu_command_line(runs, tmp_path) -> None:
    report(runs, LEVELS, tmp_path, metric="chrf", skip=("off-target", "sentences"))
    flags = ("-m", "chrf", "--chrf-word-order", "2", "-b", "-w", 4)
    printed = sacrebleu(reference(runs[0], "fr"), "-i", runs[1] / "en-fr.hyp.txt", *flags).strip()
    assert directions_of(tmp_path)["en-fr"]["tuned"] == printed
    assert (tmp_path / "report.md").read_text().startswith("# chrF++")


def test_worst_sentences_are_the_lowest_by_sacrebleus_sentence_level(runs, tmp_path) -> None:
    analysis, _ = report(runs, LEVELS, tmp_path, skip=("significance", "off-target"))
    scores = {}
    for direction in analysis.directions:
        for name, run in zip(("base", "tuned"), runs, strict=True):
            files = (reference(run, direction.target), "-i", run / f"{direction}.hyp.txt")
            flags = ("-m", "chrf", "--chrf-word-order", "2", "--sentence-level", "-f", "text", "-w", 6)
            scores[name, direction] = [float(x) for x in re.findall(r"= ([0-9.]+)", sacrebleu(*files, *flags))]
            assert len(scores[name, direction]) == 40
    said = {
        (direction, index): scores["tuned", direction][index]
        for direction in analysis.directions
        for index, line in enumerate((runs[1] / f"{direction}.hyp.txt").read_text().split("\n")[:-1])
        if line.strip()
    }
    assert [s.value for s in analysis.worst[1]] == pytest.approx(sorted(said.values())[:20], abs=1e-5)
    for sentence in analysis.worst[1]:
        assert said[sentence.direction, sentence.index] == pytest.approx(sentence.value, abs=1e-5)
    changes = [
        tuned - base
        for direction in analysis.directions
        for base, tuned in zip(scores["base", direction], scores["tuned", direction], strict=True)
    ]
    assert [s.value for s in analysis.losses[0]] == pytest.approx(sorted(changes)[:20], abs=1e-5)


def test_a_sentence_that_stays_as_good_is_no_loss(runs, tmp_path) -> None:
    analysis, _ = report([runs[0], Path(shutil.copytree(runs[0], tmp_path / "same"))], LEVELS, tmp_path / "out")
    assert analysis.losses == ([],)
    assert all(change == 0 for change in analysis.differences(1).values())


def test_differences_are_a_runs_scores_less_the_first_runs(runs, tmp_path) -> None:
    analysis, _ = report(runs, LEVELS, tmp_path, skip=("significance", "off-target", "sentences"))
    base, tuned = (json.loads((run / "scores.json").read_text())["directions"] for run in runs)
    expected = {d: tuned[str(d)]["bleu"] - base[str(d)]["bleu"] for d in analysis.directions}
    assert analysis.differences(1) == pytest.approx(expected)
    assert analysis.differences(1)[EN_WO] < 0


def test_a_single_run_is_compared_with_none(runs, tmp_path) -> None:
    analysis, _ = report(runs[:1], LEVELS, tmp_path)
    assert analysis.comparisons == ()
    assert not any("significance" in note for note in analysis.notes)


def test_sentences_of_one_value_come_from_all_directions_in_turn() -> None:
    directions = [Direction(a, b) for a in LEVELS for b in LEVELS if a != b]
    ranked = {direction: [(0.0, index) for index in range(20)] for direction in directions}
    first = measure.merge(ranked)[: len(directions)]
    assert {sentence.direction for sentence in first} == set(directions)
    assert len({sentence.direction.target for sentence in first[:3]}) == 3
    ranked[EN_WO] = [(-1.0, 5), *ranked[EN_WO]]
    assert measure.merge(ranked)[0] == measure.Sentence(EN_WO, 5, -1.0)


def test_wins_and_losses_are_counted_by_group(runs, tmp_path) -> None:
    analysis, _ = report(runs, LEVELS, tmp_path, skip=("off-target", "sentences"))
    assert analysis.comparisons[0].verdicts[EN_WO] == "loss"
    rows = directions_of(tmp_path)
    for label, members in analysis.groups.items():
        verdicts = [rows[str(direction)]["tuned: verdict"] for direction in members]
        counts = " / ".join(str(verdicts.count(word)) for word in ("win", "tie", "loss"))
        assert analysis.comparisons[0].count(members) == counts
        assert label == "all" or {rows[str(d)]["group"] for d in members} == {label}
    assert not analysis.comparisons[0].count(analysis.directions).startswith("0 /")


def test_a_difference_that_is_significant_only_by_itself_is_a_tie(tmp_path) -> None:
    drawn = {"base": (0.7, 1), "tuned": (0.78, 3)}
    runs = [write_results(tmp_path / name, TEXTS, noisy(TEXTS, *how)) for name, how in drawn.items()]
    analysis, _ = report(runs, LEVELS, tmp_path / "out", skip=("off-target", "sentences"))
    comparison = analysis.comparisons[0]
    ranked = sorted(comparison.p_values, key=comparison.p_values.get)
    significant = 0  # Holm: as many, from the least on, as lie below .05 / 6, .05 / 5, …
    while significant < len(ranked) and comparison.p_values[ranked[significant]] < 0.05 / (6 - significant):
        significant += 1
    assert 0 < significant < sum(p < 0.05 for p in comparison.p_values.values())
    assert {d for d in ranked if comparison.verdicts[d] == "tie"} == set(ranked[significant:])
    printed = directions_of(tmp_path / "out")
    assert all(printed[str(d)]["tuned: verdict"] == comparison.verdicts[d] for d in ranked)


def test_a_second_report_measures_nothing_again(runs, written, monkeypatch) -> None:
    before = (written / "report.html").read_bytes()
    monkeypatch.setattr(measure, "_measure_direction", lambda task: pytest.fail("measured again"))
    report(runs, LEVELS, written)
    assert (written / "report.html").read_bytes() == before


def test_another_text_or_other_resamples_are_measured(own, tmp_path) -> None:
    one, _ = report(own, LEVELS, tmp_path / "out", skip=("off-target", "sentences"))
    two, _ = report(own, LEVELS, tmp_path / "out", skip=("off-target", "sentences"), samples=1500)
    assert one.comparisons[0].p_values != two.comparisons[0].p_values
    swapped, _ = report(own[::-1], LEVELS, tmp_path / "out", skip=("off-target", "sentences"))
    assert swapped.comparisons[0].verdicts[EN_WO] == "win"


def test_an_interrupted_report_keeps_what_it_has_measured(runs, tmp_path, monkeypatch) -> None:
    done = []
    original = measure._measure_direction

    def dies(task):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(task[0].direction)
        return original(task)

    with monkeypatch.context() as patch:
        patch.setattr(measure, "_measure_direction", dies)
        with pytest.raises(KeyboardInterrupt):
            report(runs, LEVELS, tmp_path)
    again = []
    monkeypatch.setattr(measure, "_measure_direction", lambda task: again.append(task[0].direction) or original(task))
    report(runs, LEVELS, tmp_path)
    assert len(again) == 2
    assert not set(again) & set(done)


def test_several_processes_find_the_same(tmp_path) -> None:
    levels = {**LEVELS, "sd": "low"}
    texts = invented_texts(tuple(levels), 10)
    folders = [write_results(tmp_path / f"{seed}", texts, noisy(texts, 0.8, seed)) for seed in (1, 2)]
    for processes in (1, 2):
        report(folders, levels, tmp_path / f"out{processes}", processes=processes)
    for name in ("report.html", "report.directions.csv"):
        assert (tmp_path / "out1" / name).read_bytes() == (tmp_path / "out2" / name).read_bytes()


def test_without_texts_the_references_can_be_given(own, tmp_path) -> None:
    expected, _ = report(own, LEVELS, tmp_path / "with")
    for folder in own:
        shutil.rmtree(folder / "texts")
    bare, _ = report(own, LEVELS, tmp_path / "bare")
    assert "no references" in bare.notes[0]
    assert "--references" in bare.notes[0]
    assert (bare.comparisons, bare.off_target, bare.worst) == ((), None, ())
    assert bare.scores == expected.scores
    for language, lines in TEXTS.items():
        write_lines(tmp_path / "raw" / f"test.{language}", lines)
    given, _ = report(own, LEVELS, tmp_path / "given", references=tmp_path / "raw")
    assert (given.comparisons, given.worst) == (expected.comparisons, expected.worst)


def test_an_old_folder_finds_the_references_where_they_were_read(tmp_path) -> None:
    folder = write_results(tmp_path / "old", TEXTS, noisy(TEXTS, 0.7, 1), with_texts=False)
    for language, lines in TEXTS.items():
        write_lines(tmp_path / "raw" / f"test.{language}", lines)
    change_scores(folder, lambda content: content.update(references=str(tmp_path / "raw")))
    analysis, _ = report([folder], LEVELS, tmp_path / "out")
    assert len(analysis.worst[0]) == 20
    assert analysis.texts[EN_WO].source.read() == TEXTS["en"]


def write_published(folder: Path, score: str) -> Path:
    signature = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"
    write_lines(
        folder / "all_direction.spbleu",
        ["en-wo", json.dumps({"name": "BLEU", "score": float(score), "signature": signature})],
    )
    write_lines(folder / "en-wo.spbleu.h", noisy(TEXTS, 0.7, 1)[EN_WO])
    return folder


def test_the_published_loops_folders_are_tested_with_references_given(runs, written, tmp_path) -> None:
    write_lines(tmp_path / "raw" / "test.wo", TEXTS["wo"])
    score = f"{float(directions_of(written)['en-wo']['base']):.2f}"
    folder = write_published(tmp_path / "loop", score)
    analysis, _ = report([folder, runs[1]], LEVELS, tmp_path / "out", references=tmp_path / "raw")
    assert f"{analysis.comparisons[0].p_values[EN_WO]:.6f}" == directions_of(written)["en-wo"]["tuned: p"]
    other = write_published(tmp_path / "other", "1.23")
    with pytest.raises(UserError, match=r"en-wo of other scores .* but 1\.23 in"):
        report([other, runs[1]], LEVELS, tmp_path / "out", references=tmp_path / "raw")


def spoil(what: str, folders: list[Path]) -> None:
    """Makes a folder one that cannot be reported on."""
    tuned = folders[1]
    hypotheses = tuned / "en-wo.hyp.txt"
    if what == "shorter":
        lines = hypotheses.read_text().split("\n")[:-2]
        write_lines(hypotheses, lines)
    elif what == "changed":
        hypotheses.write_text(hypotheses.read_text().replace("wo1", "wo2", 1))
    elif what == "damaged":
        path = reference(folders[0], "wo")
        path.write_text(path.read_text().replace("wo1", "wo2", 1))
    elif what == "references":
        change_scores(tuned, lambda c: c["directions"]["en-wo"].update(references_sha256=text_sha256(["x"])))
    elif what == "tokenizer":
        signature = "nrefs:1|case:mixed|eff:no|tok:char|smooth:exp|version:2.6.0"
        change_scores(tuned, lambda c: c["signatures"].update(bleu=signature))
    elif what == "subset":
        change_scores(tuned, lambda c: c["settings"].update(subset="devtest"))


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("shorter", r"en-wo\.hyp\.txt has 39 lines but its references .* have 40"),
        ("changed", r"en-wo\.hyp\.txt has changed since it was scored"),
        ("damaged", "is damaged"),
        ("references", "base and tuned were scored against different references in en-wo"),
        ("tokenizer", "base has BLEU .*tok:13a.* and tuned has .*tok:char.* be compared"),
        ("subset", "base has the subset test and tuned has devtest"),
    ],
)
def test_what_does_not_compare_is_refused_before_anything_is_measured(own, tmp_path, what, words, monkeypatch) -> None:
    monkeypatch.setattr(measure, "_measure_direction", lambda task: pytest.fail("measured"))
    spoil(what, own)
    with pytest.raises(UserError, match=words):
        report(own, LEVELS, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_wrong_references_given_are_named(own, tmp_path) -> None:
    for folder in own:
        shutil.rmtree(folder / "texts")
    with pytest.raises(UserError, match="is not a folder"):
        report(own, LEVELS, tmp_path / "out", references=tmp_path / "raw")
    for language in LEVELS:
        write_lines(tmp_path / "raw" / f"test.{language}", ["something", "else"])
    with pytest.raises(UserError, match=r"test\.fr is not the text that base was scored against in en-fr"):
        report(own, LEVELS, tmp_path / "out", references=tmp_path / "raw")


def test_a_missing_hypothesis_file_leaves_its_direction_out(own, tmp_path) -> None:
    (own[1] / "en-wo.hyp.txt").unlink()
    analysis, _ = report(own, LEVELS, tmp_path / "out")
    assert any("tuned has no hypotheses beside its scores" in note for note in analysis.notes)
    assert len(analysis.comparisons[0].p_values) == 5
    assert len(analysis.directions) == 6


def test_too_few_resamples_are_said_to_be(runs, tmp_path) -> None:
    enough, few = (
        report(runs, LEVELS, tmp_path, samples=samples, skip=("off-target", "sentences"))[0] for samples in (120, 119)
    )
    assert not any("too few" in note for note in enough.notes)
    assert any("119 resamples are too few for 6 directions" in note for note in few.notes)  # 6 / 120 = .05


def test_a_full_disk_leaves_the_tables_on_the_terminal_and_whole_files(runs, tmp_path, monkeypatch, capsys) -> None:
    levels = tmp_path / "levels.yaml"
    levels.write_text("high: [en]\nmed: [fr]\nlow: [wo]\n")
    write = Path.write_bytes
    monkeypatch.setattr(
        Path, "write_bytes", lambda path, content: write(path, content) if ".md" in path.name else full()
    )

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    out = tmp_path / "out"
    with pytest.raises(SystemExit, match=r"report\.html cannot be written: No space left on device"):
        main(["report", *map(str, runs), "--lang-resources", str(levels), "--out", str(out), "--processes", "1"])
    printed = capsys.readouterr().out
    assert "| high→low" in printed
    assert "measurements could not be saved" in printed
    assert [path.name for path in out.iterdir()] == [RESAMPLES]  # test_vector_file.py fills the disk for this file


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--skip", "everything"], "--skip names 'everything'"),
        (["--samples", "0"], "--samples 0"),
        (["--processes", "-1"], "--processes -1"),
        (["--metric", "comet"], "has no comet scores"),
    ],
)
def test_bad_flags_are_one_sentence(runs, tmp_path, flags, words) -> None:
    levels = tmp_path / "levels.yaml"
    levels.write_text("high: [en]\nmed: [fr]\nlow: [wo]\n")
    with pytest.raises(SystemExit, match=words):
        main(["report", *map(str, runs), "--lang-resources", str(levels), "--out", str(tmp_path / "out"), *flags])


def test_comet_is_reported_where_every_run_has_it(own, tmp_path) -> None:
    for folder in own:
        change_scores(
            folder,
            lambda c: [c["signatures"].update(comet="x"), *(d.update(comet=75.0) for d in c["directions"].values())],
        )
    analysis, _ = report(own, LEVELS, tmp_path / "out", metric="comet")
    assert [set(scores.values()) for scores in analysis.metrics["comet"]] == [{75.0}] * 2
    assert any("COMET" in note for note in analysis.notes)
    assert analysis.worst
    both, _ = report(own, LEVELS, tmp_path / "bleu")
    assert list(both.labels) == ["bleu", "chrf", "comet"]
