"""The HTML of the report: one file, nothing from elsewhere, nothing of a hypothesis that a browser would obey."""

from __future__ import annotations

import shutil
import subprocess
from html.parser import HTMLParser
from itertools import permutations
from pathlib import Path

import pytest

from langspec_lora.evaluation.directions import Direction
from langspec_lora.reporting.colours import STEPS, contrast, step, stylesheet
from langspec_lora.reporting.heat_table import cell_shape, heat_table
from langspec_lora.reporting.maps import Heatmap
from tests.reports import invented_texts, noisy, report, write_results

LEVELS = {"en": "high", "fr": "med", "ar": "low"}
HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)> & \x1b[31m \u202eevil\x07'
VOID = {"meta", "br", "img", "input", "link", "hr"}


class Page(HTMLParser):
    """Elements, texts and hover texts of a page; checks that what is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.cells: list[tuple[str, str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        if data.strip():
            self.texts.append(data)
            tag, attributes = self.elements[-1]
            if self.open and self.open[-1] == tag == "td" and attributes.get("title"):
                self.cells.append((attributes["title"], data))


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("html")
    texts = invented_texts(tuple(LEVELS), 12)
    texts["ar"] = ["الرئيس التقى العمال في المستشفى اليوم"] * 12
    worse = noisy(texts, 0.5, 2)
    worse["en", "fr"] = [HOSTILE, *worse["en", "fr"][1:]]
    worse["fr", "ar"] = ["", *worse["fr", "ar"][1:]]
    runs = [
        write_results(folder / "base", texts, noisy(texts, 0.8, 1), generation={"beam": 5}),
        write_results(folder / "a <b> & c", texts, worse, generation={"beam": 4}),
    ]
    report(runs, LEVELS, folder / "out")
    return (folder / "out" / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_the_page_is_whole(page) -> None:
    assert page.open == []
    assert [tag for tag, _ in page.elements].count("h1") == 1
    targets = {attributes.get("id") for _, attributes in page.elements}
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    assert links
    assert all(link.startswith("#") and link[1:] in targets for link in links)


def test_nothing_is_loaded_from_elsewhere(html, page) -> None:
    assert not [attributes for _, attributes in page.elements if "src" in attributes or "srcset" in attributes]
    assert not [tag for tag, _ in page.elements if tag in ("link", "iframe", "object", "img")]
    assert "url(" not in html
    assert "@import" not in html
    assert "http" not in html


def test_text_of_hypotheses_and_names_is_shown_and_not_obeyed(html, page) -> None:
    assert [tag for tag, _ in page.elements].count("script") == 1  # ours
    assert not [attributes for _, attributes in page.elements if any(name.startswith("on") for name in attributes)]
    assert "<script>alert" not in html
    shown = next(text for text in page.texts if 'alert("x")' in text)
    assert shown == HOSTILE.replace("\x1b", "\ufffd").replace("\x07", "\ufffd")
    assert any("a <b> & c" in text for text in page.texts)


def test_sentences_say_their_language_and_let_the_browser_find_their_direction(page) -> None:
    sentences = [attributes for tag, attributes in page.elements if tag == "dd"]
    assert all(attributes["dir"] == "auto" for attributes in sentences)
    assert {attributes["lang"] for attributes in sentences} == {"en", "fr", "ar"}


def test_settings_in_which_the_runs_differ_are_named(page) -> None:
    place = page.texts.index("beam")
    assert page.texts[place : place + 3] == ["beam", "5", "4"]
    assert "subset" not in page.texts


def test_cells_of_the_maps_say_what_they_show(page) -> None:
    scores = [(title, text) for title, text in page.cells if "(" not in title and "%" not in title]
    assert len(scores) == 2 * 6
    for title, text in scores:
        assert float(title.rpartition(": ")[2]) == pytest.approx(float(text), abs=0.0501)
    differences = [(title, text) for title, text in page.cells if "(" in title]
    assert len(differences) == 6
    for title, text in differences:
        change = title.rpartition("(")[2].partition(")")[0]
        assert float(change) == pytest.approx(float(text.replace("−", "-")), abs=0.0501)
        assert title.rpartition(", ")[2] in ("win", "tie", "loss")


@pytest.mark.parametrize(
    ("languages", "figures"), [(2, True), (12, True), (30, True), (46, True), (60, False), (200, False)]
)
def test_a_map_fits_a_screen_of_1280_pixels(languages, figures) -> None:
    cell, _ = cell_shape(languages)
    name, corner, gaps, page_margins = 40, 20, 12, 40
    assert languages * cell + name + corner + gaps + page_margins <= 1280
    levels = {f"l{number}": "low" for number in range(languages)}
    values = {Direction(a, b): 1.0 for a, b in permutations(levels, 2)}
    titles = dict.fromkeys(values, "x")
    described = heat_table(Heatmap(0, "t", "s", values, (0.0, 2.0)), levels, titles)
    assert bool(described["rows"][0]["cells"][1]["text"]) == figures
    assert sum(shown for _, shown, _ in described["languages"]) * 16 <= 1280


def test_a_map_names_its_languages_levels_and_ends() -> None:
    levels = {"aa": "high", "bb": "high", "cc": "low"}
    values = {Direction("aa", "bb"): 12.34, Direction("bb", "cc"): None, Direction("cc", "aa"): -3.0}
    titles = {direction: f"{direction}!" for direction in values}
    marks = {Direction("cc", "aa"): "loss"}
    described = heat_table(Heatmap(0, "t", "s", values, (-5.0, 5.0), True), levels, titles, marks)
    assert [row["name"] for row in described["rows"]] == ["aa", "bb", "cc"]
    assert described["languages"] == [("aa", True, False), ("bb", True, False), ("cc", True, True)]
    assert described["levels"] == [("into high", 2), ("low", 1)]  # one cell is too narrow for more
    assert [row["level"] for row in described["rows"]] == [("high", 2), None, ("low", 1)]
    assert [[cell["text"] for cell in row["cells"]] for row in described["rows"]] == [
        ["", "+12.3", ""],
        ["", "", "—"],
        ["−3.0", "", ""],
    ]
    assert described["rows"][2]["cells"][0]["title"] == "cc-aa!"
    assert described["rows"][2]["cells"][0]["style"].split()[1:] == ["loss"]
    assert described["rows"][1]["cells"][2]["style"] == "first-column"
    assert (described["low"], described["high"], described["kind"]) == ("−5.0", "+5.0", "d")


def test_figures_can_be_read_on_every_colour_of_the_scales() -> None:
    rules = [line for line in stylesheet().splitlines() if line.startswith(".heat")]
    assert len(rules) == 4 * (STEPS + 1)  # scores and differences, light and dark
    for rule in rules:
        background, ink = rule.partition("background:")[2].rstrip("}").split(";color:")
        assert contrast(ink, background) >= 4.5, rule  # level AA of WCAG 2.1


def test_steps_run_from_one_end_of_the_scale_to_the_other() -> None:
    assert [step(value, -10, 10) for value in (-12, -10, 0, 10, 99)] == [0, 0, STEPS // 2, STEPS, STEPS]


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
def test_the_script_is_javascript(html, tmp_path: Path) -> None:
    script = tmp_path / "report.js"
    script.write_text(html.partition("<script>")[2].partition("</script>")[0])
    subprocess.run(["node", "--check", script], check=True)
