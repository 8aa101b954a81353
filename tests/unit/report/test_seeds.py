"""Several seeds as one run: how they are named, what is refused or pointed out, and where each is shown."""

from __future__ import annotations

import csv
import shutil
import statistics
from pathlib import Path

import pytest

import langspec_lora
from langspec_lora.cli.main import main
from langspec_lora.errors import UserError
from langspec_lora.evaluation.results import read_run
from langspec_lora.report.analysis import Request, analyse
from langspec_lora.report.runs import run_names
from langspec_lora.report.seeds import parse_run, seed_names
from tests.reports import change_scores, invented_texts, noisy, write_results

LEVELS = "high: [en]\nlow: [fr]\n"
TEXTS = invented_texts(("en", "fr"), 12)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a base and three seeds; copy them before changing them."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "levels.yaml").write_text(LEVELS)
    for name, keep, seed in (("base", 0.7, 1), ("s1", 0.8, 2), ("s2", 0.85, 3), ("s3", 0.9, 4)):
        write_results(folder / name, TEXTS, noisy(TEXTS, keep, seed))
    return folder


def report(home: Path, out: Path, *words: str) -> None:
    flags = ("--lang-resources", str(home / "levels.yaml"), "--out", str(out), "--processes", "1")
    main(["report", *words, *flags, "--samples", "50", "--mean-samples", "50"])


def test_the_mean_over_seeds_and_each_of_them_are_in_the_files(home, tmp_path, capsys) -> None:
    seeds = [home / name for name in ("s1", "s2", "s3")]
    report(home, tmp_path, f"base={home / 'base'}", f"lslo={','.join(map(str, seeds))}")
    said = capsys.readouterr().out
    means = [statistics.mean(read_run(seed, "x").metric("bleu").values()) for seed in seeds]
    expected = f"{statistics.mean(means):.2f} ± {statistics.stdev(means):.2f} ("
    assert expected in next(line for line in said.splitlines() if line.startswith("| all"))
    assert "The figures of lslo are means over 3 seeds ± their standard deviation." in said
    (line,) = [row for row in csv.DictReader((tmp_path / "report.csv").open()) if row["group"] == "all"]
    assert line["lslo"] == f"{statistics.mean(means):.2f}"
    assert [line[f"lslo: {seed.name}"] for seed in seeds] == [f"{value:.4f}" for value in means]
    assert line["lslo: sd over seeds"] == f"{statistics.stdev(means):.4f}"
    low, high = (float(line[f"lslo − base: {bound}"]) for bound in ("low", "high"))
    assert low < float(line["lslo − base"]) < high
    assert set(csv.DictReader((tmp_path / "report.languages.csv").open()).fieldnames) >= {"lslo: s1", "lslo: low"}
    assert set(csv.DictReader((tmp_path / "report.directions.csv").open()).fieldnames) >= {"lslo: s1", "lslo: s3"}
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("<summary>Each seed</summary>") == 1
    assert '<th scope="col" class="">lslo: s2</th>' in page
    assert page.count("<dt>lslo: s1") == page.count("<dt>lslo: s3") > 0  # worst sentences show every seed's
    assert "## Each seed" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_the_python_interface_takes_seeds_too(home, tmp_path) -> None:
    runs = [home / "base", [home / "s1", str(home / "s2")]]
    options = {"levels": {"en": "high", "fr": "low"}, "processes": 1, "samples": 20, "mean_samples": 20}
    files = langspec_lora.make_report(runs, tmp_path, names=["base", "mine"], **options)
    assert "mine: s2" in (tmp_path / "report.csv").read_text(encoding="utf-8")
    assert tmp_path / "report.languages.csv" in files
    with pytest.raises(UserError, match=r"the seeds .*s1, .*s2 have no name; give one to their mean"):
        langspec_lora.make_report(runs, tmp_path, **options)
    with pytest.raises(UserError, match=r"mine names the folder .*s1 twice; a repeated seed would count twice"):
        langspec_lora.make_report([runs[0], [home / "s1", home / "s1"]], tmp_path, names=["base", "mine"], **options)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["x={s1},{s1}"], "x names the folder {s1} twice; a repeated seed would count twice"),
        (["x={s1},{s1}/../s1"], "twice"),
        (["{s1},{s2}"], "is not a folder; results of several seeds need a name for their mean, as in mine={s1},{s2}"),
        (["={s1}"], "names no run; expected NAME=DIR"),
        (["x="], "names no run"),
        (["x={s1},,{s2}"], "has an empty folder"),
        (["x={s1},{s1}.none"], "s1.none holds neither scores.json nor"),
        (["x={s1}", "x={s2}"], "several runs are called x; give each a name of its own"),
        (["x={s1}", "{s2}", "--names", "a,b"], "names are given both by --names and as NAME=DIR"),
        (["{base}", "x={s1},{s2}", "--test", "randomization"], "cannot swap the seeds of x"),
        (["{base}", "--mean-samples", "0"], "--mean-samples 0 was given; expected a whole number of at least 1"),
    ],
)
def test_mistakes_are_named_before_anything_is_read(home, tmp_path, words, error) -> None:
    places = {name: str(home / name) for name in ("base", "s1", "s2")}
    with pytest.raises(SystemExit) as raised:
        main(["report", *(word.format(**places) for word in words), "--out", str(tmp_path / "out")])
    assert error.format(**places) in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_whose_name_looks_like_seeds_is_a_folder(tmp_path) -> None:
    odd = tmp_path / "a=b,c"
    odd.mkdir()
    assert parse_run(str(odd)) == (None, odd)
    assert parse_run(f"x={odd}") == ("x", odd)
    assert parse_run("x=one, two") == ("x", (Path("one"), Path("two")))
    assert run_names([odd, tmp_path / "d"], [None, "y"]) == ["a=b,c", "y"]
    assert seed_names("x", [Path("/a/s"), Path("/b/s")]) == ["x: a/s", "x: b/s"]
    assert seed_names("x", [Path("/a/r/s"), Path("/b/r/s")]) == ["x: 1", "x: 2"]


def test_seeds_that_are_no_seeds_are_pointed_out(home, tmp_path) -> None:
    copy = Path(shutil.copytree(home / "s1", tmp_path / "copy"))
    other = Path(shutil.copytree(home / "s2", tmp_path / "other"))
    for folder, beam in ((copy, 5), (other, 1)):
        change_scores(folder, lambda c, beam=beam: c["settings"].update(generation={"beam": beam, "lenpen": 1}))
    change_scores(other, lambda c: c["directions"].pop("fr-en"))
    runs, levels = [home / "base", (home / "s1", copy, other)], {"en": "high", "fr": "low"}
    options = {"skip": ("off-target", "sentences"), "samples": 20, "processes": 1}
    found = analyse(Request(runs, levels, tmp_path / "cache", ["b", "x"], **options))
    left_out, same, beam = found.notes[:3]
    assert left_out == "directions left out because not every run has them: 1"
    assert f"{home / 's1'} and {copy}, two seeds of x, have the same hypotheses in all directions" in same
    assert beam.startswith("the seeds of x differ in beam; their spread is not that of the seeds alone")
