"""The HTML of the report: one file, nothing from elsewhere, nothing of a hypothesis that a browser would obey."""

from __future__ import annotations

import re
import shutil
import subprocess
import unicodedata
from dataclasses import replace
from html.parser import HTMLParser
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import pytest
import sacrebleu
from matplotlib.colors import to_hex, to_rgb

from langspec_lora.data.directions import Direction
from langspec_lora.report.analysis import Analysis
from langspec_lora.report.heat_map import DIFFERENCES, SCORES, STEPS, ink_on, step
from langspec_lora.report.html import cell_shape, html_report, map_table
from langspec_lora.report.map_list import direction_map
from langspec_lora.report.mean_tables import relative_notes
from langspec_lora.report.measure import Sentence
from langspec_lora.report.tables import (
    directions_table,
    group_table,
    language_table,
    made_notes,
    off_target_notes,
    significance_note,
    verdict_table,
)
from tests.analyses import BLEU, SENTENCES, bare, made_analysis, only_the_first_run
from tests.reports import invented_texts, noisy, report, write_lines, write_results

LEVELS = {"en": "high", "fr": "med", "ar": "low"}
HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)> & \x1b[31m \u202eevil\x07'
VOID = {"meta", "br", "img", "input", "link", "hr", "col", "source"}


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


class Cell(NamedTuple):
    """A cell of a table: its text, its classes, what it shows when it is pointed at."""

    text: str
    style: str
    title: str


class Sections(HTMLParser):
    """The tables of a page, and the texts outside of them, by section; the head of the page is section ``top``."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[list[Cell]]]] = {"top": []}
        self.texts: dict[str, list[str]] = {"top": []}
        self.languages: list[str | None] = []
        self._section, self._cell = "top", False
        self.feed(text.partition("<body>")[2].partition("<script>")[0])
        self.close()

    def handle_starttag(self, tag, attributes) -> None:
        found = dict(attributes)
        if tag == "section":
            self._section = found["id"]
            self.tables[self._section], self.texts[self._section] = [], []
        elif tag == "table":
            self.tables[self._section].append([])
        elif tag == "tr":
            self.tables[self._section][-1].append([])
        elif tag in ("td", "th"):
            self._cell = True
            self.tables[self._section][-1][-1].append(Cell("", found.get("class", ""), found.get("title", "")))
        elif tag == "dd":
            self.languages.append(found.get("lang"))

    def handle_endtag(self, tag) -> None:
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data) -> None:
        if self._cell:
            row = self.tables[self._section][-1][-1]
            row[-1] = row[-1]._replace(text=row[-1].text + data)
        elif data.strip():
            self.texts[self._section].append(data.strip())


@pytest.fixture(scope="module")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    return made_analysis(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def made(analysis: Analysis) -> Sections:
    """The page of an analysis whose figures are known."""
    return Sections(html_report(analysis))


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
@pytest.mark.parametrize("ending", ["", "_Hans"])
def test_a_map_fits_a_screen_of_1280_pixels(languages, figures, ending) -> None:
    levels = {f"l{number}{ending}": "low" for number in range(languages)}
    cell, tall = cell_shape(list(levels))
    name, corner, gaps, page_margins = max(26, 8 * max(map(len, levels)) + 8), 20, 12, 80
    assert languages * cell + name + corner + gaps + page_margins <= 1280
    values = {Direction(a, b): 1.0 for a, b in permutations(levels, 2)}
    titles = dict.fromkeys(values, "x")
    described = map_table(direction_map("t", "s", values, levels, limits=(0.0, 2.0), titles=titles))
    assert (described["cell"], described["tall"]) == (cell, tall)
    cells = described["rows"][0]["cells"]
    assert bool(cells and cells[1]["text"]) == (figures and cell >= 24)
    assert figures == (cell >= 24) or (languages, ending) == (46, "_Hans")  # where names take their room
    assert sum(shown for _, shown, _ in described["languages"]) * 16 <= 1280


def test_a_map_names_its_languages_levels_and_ends() -> None:
    levels = {"aa": "high", "bb": "high", "cc": "low"}
    values = {Direction("aa", "bb"): 12.34, Direction("bb", "cc"): None, Direction("cc", "aa"): -3.0}
    titles = {direction: f"{direction}!" for direction in values}
    bold = {Direction("cc", "aa")}
    described = map_table(
        direction_map("t", "s", values, levels, limits=(-5.0, 5.0), signed=True, titles=titles, bold=bold)
    )
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
    assert described["rows"][2]["cells"][0]["style"].split()[1:] == ["sure"]
    assert described["rows"][1]["cells"][2]["style"] == "first-column"
    assert (described["low"], described["high"], described["kind"]) == ("−5.0", "+5.0", "d")


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, 1 to 21 (W3C, Web Content Accessibility Guidelines 2.1)."""
    lights = []
    for colour in (one, other):
        parts = [x / 12.92 if x <= 0.03928 else ((x + 0.055) / 1.055) ** 2.4 for x in to_rgb(colour)]
        lights.append(sum(w * x for w, x in zip((0.2126, 0.7152, 0.0722), parts, strict=True)) + 0.05)
    return max(lights) / min(lights)


def test_figures_can_be_read_on_every_colour_of_the_scales(html) -> None:
    rules = re.findall(r"\.heat \.([sd]\d+)\{background:(#\w+);color:(#?\w+)\}", html)
    names = [f"{letter}{number}" for letter in "sd" for number in range(STEPS + 1)]
    assert [name for name, *_ in rules] == names * 2  # light and dark
    for rule in rules:
        assert contrast(*rule[1:]) >= 4.5, rule  # level AA of WCAG 2.1
    for scale in (SCORES, DIFFERENCES):
        for number in range(scale.N):
            ink = ink_on(scale(number))
            assert contrast(ink, to_hex(scale(number))) == max(
                contrast(i, to_hex(scale(number))) for i in ("white", ink)
            )


def test_the_page_has_the_colours_of_the_pictures(html) -> None:
    for letter, scale in (("s", SCORES), ("d", DIFFERENCES)):
        shades = [scale(number / STEPS) for number in range(STEPS + 1)]
        for number, shade in enumerate(shades):
            assert f".heat .{letter}{number}{{background:{to_hex(shade)};color:{ink_on(shade)}}}\n" in html
        gradient = ",".join(map(to_hex, shades[::4]))
        assert f".legend .{letter}{{background:linear-gradient(to right,{gradient})}}\n" in html
    # On a dark page each legend is as its cells.
    dark = html.partition("(prefers-color-scheme: dark) {\n.heat")[2]
    for letter in "sd":
        cells = re.findall(rf"\.{letter}\d+\{{background:(#\w+)", dark)
        assert f".legend .{letter}{{background:linear-gradient(to right,{','.join(cells[::4])})}}\n" in dark


def test_steps_run_from_one_end_of_the_scale_to_the_other() -> None:
    assert [step(value, -10, 10) for value in (-12, -10, 0, 10, 99)] == [0, 0, STEPS // 2, STEPS, STEPS]


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
def test_the_script_is_javascript(html, tmp_path: Path) -> None:
    script = tmp_path / "report.js"
    script.write_text(html.partition("<script>")[2].partition("</script>")[0])
    subprocess.run(["node", "--check", script], check=True)


def texts_of(table: list[list[Cell]]) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table]


def shown(table) -> list[list[str]]:
    """The text of a table as the page has it: figures with a sign have a minus, not a hyphen."""
    rows = [[t.replace("-", "−") if t[:1] == "-" else t for t in row] for row in table.cells]
    return [list(table.header), *rows]


def test_the_page_says_what_it_is_about(analysis, made) -> None:
    assert made.texts["top"] == [
        "BLEU (13a): base, one & 1, two",
        "4 directions between 3 languages; the others are compared with base",
        *("Differences", "Resource groups", "Languages", "Heat maps", "Wrong language", "Worst sentences"),
        *("Greatest losses", "Every direction", "How it was made"),
        *analysis.notes,
    ]
    assert f"<title>{made.texts['top'][0].replace('&', '&amp;')}</title>" in html_report(analysis)
    links = ("Differences", "Means", "Languages", "Heat maps", "Every direction", "How it was made")
    plain = Sections(html_report(bare(analysis)))
    assert plain.texts["top"][2:] == list(links)
    assert [*plain.texts] == ["top", "differences", "groups", "languages", "maps", "directions", "made"]
    one = Sections(html_report(only_the_first_run(analysis)))
    assert one.texts["top"][:2] == ["BLEU (13a): base", "4 directions between 3 languages"]
    assert [*one.texts] == ["top", "groups", "languages", "maps", "directions", "made"]


def test_tables_of_the_page_hold_the_figures_of_the_report(analysis, made) -> None:
    (overview,) = made.tables["top"]
    assert texts_of(overview)[2] == ["one & 1", "19.75", "+1.75", "+5.7 %", "1 / 2 / 0", "≥ 25.0 %", "0.0 %"]
    groups, chrf = made.tables["groups"]
    counts = [line[1:] for line in shown(verdict_table(analysis))]
    assert texts_of(groups) == [[*line, *more] for line, more in zip(shown(group_table(analysis)), counts, strict=True)]
    assert texts_of(chrf) == shown(group_table(analysis, "chrf"))
    assert made.texts["groups"][1:] == [
        f"Means of BLEU (13a) over the directions of each group. {significance_note(analysis)}",
        *relative_notes(analysis),
        "The same by chrF++",
    ]
    (languages,) = made.tables["languages"]
    assert texts_of(languages)[0] == ["", "from it", "into it"]
    names = ["base", "one & 1", "two", "one & 1 − base", "two − base"]
    assert texts_of(languages)[1:] == [["language", "level", *names, *names], *shown(language_table(analysis))[1:]]
    (directions,) = made.tables["directions"]
    assert texts_of(directions) == shown(directions_table(analysis))
    assert made.texts["directions"][1:] == ["4 directions"]
    (settings,) = made.tables["made"]
    assert texts_of(settings) == [["setting", "base", "one & 1", "two"], ["beam", "5", "4", "not said"]]
    plain = Sections(html_report(bare(analysis)))
    assert texts_of(plain.tables["groups"][0]) == shown(group_table(bare(analysis)))
    assert plain.texts["groups"][0] == "Means"
    assert Sections(html_report(only_the_first_run(analysis))).tables["made"] == []


def test_columns_of_text_and_signs_of_differences_are_marked(made) -> None:
    (overview,) = made.tables["top"]
    assert [cell.style for cell in overview[0]] == ["text", "", "", "", "", "", ""]
    assert [row[0].style for row in overview[1:]] == ["text"] * 3
    assert [row[2].style for row in overview[1:]] == ["", "gain", "drop"]
    assert [row[3].style for row in overview[1:]] == ["", "gain", "drop"]
    assert [row[4].style for row in overview[1:]] == ["", "", ""]
    (languages,) = made.tables["languages"]
    starts = ["text", "text", "start", *[""] * 4, "start", *[""] * 4]
    assert [cell.style for cell in languages[1]] == starts
    assert [cell.style for cell in languages[2]] == [
        *("text", "text", "start", "", "", "gain", "drop"),
        *("start", "", "", "gain", "drop"),
    ]
    assert languages[3][2] == Cell("—", "start", "")
    (directions,) = made.tables["directions"]
    assert [cell.style for cell in directions[0]].count("text") == 5  # source, target, group and two verdicts
    assert directions[1][7] == Cell("+0.00", "", "")  # no difference is no gain


def test_the_page_spans_the_columns_that_belong_together(analysis) -> None:
    html = html_report(analysis)
    assert '<th class="over" colspan="2"></th>' in html
    assert '<th class="over start" colspan="5">from it</th><th class="over start" colspan="5">into it</th>' in html


def test_maps_of_the_page_hold_every_direction(analysis, made) -> None:
    scores = [
        [["wo", "low"], ["20.0", "12.0", ""], ["30.0", "10.0"]],
        [["wo", "low"], ["26.0", "12.0", ""], ["32.0", "9.0"]],
        [["wo", "low"], ["14.0", "13.0", ""], ["30.0", "8.0"]],
    ]
    for table, own, expected in zip(made.tables["maps"], analysis.scores, scores, strict=True):
        assert texts_of(table)[0][2:] == ["high", "med", "low"]
        assert texts_of(table)[1][2:] == ["en", "fr", "wo"]
        assert [row[1].text for row in table[2:]] == ["en", "fr", "wo"]
        assert [cell.text for cell in table[4][2:]] == expected[1]
        assert [cell.text for cell in table[2][2:]] == ["", *expected[2]]
        titles = {f"{d.source} → {d.target}: {score:.2f}" for d, score in own.items()}
        assert {cell.title for row in table[2:] for cell in row if cell.title} == titles
    assert made.texts["maps"][2:5] == ["base", "mean 18.00 over 4 directions, source × target", "0.0"]


def test_sizes_of_a_map_reach_the_page(analysis) -> None:
    cell, tall = cell_shape(["en", "fr", "wo"])
    sizes = re.findall(r'<table class="heat" style="--cell:(\d+)px;--tall:(\d+)px;--name:\d+px;', html_report(analysis))
    assert sizes == [(str(cell), str(tall))] * 8  # of scores, differences and wrong language


def test_maps_of_differences_say_both_scores_and_what_is_sure(made) -> None:
    one, two = made.tables["differences"]
    # 33 colours from −6 to +6.
    assert one[2][3:] == [
        Cell("+2.0", "d21 first-column", "en → fr: 30.00 → 32.00 (+2.00)"),
        Cell("−1.0", "d13 first-column", "en → wo: 10.00 → 9.00 (-1.00); p 0.1200, tie"),
    ]
    assert one[4][2] == Cell("+6.0", "d32 sure", "wo → en: 20.00 → 26.00 (+6.00); p 0.0015, win")
    assert one[4][3] == Cell("0.0", "d16 first-column", "wo → fr: 12.00 → 12.00 (+0.00); p 1.0000, tie")
    assert two[4][2] == Cell("−6.0", "d0 sure", "wo → en: 20.00 → 14.00 (-6.00); p 0.0060, loss")
    assert two[2][4] == Cell("−2.0", "d11 first-column sure", "en → wo: 10.00 → 8.00 (-2.00); p 0.0400, loss")
    legend = made.texts["differences"]
    assert legend[2:6] == ["one & 1 − base", "mean +1.75; higher in 2 of 4 directions", "−6.0", "+6.0"]


def test_maps_of_differences_without_a_test_say_only_the_scores(analysis) -> None:
    one, _ = Sections(html_report(bare(analysis))).tables["differences"]
    assert one[4][1] == Cell("+6.0", "d32", "wo → en: 20.00 → 26.00 (+6.00)")


def test_the_page_tells_of_wrong_language_where_it_can(analysis, made) -> None:
    table, *maps = made.tables["off-target"]
    assert texts_of(table)[3] == ["wo", "script (Latin, Arabic)", "—", "≥ 25.0 %", "≥ 50.0 %", "≥ 0.0 %"]
    base = maps[0]
    assert base[2][3:] == [Cell("—", "first-column", ""), Cell("25.0", "s8 first-column", "en → wo: ≥ 25.0 %")]
    assert base[4][2:4] == [Cell("—", "", ""), Cell("10.0", "s3 first-column", "wo → fr: 10.0 %")]
    assert len(maps) == 3
    texts = made.texts["off-target"]
    assert texts[1 : 1 + len(off_target_notes(analysis))] == off_target_notes(analysis)
    assert texts[-12:] == [
        text
        for run in analysis.runs
        for text in (run.name, "% of hypotheses; told in 2 of 3 directions", "0.0", "100.0")
    ]


def test_one_run_has_one_map_of_wrong_language(analysis) -> None:
    found = replace(analysis.off_target, shares=analysis.off_target.shares[:1], silent=(0.5,))
    page = Sections(html_report(replace(only_the_first_run(analysis), off_target=found, texts=analysis.texts)))
    assert page.texts["off-target"][-4:] == ["base", "% of hypotheses; told in 2 of 3 directions", "0.0", "100.0"]
    assert len(page.tables["off-target"]) == 2


def test_signs_of_what_is_no_difference_are_left_as_they_are(analysis) -> None:
    runs = tuple(replace(run, name=name) for run, name in zip(analysis.runs, ("-1b", "+x", "a-b"), strict=True))
    overview = Sections(html_report(replace(analysis, runs=runs))).tables["top"][0]
    assert [row[0].text for row in overview[1:]] == ["-1b", "+x", "a-b"]
    assert not any("gain" in row[0].style or "drop" in row[0].style for row in overview)


def test_worst_sentences_stand_beside_their_source_and_reference(made) -> None:
    texts = made.texts["worst"]
    assert texts[1].startswith("The 20 sentences of all directions with the lowest chrF++")
    assert texts[2:] == [
        *("base", "en → wo", "sentence 3, chrF++ 0.0", "source", "three", "reference", "ñett", "base", "x"),
        *("one & 1", "en → wo", "sentence 3, chrF++ 12.2", "source", "three", "reference", "ñett", "one & 1", "ñ"),
        *("en → wo", "sentence 1, chrF++ 99.0", "source", "one�[31m cat�"),
        *("reference", "benn muus", "one & 1", "benn muus"),
        *("two", "wo → en", "sentence 2, chrF++ 3.0", "reference", "two <b>dogs</b>", "two", "xaj"),
    ]
    assert made.languages[:3] == ["en", "wo", "wo"]


def test_losses_show_both_runs_with_their_scores(made) -> None:
    def chrf(run: str, index: int) -> str:
        text, reference = SENTENCES[f"{run}.en-wo"][index], SENTENCES["wo"][index]
        return f"{sacrebleu.sentence_chrf(text, [reference], word_order=2).score:.1f}"

    texts = made.texts["losses"]
    assert texts[:2] == ["Greatest losses against base", "The 20 sentences of all directions whose chrF++ fell most."]
    assert texts[2:] == [
        *("one & 1", "en → wo", "sentence 2, −100.0 chrF++", "source", "two <b>dogs</b>", "reference", "ñaari xaj"),
        *(f"base ({chrf('base', 1)})", "ñaari xaj", f"one & 1 ({chrf('one', 1)})", "empty"),
        *("two", "en → wo", "sentence 1, −7.1 chrF++", "source", "one�[31m cat�", "reference", "benn muus"),
        *(f"base ({chrf('base', 0)})", "benn xaj", f"two ({chrf('two', 0)})", "muus"),
    ]


def test_the_page_says_how_each_run_was_made(analysis, made) -> None:
    texts = made.texts["made"]
    assert texts[1:4] == ["base", ":", BLEU]
    assert "".join(texts[1:]).startswith(
        f"base:{BLEU}, a.pt (sha256 0), fromof/baseone & 1:{BLEU}, fromof/onetwo:no signature, fromof/two"
    )
    assert texts[-len(made_notes(analysis)) :] == made_notes(analysis)


def test_every_control_character_is_shown_as_one_that_cannot_be_shown(analysis, tmp_path) -> None:
    line = "".join(map(chr, (*range(10), *range(11, 256))))
    write_lines(tmp_path / "line", [line])
    texts = {}
    # Names that are codes of ISO 639, and some that are not.
    for direction in (Direction("eng_Latn", "zh_CN"), Direction("q1", "klingon"), Direction("EN", "wol")):
        text = replace(analysis.texts["en", "wo"].reference, path=tmp_path / "line", lines=1)
        texts[direction] = replace(analysis.texts["en", "wo"], direction=direction, source=text, reference=text)
    page = Sections(
        html_report(replace(analysis, texts=texts, worst=([Sentence(d, 0, 0.0) for d in texts],), losses=()))
    )
    assert page.languages == ["eng", "zh", "zh", None, None, None, None, "wol", "wol"]
    expected = "".join("�" if unicodedata.category(c) == "Cc" and c != "\t" else c for c in line)
    assert page.texts["worst"].count(expected) == 6


def test_a_map_without_levels_names_its_sides() -> None:
    values = {Direction(a, b): 1.04 for a, b in permutations(("aa", "bb", "cc"), 2)}
    described = map_table(direction_map("t", "s", values, {}, limits=(0.0, 2.0), titles=dict.fromkeys(values, "x")))
    assert (described["title"], described["subtitle"]) == ("t", "s")
    assert described["levels"] == [("into", 3)]
    assert [row["level"] for row in described["rows"]] == [("from", 3), None, None]
    assert [row["first"] for row in described["rows"]] == [False] * 3
    assert described["rows"][0]["cells"][1] == {"text": "1.0", "style": f"s{round(STEPS * 0.52)}", "title": "x"}
    assert (described["low"], described["high"], described["kind"]) == ("0.0", "2.0", "s")


@pytest.mark.parametrize(("count", "every"), [(60, 1), (200, 4)])
def test_a_map_names_as_many_languages_as_there_is_room_for(count, every) -> None:
    first, *others = names = [f"{chr(97 + number // 26)}{chr(97 + number % 26)}" for number in range(count)]
    levels = dict.fromkeys(names, "low")
    values = {Direction(first, name): None for name in others}
    described = map_table(direction_map("t", "s", values, levels, limits=(0.0, 2.0)))
    expected = [number % every == 0 for number in range(count)]
    assert described["languages"] == [(name, named, False) for name, named in zip(levels, expected, strict=True)]
    assert [row["name"] for row in described["rows"]] == [
        name if named else "" for name, named in zip(levels, expected, strict=True)
    ]
    assert {cell["text"] for cell in described["rows"][0]["cells"]} <= {""}
    assert not described["upright"]  # a name may take as much as the columns that have none


def test_names_that_are_wider_than_their_column_stand_upright() -> None:
    for name, upright in (("en", False), ("fr_XX", False), ("eng_Latn", True)):
        values = {Direction(name, "wo"): 1.0}
        described = map_table(direction_map("t", "s", values, {}, limits=(0.0, 2.0), titles=dict.fromkeys(values, "x")))
        assert described["upright"] == upright
        assert described["name"] >= 8 * len(name)  # pixels, on the left


def test_levels_begin_with_a_line_and_a_difference_of_nothing_has_no_sign() -> None:
    levels = {"aa": "high", "bb": "high", "cc": "high", "dd": "low"}
    values = {Direction("dd", "aa"): -0.04, Direction("dd", "bb"): 0.04, Direction("aa", "dd"): 1.0}
    values[Direction("cc", "dd")] = 0.5
    titles = dict.fromkeys(values, "x")
    described = map_table(direction_map("t", "s", values, levels, limits=(-1.0, 1.0), signed=True, titles=titles))
    assert [row["first"] for row in described["rows"]] == [False, False, False, True]
    assert [row["level"] for row in described["rows"]] == [("from high", 3), None, None, ("low", 1)]
    assert described["levels"] == [("into high", 3), ("low", 1)]
    assert [cell["text"] for cell in described["rows"][3]["cells"]] == ["0.0", "0.0", "", ""]
    assert described["rows"][0]["cells"][3] == {"text": "+1.0", "style": "d32 first-column", "title": "x"}
    assert described["rows"][1]["cells"][0] == {"text": "", "style": "", "title": ""}
