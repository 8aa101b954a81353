"""The HTML of a report on very many languages: pictures and pages in place of tens of thousands of elements."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from base64 import b64decode
from itertools import permutations
from pathlib import Path

import pytest
from matplotlib.image import imread

from langspec_lora.data.directions import Direction
from langspec_lora.evaluation.results import Run
from langspec_lora.report.analysis import Analysis
from langspec_lora.report.heat_map import DIFFERENCES, SCORES, STEPS
from langspec_lora.report.html import html_report
from tests.unit.report.test_html import HOSTILE, Page

NAMES = [*(f"l{number}" for number in range(79)), HOSTILE.replace("-", "").split()[0] + "</script>"]
LEVELS = {name: ("high", "low")[number >= 50] for number, name in enumerate(NAMES)}
MISSING = Direction("l3", "l2")


def score(source: str, target: str) -> float:
    return float(NAMES.index(source)) + NAMES.index(target) / 100


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    directions = [found for pair in permutations(NAMES, 2) if (found := Direction(*pair)) != MISSING]
    base = {direction: score(*direction) for direction in directions}
    mine = {direction: value + (10.0 if direction.target == "l7" else -5.0) for direction, value in base.items()}
    runs = (Run("base", Path("base"), {}), Run("mine", Path("mine"), {}))
    groups = {"all": directions}
    return Analysis(runs, "bleu", {"bleu": "BLEU"}, {"bleu": (base, mine)}, LEVELS, groups, NAMES)


@pytest.fixture(scope="module")
def html(analysis) -> str:
    return html_report(analysis)


def data(html: str) -> list[dict]:
    """What the page holds for its script."""
    return [json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)]


def test_the_page_of_eighty_languages_has_few_elements_and_is_whole(html) -> None:
    page = Page(html)
    assert page.open == []
    assert len(page.elements) < 5_000  # 6,319 directions on three maps and in a table
    assert [tag for tag, _ in page.elements].count("script") == 5  # no name has added or ended one


def test_a_pixel_has_the_colour_of_its_direction(html) -> None:
    light = re.findall(r'<img alt="([^"]*)" src="data:image/png;base64,([^"]*)"', html)
    assert [title.partition(":")[0] for title, _ in light] == ["mine − base", "base", "mine"]
    difference, base, _ = (imread(io.BytesIO(b64decode(content)), format="png") for _, content in light)
    assert base.shape == (80, 80, 4)
    highest = score(NAMES[79], "l7") + 10.0  # of both runs
    for source, target in [("l0", "l1"), ("l78", "l7"), ("l20", "l50"), (NAMES[79], "l0")]:
        row, column = NAMES.index(source), NAMES.index(target)
        expected = SCORES(round(STEPS * score(source, target) / highest) / STEPS)
        assert base[row, column] == pytest.approx(expected, abs=1 / 250)
        reach = 1.0 if target == "l7" else 0.25  # +10 and -5, of a scale from -10 to +10
        assert difference[row, column] == pytest.approx(DIFFERENCES(round(STEPS * reach) / STEPS), abs=1 / 250)
    assert base[3, 2, 3] == base[5, 5, 3] == 0  # not there: the page's colour of unknown values


def test_a_map_says_what_each_cell_holds_and_names_its_picture(html) -> None:
    difference, base, *_ = data(html)
    assert base["names"] == NAMES
    assert (base["titles"][20][50], base["titles"][3][2], base["titles"][5][5]) == ("20.50", "", "")
    assert difference["titles"][20][7] == "20.07 → 30.07 (+10.00)"
    assert '<a href="heatmap.mine-minus-base.png">' in html


def test_a_table_of_thousands_of_directions_comes_as_data(html) -> None:
    *_, table = data(html)
    assert len(table["rows"]) == 80 * 79 - 1
    assert table["rows"][0] == ["l0", "l1", "high→high", "0.01", "-4.99", "-5.00"]
    assert "report.directions.csv" in html.partition("<noscript>")[2].partition("</noscript>")[0]


@pytest.mark.skipif(not shutil.which("chromium"), reason="Chromium is not installed")
def test_a_browser_shows_a_page_of_the_directions(html, tmp_path) -> None:
    path = tmp_path / "report.html"
    steps = """<script>
      const form = document.querySelector("form.pager"), table = document.querySelector("table.paged");
      form.elements.on.click();
      document.body.dataset.second = table.tBodies[0].rows[0].textContent;
      table.tHead.rows[0].cells[5].querySelector("button").click();
      document.body.dataset.best = table.tBodies[0].rows[0].cells[5].textContent;
      form.elements.target.value = "l2"; form.elements.target.dispatchEvent(new Event("input", {bubbles: true}));
      document.body.dataset.into = form.querySelector("span").textContent + "/" + table.tBodies[0].rows.length;
    </script></body>"""
    path.write_text(html.replace("</body>", steps), encoding="utf-8")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"--user-data-dir={tmp_path}"]
    dom = subprocess.run([*command, path.as_uri()], capture_output=True, text=True, timeout=120, check=True).stdout
    body = dom.partition("<body")[2].partition(">")[0]
    assert 'data-second="l1l22high→high' in body  # after 79 directions from l0 and 21 from l1
    assert 'data-best="+10.00"' in body
    assert 'data-into="page 1 of 1, 78 directions/78"' in body  # all but l3-l2
