"""Every hypothesis file is known to have the settings of its folder, and to be what was decoded."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.evaluation.evaluate import evaluate
from langspec_lora.evaluation.options import EvaluationOptions
from langspec_lora.evaluation.prepare import check, prepare
from langspec_lora.evaluation.provenance import Provenance
from langspec_lora.evaluation.settings import lasting
from langspec_lora.generation import GenerationSettings
from langspec_lora.locks import Locks
from tests.evaluations import contents, options

TWO = "wo-en,en-fr"
LINES = ["x y", "z"]


def lines_of(folder: Path) -> list[list[str]]:
    """The lines of the file, each as direction, hash of settings and hash of text."""
    return [line.split("\t") for line in (folder / "provenance.tsv").read_text().splitlines()]


@pytest.fixture
def asked(decoders, toy_data, checkpoint, tmp_path) -> EvaluationOptions:
    """An evaluation of two directions, which has been done."""
    asked = options(toy_data, checkpoint, tmp_path / "out", lang_pairs=TWO)
    evaluate(asked)
    return asked


def test_every_hypothesis_file_has_a_line_with_the_hash_of_its_text(asked) -> None:
    found = lines_of(asked.out)
    assert [direction for direction, _, _ in found] == sorted(TWO.split(","))
    for direction, _, text in found:
        assert text == hashlib.sha256((asked.out / f"{direction}.hyp.txt").read_bytes()).hexdigest()
    assert len({settings for _, settings, _ in found}) == 2  # they depend on the source text too


def test_hypotheses_of_other_settings_are_refused_before_anything_is_decoded(
    asked, decoders, toy_data, checkpoint, tmp_path
) -> None:
    """What two evaluations at once could leave: hypotheses of one beam under the settings of another."""
    beam = GenerationSettings(beam=1)
    evaluate(options(toy_data, checkpoint, tmp_path / "other", lang_pairs=TWO, generation=beam))
    for name in ("en-fr.hyp.txt", "provenance.tsv"):
        shutil.copy(tmp_path / "other" / name, asked.out / name)
    (asked.out / "wo-en.hyp.txt").unlink()
    before, loaded = contents(asked.out), len(decoders.given)
    with pytest.raises(UserError, match=r"en-fr\.hyp\.txt is not what an evaluation with these settings wrote, or was"):
        evaluate(asked)
    assert contents(asked.out) == before
    assert len(decoders.given) == loaded


@pytest.mark.parametrize("change", ["text", "empty", "line lost"])
def test_what_was_changed_later_is_named_and_decoded_again_once_it_is_deleted(asked, decoders, change) -> None:
    before, path = contents(asked.out), asked.out / "en-fr.hyp.txt"
    if change == "line lost":
        text = (asked.out / "provenance.tsv").read_text()
        (asked.out / "provenance.tsv").write_text("".join(text.splitlines(keepends=True)[1:]))
    else:
        path.write_text(path.read_text().replace("en\n", "nl\n", 1) if change == "text" else "")
    with pytest.raises(
        UserError, match=r"en-fr\.hyp\.txt is not what .* delete it, and its direction is decoded again"
    ):
        evaluate(asked)
    path.unlink()
    evaluate(asked)
    assert decoders.asked[1:] == [["en-fr"]]
    assert contents(asked.out) == before


def test_a_line_that_was_being_written_does_no_harm(asked, decoders) -> None:
    before, path = contents(asked.out), asked.out / "provenance.tsv"
    path.write_bytes(path.read_bytes()[:-30])  # the second line has lost its end, so that its file was not yet there
    (asked.out / f"{before['provenance.tsv'].split()[3].decode()}.hyp.txt").unlink()
    evaluate(asked)
    assert contents(asked.out) == before


def test_lines_without_their_files_are_left_out_when_an_evaluation_ends(asked) -> None:
    before = contents(asked.out)
    with Locks(asked.out / ".lock") as locks:
        planned = prepare(check(asked))
        planned.provenance.write(Direction("en", "fr"), LINES, locks)  # by a process that was killed in between
    (asked.out / "en-fr.hyp.txt").unlink()
    (asked.out / "wo-en.hyp.txt").unlink()
    evaluate(asked)
    kept = [line for line in lines_of(asked.out) if line[2] != hashlib.sha256(b"x y\nz\n").hexdigest()]
    assert ["\t".join(line) for line in kept] == before["provenance.tsv"].decode().splitlines()


def test_a_folder_of_an_earlier_version_is_continued_and_watched_from_then_on(asked, decoders) -> None:
    before = contents(asked.out)
    (asked.out / "provenance.tsv").unlink()
    (asked.out / "wo-en.hyp.txt").unlink()
    evaluate(asked)
    assert decoders.asked[1:] == [["wo-en"]]
    assert contents(asked.out) == before
    (asked.out / "en-fr.hyp.txt").write_text("x\n")
    with pytest.raises(UserError, match="is not what an evaluation with these settings wrote"):
        evaluate(asked)


def test_hypotheses_of_a_version_that_ignored_a_setting_are_not_continued(
    decoders, toy_data, checkpoint, tmp_path
) -> None:
    generation = GenerationSettings(no_repeat_ngram_size=3)
    asked = options(toy_data, checkpoint, tmp_path / "out", lang_pairs=TWO, generation=generation)
    evaluate(asked)
    evaluate(asked)
    (asked.out / "provenance.tsv").unlink()
    (asked.out / "wo-en.hyp.txt").unlink()
    with pytest.raises(
        UserError, match="of an earlier version, which ignored --no-repeat-ngram-size; give another --out"
    ):
        evaluate(asked)
    assert len(decoders.given) == 1


def test_replaced_results_have_lines_of_their_own(asked, toy_data, checkpoint) -> None:
    before = lines_of(asked.out)
    beam = GenerationSettings(beam=1)
    again = options(toy_data, checkpoint, asked.out, lang_pairs=TWO, generation=beam, overwrite=True)
    evaluate(again)
    after = lines_of(asked.out)
    assert [line[0] for line in after] == [line[0] for line in before]
    assert not {line[1] for line in after} & {line[1] for line in before}


def test_hypotheses_that_another_process_put_there_while_this_one_was_at_work_are_noticed(asked, tmp_path) -> None:
    planned = prepare(check(asked))
    other = Provenance(asked.out, {**lasting(planned.settings), "subset": "valid"}, planned.settings["sources"])
    with Locks(tmp_path / "elsewhere") as locks:  # as if there were none
        other.write(Direction("en", "fr"), LINES, locks)
    text = hashlib.sha256(b"x y\nz\n").hexdigest()
    other.check("en-fr", text)
    for lost in (False, True):
        if lost:  # with the lines of the others
            (asked.out / "provenance.tsv").unlink()
        with pytest.raises(UserError, match="is not what an evaluation with these settings wrote"):
            planned.provenance.check("en-fr", text)


def test_settings_of_an_earlier_version_are_those_of_this_one(asked) -> None:
    settings = prepare(check(asked)).settings
    earlier = {**settings, "generation": {"beam": settings["generation"]["beam"]}}
    del earlier["pairs"]
    later = {**settings, "generation": {**settings["generation"], "beam": 7}}
    assert lasting(earlier) == lasting(settings)
    # A setting that a later version adds has its default in folders of this one, which must not count as a change.
    assert lasting(settings)["generation"] == {}
    assert lasting(later)["generation"] == {"beam": 7}
