"""Where a report finds hypotheses, references and sources, and which it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.evaluation.results import Run
from langspec_lora.evaluation.scoring import text_sha256
from langspec_lora.report.texts import find_texts
from tests.reports import write_lines

EN_FR, EN_WO, FR_WO = (Direction.parse(name) for name in ("en-fr", "en-wo", "fr-wo"))
ENGLISH, WOLOF, OTHER = ["one", "two"], ["benn", "ñaar"], ["jamm", "rekk"]


def scored(folder: Path, directions=(EN_WO,), references=WOLOF, source=ENGLISH, **fields) -> Run:
    """A run of ``langspec-lora evaluate``: its hypotheses are there, its texts are not."""
    entries = {}
    for direction in directions:
        write_lines(folder / f"{direction}.hyp.txt", ["a", "b"])
        entries[direction] = {"hypotheses_sha256": text_sha256(["a", "b"])}
        if references:
            entries[direction]["references_sha256"] = text_sha256(references)
        if source:
            entries[direction]["source_text_sha256"] = text_sha256(source)
    return Run(folder.name, folder, {}, entries=entries, **fields)


def looped(folder: Path) -> Run:
    """A run of the published loop, which keeps nothing but hypotheses."""
    write_lines(folder / f"{EN_WO}.spbleu.h", ["a", "b"])
    return Run(folder.name, folder, {})


def keep(folder: Path, language: str, lines: list[str]) -> Path:
    """Writes a text where ``langspec-lora evaluate`` keeps it."""
    path = folder / "texts" / f"{language}.{text_sha256(lines)[:12]}.txt"
    write_lines(path, lines)
    return path


def found(runs: list[Run], folder: Path | None = None):
    texts, lacking = find_texts(runs, [EN_WO], folder)
    assert lacking == []
    return texts[EN_WO]


def test_texts_that_any_run_holds_are_found_by_their_hash(tmp_path) -> None:
    runs = [scored(tmp_path / "one"), scored(tmp_path / "two")]
    reference, source = keep(tmp_path / "two", "wo", WOLOF), keep(tmp_path / "two", "en", ENGLISH)
    keep(tmp_path / "two", "wo", OTHER)
    texts = found(runs)
    assert texts.direction == EN_WO
    assert (texts.reference.path, texts.source.path) == (reference, source)
    assert (texts.reference.lines, texts.reference.sha256) == (2, text_sha256(WOLOF))
    assert [text.path for text in texts.hypotheses] == [run.hypotheses(EN_WO) for run in runs]
    assert (texts.reference.read(), texts.source.read()) == (WOLOF, ENGLISH)
    source.unlink()
    assert found(runs).source is None


def test_texts_that_no_run_holds_are_those_given_or_else_those_that_were_read(tmp_path) -> None:
    places = [tmp_path / name for name in ("given", "read", "later")]
    subset = {"settings": {"subset": "dev"}}
    runs = [
        scored(tmp_path / "one"),
        replace(scored(tmp_path / "two", **subset), references=str(places[1])),
        replace(scored(tmp_path / "three", **subset), references=str(places[2])),
    ]
    write_lines(places[2] / "dev.wo", WOLOF)
    write_lines(places[2] / "dev.en", ENGLISH)
    assert found(runs).reference.path == places[2] / "dev.wo"
    write_lines(places[1] / "dev.wo", WOLOF)
    write_lines(places[1] / "dev.en", OTHER)  # not what was translated
    texts = found(runs)
    assert texts.reference.path == places[1] / "dev.wo"
    assert texts.source.path == places[2] / "dev.en"
    write_lines(places[0] / "dev.wo", WOLOF)
    assert found(runs, places[0]).reference.path == places[0] / "dev.wo"


def test_the_working_directory_is_no_place_of_references(tmp_path, monkeypatch) -> None:
    write_lines(tmp_path / "test.wo", WOLOF)
    monkeypatch.chdir(tmp_path)
    texts, lacking = find_texts([scored(tmp_path / "one")], [EN_WO])
    assert texts == {}
    assert lacking == [
        "no references; give the folder with SPLIT.LANG as --references, or evaluate again: en-wo",
    ]


def test_the_published_loops_texts_are_those_given_or_those_it_has_taken_from_the_data(tmp_path) -> None:
    runs = [looped(tmp_path / "one"), looped(tmp_path / "two")]
    texts, (lacking,) = find_texts(runs, [EN_WO])
    assert texts == {}
    assert lacking.startswith("no references; give the folder with SPLIT.LANG as --references")
    write_lines(tmp_path / "two" / "en-wo.ref", WOLOF)
    texts = found(runs)
    assert texts.reference.path == tmp_path / "two" / "en-wo.ref"
    assert texts.source is None
    write_lines(tmp_path / "given" / "test.wo", OTHER)
    write_lines(tmp_path / "given" / "test.en", [*ENGLISH, "more"])
    texts = found(runs, tmp_path / "given")
    assert texts.reference.path == tmp_path / "given" / "test.wo"
    assert texts.source is None  # of another test set
    write_lines(tmp_path / "given" / "test.en", ENGLISH)
    assert found(runs, tmp_path / "given").source.path == tmp_path / "given" / "test.en"
    (tmp_path / "given" / "test.wo").unlink()
    with pytest.raises(UserError, match=r"given/test\.wo is missing; put the references of wo there .* or leave"):
        found(runs, tmp_path / "given")


def test_what_is_lacking_is_said_once_for_all_directions(tmp_path) -> None:
    directions = [EN_FR, EN_WO, FR_WO]
    runs = [scored(tmp_path / name, directions) for name in ("one", "two")]
    why = "no references; give the folder with SPLIT.LANG as --references, or evaluate again: en-fr"
    assert find_texts(runs, directions) == ({}, [f"{why} and 2 more"])
    assert find_texts(runs, directions[:2]) == ({}, [f"{why} and 1 more"])
    runs[1].hypotheses(EN_FR).unlink()
    runs[0].hypotheses(FR_WO).unlink()
    keep(tmp_path / "one", "wo", WOLOF)
    texts, lacking = find_texts(runs, directions)
    assert list(texts) == [EN_WO]
    assert lacking == [
        f"{name} has no hypotheses beside its scores; put them back, or evaluate again: {direction}"
        for name, direction in (("two", EN_FR), ("one", FR_WO))
    ]


def test_hypotheses_that_were_not_scored_are_refused(tmp_path) -> None:
    runs = [scored(tmp_path / name) for name in ("one", "two")]
    keep(tmp_path / "one", "wo", WOLOF)
    write_lines(runs[1].hypotheses(EN_WO), ["a", "c"])
    with pytest.raises(UserError, match=r"two/en-wo\.hyp\.txt has changed since it was scored; run"):
        found(runs)
    write_lines(runs[1].hypotheses(EN_WO), ["a", "b", "c"])
    with pytest.raises(UserError, match=r"two/en-wo\.hyp\.txt has 3 lines but its references .*wo.* have 2; give"):
        found(runs)


def test_references_that_differ_or_are_damaged_are_refused(tmp_path) -> None:
    names = ("one", "two", "three")
    runs = [scored(tmp_path / name, references=[name]) for name in names]
    for some in (runs, runs[:2]):
        with pytest.raises(UserError, match="one and two were scored against different references in en-wo"):
            found(some)
    runs = [scored(tmp_path / "one", references=None), *(scored(tmp_path / name) for name in names[1:])]
    write_lines(tmp_path / "given" / "test.wo", OTHER)
    with pytest.raises(UserError, match=r"given/test\.wo is not the text that two was scored against in en-wo"):
        found(runs, tmp_path / "given")
    path = keep(tmp_path / "three", "wo", WOLOF)
    assert found(runs, tmp_path / "given").reference.path == path
    write_lines(path, OTHER)
    with pytest.raises(UserError, match=r"three/texts/wo\..*\.txt is damaged; delete it and run"):
        found(runs)


def test_references_that_were_not_given_may_be_elsewhere(tmp_path) -> None:
    (tmp_path / "given").mkdir()
    texts, (lacking,) = find_texts([scored(tmp_path / "one")], [EN_WO], tmp_path / "given")
    assert texts == {}
    assert "no references" in lacking
