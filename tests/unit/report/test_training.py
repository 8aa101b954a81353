"""The curves and maps of a report: found beside checkpoints, drawn, and said where they are missing."""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from langspec_lora.curve_file import EPOCH, VALIDATION, CurveFile, Curves, read_curves
from langspec_lora.evaluation.results import Run
from langspec_lora.report.curve_pictures import draw_panel, for_page, panels
from langspec_lora.report.html import html_report
from langspec_lora.report.training import Training, loss_map, read_training, short
from langspec_lora.report.training_page import map_of_languages, training_maps, training_parts
from tests.analyses import LEVELS, made_analysis

SCORED = {"bleu": 3.0, "chrf": 20.5, "chrf_high_low": 1.0}


def write_curves(folder: Path, epochs: int = 3, worse: float = 0.0) -> Path:
    """A file of a training, whose losses of en, fr and wo fall by 1 in each epoch from 10, 11 and 12."""
    folder.mkdir(exist_ok=True)
    file = CurveFile(folder / "curves.jsonl", folder.name, 0, {"languages": LEVELS})
    for epoch in range(1, epochs + 1):
        place = {"epoch": epoch, "updates": 100 * epoch, "lr": 0.1, "seconds": 1.0}
        into = {name: 10.0 + number - epoch + worse for number, name in enumerate(LEVELS)}
        by_level = {LEVELS[name]: value for name, value in into.items()}
        losses = {"loss": 11.0 - epoch + worse, "by_language": {"nll_loss": {"into": into}}, "by_level": by_level}
        for subset in ("valid", "valid1"):
            scores = {"scores": SCORED} if subset == "valid" else {"loss": 99.0}
            file.add({"kind": VALIDATION, **place, "subset": subset, **losses, **scores})
        shares = {"target_sparsity": 0.3 * epoch, "sparsity": 0.3 * epoch}
        shares |= {"sparsity_high": 0.4 * epoch, "sparsity_low": 0.2 * epoch}
        file.add({"kind": EPOCH, **place, **losses, **shares})
    return folder / "curves.jsonl"


def run_of(name: str, checkpoint: Path, digest: str = "") -> Run:
    return Run(name, Path(name), {}, {}, settings={"checkpoint": [{"path": str(checkpoint), "sha256": digest}]})


@pytest.fixture
def curves(tmp_path) -> Curves:
    return read_curves(write_curves(tmp_path / "one"))


def test_curves_are_found_beside_the_checkpoint_though_that_is_gone(tmp_path) -> None:
    write_curves(tmp_path / "one")
    found = read_training([run_of("mine", tmp_path / "one" / "checkpoint3.pt", "abc")])
    assert list(found.curves) == ["mine"]
    assert found.notes == ()


def test_missing_curves_are_one_remark_and_runs_that_say_nothing_none(tmp_path) -> None:
    (tmp_path / "two").mkdir()
    runs = [run_of(name, tmp_path / "two" / "checkpoint3.pt") for name in ("a", "b")]
    runs += [Run("published", Path("x"), {}, {}), run_of("base", Path())]
    found = read_training(runs)
    assert found.curves == {}
    (note,) = found.notes
    assert "no learning curves of a and b" in note or "no learning curves of a, b" in note


def test_curves_beside_another_checkpoint_are_left_out(tmp_path) -> None:
    write_curves(tmp_path / "one")
    path = tmp_path / "one" / "checkpoint3.pt"
    path.write_bytes(b"not a checkpoint")
    found = read_training([run_of("mine", path, "abc")])
    assert found.curves == {}
    assert "is another checkpoint than the one that was evaluated" in found.notes[0]
    again = read_training([run_of("mine", path, hashlib.sha256(b"not a checkpoint").hexdigest())])
    assert list(again.curves) == ["mine"]
    assert len(again.notes) == 1  # it cannot be looked into


@pytest.mark.parametrize("content", ["", "x\n", '{"kind":"epoch"}\n'])
def test_damaged_curves_are_a_remark(tmp_path, content) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "curves.jsonl").write_text(content)
    (note,) = read_training([run_of("mine", tmp_path / "one" / "checkpoint3.pt")]).notes
    assert "mine: " in note
    assert "does not start as a file of curves" in note


