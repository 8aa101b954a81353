"""An analysis of three runs made by hand, for the tests of what a report says of one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from langspec_lora.data.directions import Direction
from langspec_lora.evaluation.results import Run
from langspec_lora.report.analysis import Analysis, OffTarget
from langspec_lora.report.measure import Sentence
from langspec_lora.report.off_target import Judge
from langspec_lora.report.significance import Comparison
from langspec_lora.report.texts import DirectionTexts, TextFile
from tests.reports import write_lines

EN_FR, EN_WO, WO_EN, WO_FR = (Direction.parse(name) for name in ("en-fr", "en-wo", "wo-en", "wo-fr"))
LEVELS = {"en": "high", "fr": "med", "wo": "low"}
BLEU = "nrefs:1|case:mixed|tok:13a"

SENTENCES = {
    "en": ["one\x1b[31m cat\x85", "two <b>dogs</b>", "three"],
    "wo": ["benn muus", "ñaari xaj", "ñett"],
    "base.en-wo": ["benn xaj", "ñaari xaj", "x"],
    "one.en-wo": ["benn muus", "", "ñ"],
    "two.en-wo": ["muus", "xaj", "ñett"],
}
"""Three sentences of a direction, and what each run made of them."""


def made_analysis(folder: Path) -> Analysis:
    """Three runs, of whose four directions three have texts, and two of these tell a wrong language.

    Args:
        folder: where the texts are written.
    """
    files = {}
    for name, lines in SENTENCES.items():
        write_lines(folder / name, lines)
        files[name] = TextFile(folder / name, name, len(lines))
    hypotheses = tuple(files[f"{run}.en-wo"] for run in ("base", "one", "two"))
    texts = {
        EN_WO: DirectionTexts(EN_WO, files["wo"], hypotheses, files["en"]),
        WO_EN: DirectionTexts(WO_EN, files["en"], hypotheses),
        WO_FR: DirectionTexts(WO_FR, files["en"], hypotheses),
    }
    settings = [
        {"generation": {"beam": 5, "lenpen": 1.0}, "subset": "test", "checkpoint": "a", "sources": 1},
        {"generation": {"beam": 4, "lenpen": 1.0}, "subset": "test", "checkpoint": "b", "sources": 2},
        {},
    ]
    runs = (
        Run("base", Path("of/base"), {}, {"bleu": BLEU}, "a.pt (sha256 0)", settings=settings[0]),
        Run("one & 1", Path("of/one"), {}, {"bleu": BLEU}, settings=settings[1]),
        Run("two", Path("of/two"), {}, {}, settings=settings[2]),
    )
    scores = (
        {EN_FR: 30.0, EN_WO: 10.0, WO_EN: 20.0, WO_FR: 12.0},
        {EN_FR: 32.0, EN_WO: 9.0, WO_EN: 26.0, WO_FR: 12.0},
        {EN_FR: 30.0, EN_WO: 8.0, WO_EN: 14.0, WO_FR: 13.0},
    )
    groups = {"high→med": [EN_FR], "high→low": [EN_WO], "low→high": [WO_EN], "low→med": [WO_FR], "all": [*scores[0]]}
    one = Comparison(
        {EN_WO: 0.06, WO_EN: 0.0005, WO_FR: 1.0},
        {EN_WO: 0.12, WO_EN: 0.0015, WO_FR: 1.0},
        {EN_WO: "tie", WO_EN: "win", WO_FR: "tie"},
    )
    two = Comparison(
        {EN_WO: 0.02, WO_EN: 0.002, WO_FR: 0.04},
        {EN_WO: 0.04, WO_EN: 0.006, WO_FR: 0.04},
        {EN_WO: "loss", WO_EN: "loss", WO_FR: "win"},
    )
    judges = {
        "wo": Judge("wo", ("Latn", "Arab")),
        "en": Judge("en", ("Latn",), True, (), 0.05, ("en_GB",)),
        "fr": Judge("fr", ("Latn",), True, (), 0.0),
    }
    shares = ({EN_WO: 0.25, WO_FR: 0.1}, {EN_WO: 0.5, WO_FR: 0.0}, {EN_WO: 0.0, WO_FR: 0.0})
    return Analysis(
        runs,
        "bleu",
        {"bleu": "BLEU (13a)", "chrf": "chrF++"},
        {"bleu": scores, "chrf": [dict.fromkeys(scores[0], score) for score in (35.0, 37.5, 34.0)]},
        LEVELS,
        groups,
        list(LEVELS),
        ("something is left out", "so is another"),
        2000,
        (one, two),
        OffTarget(judges, shares, (1 / 12, 0.0, 0.25), frozenset({"wo"})),
        texts,
        ([Sentence(EN_WO, 2, 0.0)], [Sentence(EN_WO, 2, 12.25), Sentence(EN_WO, 0, 99.0)], [Sentence(WO_EN, 1, 3.0)]),
        ([Sentence(EN_WO, 1, -100.0)], [Sentence(EN_WO, 0, -7.125)]),
    )


def bare(analysis: Analysis) -> Analysis:
    """The same without what is read from the sentences, and without levels."""
    return replace(
        analysis,
        levels={},
        notes=(),
        comparisons=(),
        off_target=None,
        texts={},
        worst=(),
        losses=(),
        groups={"all": analysis.groups["all"]},
    )


def only_the_first_run(analysis: Analysis) -> Analysis:
    """A report on one run, as far as its scores go."""
    return replace(
        bare(analysis),
        runs=analysis.runs[:1],
        metrics={metric: scores[:1] for metric, scores in analysis.metrics.items()},
    )