def test_pictures_have_the_points_of_the_file_and_of_the_first_subset(curves) -> None:
    found = {panel.stem: panel for panel in panels({"mine": curves})}
    train, valid = found["curves.loss"].lines
    assert train.points == valid.points == [(100, 10.0), (200, 9.0), (300, 8.0)]
    assert [line.name for line in found["curves.loss_by_level"].lines] == ["high", "med", "low"]
    assert found["curves.loss_by_level"].lines[2].points == [(100, 11.0), (200, 10.0), (300, 9.0)]
    assert [line.points[-1] for line in found["curves.sparsity"].lines] == [(300, pytest.approx(90))] * 2
    assert found["curves.chrf"].lines[0].points[0] == (100, 20.5)


def test_a_training_without_scores_or_pruning_has_no_such_pictures(tmp_path) -> None:
    file = CurveFile(tmp_path / "curves.jsonl", "a", 0, {})
    file.add({"kind": EPOCH, "epoch": 1, "updates": 5, "loss": None})
    assert panels({"mine": read_curves(tmp_path / "curves.jsonl")}) == []
    file.add({"kind": EPOCH, "epoch": 2, "updates": 9, "loss": 3.0})
    assert [panel.stem for panel in panels({"mine": read_curves(tmp_path / "curves.jsonl")})] == ["curves.loss"]


def test_runs_share_a_picture_and_have_their_own_colours(tmp_path, curves) -> None:
    other = read_curves(write_curves(tmp_path / "two", worse=2.0))
    found = panels({"one $x_1$": curves, "two": other})
    loss = found[0].lines
    assert [(line.run, line.name) for line in loss] == [
        (0, "one $x_1$, training"),
        (1, "two, training"),
        (0, "one $x_1$, validation"),
        (1, "two, validation"),
    ]
    for path in draw_panel(found[0], tmp_path):
        assert path.stat().st_size > 3000
    page = for_page(found[0])
    light, dark = (b64decode(page[theme]) for theme in ("light", "dark"))
    assert ET.fromstring(light).tag == ET.fromstring(dark).tag == "{http://www.w3.org/2000/svg}svg"
    assert b"#12181d" in dark
    assert b"#12181d" not in light
    assert "two, training 10.00" in page["words"]


def test_map_of_losses_has_the_languages_by_level_and_the_validations(curves) -> None:
    matrix = loss_map("mine", curves, LEVELS)
    assert [*matrix.rows] == ["en", "fr", "wo"]
    assert [head.name for head in matrix.columns.values()] == ["100", "200", "300"]
    assert matrix.values["wo", 300] == 9.0
    cells = [cell["text"] for row in map_of_languages(matrix)["rows"] for cell in row["cells"]]
    assert cells == ["9.00", "8.00", "7.00", "10.00", "9.00", "8.00", "11.00", "10.00", "9.00"]


def test_map_of_a_long_training_has_few_columns_with_the_first_and_the_last(tmp_path) -> None:
    matrix = loss_map("mine", read_curves(write_curves(tmp_path / "one", epochs=200)), {})
    columns = [*matrix.columns]
    assert (columns[0], columns[-1], len(columns)) == (100, 20_000, 16)


def test_updates_are_short() -> None:
    assert [short(n) for n in (0, 999, 1000, 12_345, 1_500_000)] == ["0", "999", "1k", "12.3k", "1.5M"]


def test_page_has_the_pictures_and_says_what_is_missing(tmp_path, curves) -> None:
    analysis = made_analysis(tmp_path)
    training = Training({"one & 1": curves}, {}, ("no learning curves of <b>base</b>",))
    html = html_report(analysis, training)
    section = html.partition('<section id="training">')[2].partition("</section>")[0]
    assert section.count("data:image/svg+xml;base64,") == 2 * len(panels(training.curves)) == 12
    assert "one &amp; 1: validation loss by target language" in section
    assert "no learning curves of &lt;b&gt;base&lt;/b&gt;" in html
    assert '<a href="#training">' in html
    assert 'id="training"' not in html_report(analysis)


def test_files_of_runs_whose_names_differ_in_signs_only_do_not_overwrite_each_other(curves) -> None:
    training = Training({"a b": curves, "a/b": curves, "../x": curves}, {}, ())
    stems = list(training_maps(training, LEVELS))
    assert len(set(stems)) == 3
    assert all(re.fullmatch(r"[\w.-]+", stem) for stem in stems)
    assert len(training_parts(training, LEVELS)["training_maps"]) == 3
