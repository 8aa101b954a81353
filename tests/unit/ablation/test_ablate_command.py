"""``langspec-lora ablate``: its files and tables, and what it refuses before a model is loaded."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from langspec_lora.ablation import run
from langspec_lora.cli.main import main
from langspec_lora.inference.model import LoadedModel
from tests import toy
from tests.ablations import checkpoint
from tests.bad_input import PREFIX, STOCK, own_copy, write_checkpoint
from tests.evaluations import contents

LANGS = ("--langs", "en,wo", "--sentences", "2", "--cpu")


@pytest.fixture(scope="module")
def path(toy_data, tmp_path_factory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("command") / "ck.pt", toy.plugin_flags(toy_data))


@pytest.fixture(scope="module")
def out(path, toy_data, tmp_path_factory) -> Path:
    """The files of a call, in a folder that held one of the user's."""
    folder = tmp_path_factory.mktemp("out")
    (folder / "mine.csv").write_text("mine")
    assert main(["ablate", str(path), str(toy_data), *LANGS, "--out", str(folder)]) == 0
    return folder


def refusal(*words: object) -> str:
    with pytest.raises(SystemExit) as end:
        main(["ablate", *map(str, words)])
    return str(end.value.code)


@pytest.fixture
def unloaded(monkeypatch) -> None:
    def load(*args: object) -> None:
        pytest.fail("a model was loaded")

    monkeypatch.setattr(LoadedModel, "__init__", load)


def lines(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def test_files_hold_the_same_figures_and_the_user_s_file_stays(out) -> None:
    assert (out / "mine.csv").read_text() == "mine"
    found = json.loads((out / "ablation.json").read_text())
    tables = {name: lines(out / f"{name}.csv") for name in ("ablation", "ablation.languages", "swap", "similarity")}
    assert [row["change"] for row in tables["ablation"][: len(found["parts"])]] == [
        str(row["change"]) for row in found["parts"]
    ]
    assert [row["by"] for row in tables["ablation"][-2:]] == ["fc", "fc"]
    assert [(row["as"], row["name"], row["by"], row["change"]) for row in tables["swap"]] == [
        (row["as"], row["name"], row["by"], str(row["change"])) for row in found["swaps"]
    ]
    assert len(tables["similarity"]) == 3
    assert len(tables["ablation.languages"]) == len(found["cells"])
    assert found["about"]["sentences"] == 2
    pictures = {"layers", "positions", "swap.source", "swap.target", "swap.both", "similarity", "cosine"}
    assert {path.stem for path in out.glob("*.png")} == {path.stem for path in out.glob("*.svg")} == pictures


def test_a_second_call_is_refused_then_replaces_byte_for_byte_and_removes_what_it_no_longer_writes(
    path, toy_data, out, tmp_path
) -> None:
    before = contents(out)
    message = refusal(path, toy_data, *LANGS, "--out", out)
    assert f"--out {out} already contains ablation.csv; give another folder, or --overwrite" in message
    assert contents(out) == before
    folder = Path(shutil.copytree(out, tmp_path / "out"))
    (folder / "swap.csv").write_text("old")
    command = ["ablate", str(path), str(toy_data), *LANGS, "--out", str(folder), "--overwrite"]
    main([*command, "--by", "layer,position,fc"])
    after = contents(folder)
    assert "swap.csv" not in after
    assert "swap.both.png" not in after
    assert after["layers.png"] == before["layers.png"]
    assert after["ablation.languages.csv"] == before["ablation.languages.csv"]
    assert after["mine.csv"] == b"mine"


def test_json_goes_to_the_standard_output_alone(path, toy_data, capsys) -> None:
    main(["ablate", str(path), str(toy_data), *LANGS, "--json", "--by", "fc"])
    found = json.loads(capsys.readouterr().out)
    assert [row["kind"] for row in found["kinds"]] == ["fc", "attention"]
    assert found["parts"] == found["cells"] == found["swaps"] == []


def test_a_single_sentence_has_no_interval_and_that_is_said(path, toy_data, capsys) -> None:
    main(["ablate", str(path), str(toy_data), *LANGS, "--sentences", "1", "--by", "layer"])
    out = capsys.readouterr().out
    assert "no intervals: each direction has one sentence; give more as --sentences" in out
    assert " to " not in out.split("## ")[1]


def test_adapters_that_gain_nothing_have_no_share_and_that_is_said(toy_data, tmp_path, capsys) -> None:
    untrained = write_checkpoint(tmp_path / "ck.pt", toy.plugin_flags(toy_data))
    main(["ablate", str(untrained), str(toy_data), *LANGS, "--by", "layer,fc,swap"])
    out = capsys.readouterr().out
    assert "the adapters gain nothing on this text" in out
    assert "%" not in out
    assert "nan" not in out.lower()
    assert "+0." not in out  # not a bit of difference


def test_everything_wrong_is_said_at_once_before_a_model_is_loaded(path, toy_data, tmp_path, unloaded) -> None:
    message = refusal(path, tmp_path / "none", "--by", "layer,color")
    assert message.startswith(f"{PREFIX}2 mistakes")
    assert "--by names 'color'; choose from language, layer, position, fc, swap" in message
    message = refusal(path, tmp_path / "none", "--sentences", "0", "--max-hours", "0")
    assert message.startswith(f"{PREFIX}3 mistakes")
    assert "--sentences 0: expected a number of sentences of at least 1" in message
    assert "--max-hours 0" in message
    file = tmp_path / "file"
    file.touch()
    message = refusal(tmp_path / "no.pt", tmp_path / "none", "--out", file)
    assert "no.pt" in message
    assert "none is not a folder" in message
    assert "is a file; give a folder" in message


def test_a_model_without_adapters_is_refused(toy_data, tmp_path, unloaded) -> None:
    base = write_checkpoint(tmp_path / "base.pt", toy.base_flags(toy_data, *STOCK))
    assert "base.pt has no adapters, so nothing can be left out" in refusal(base, toy_data)


def test_languages_without_adapters_and_directions_without_are_refused(toy_data, tmp_path, unloaded) -> None:
    few = ("--langs", "en,fr,sd", "--lang-pairs", "en-fr,sd-en")
    three = write_checkpoint(tmp_path / "three.pt", toy.plugin_flags(toy_data, *few))
    message = refusal(three, toy_data)
    assert "the data have nl, wo, for which the checkpoint has no adapters; it knows en, fr, sd" in message
    own = write_checkpoint(tmp_path / "own.pt", toy.plugin_flags(toy_data, *few, "--adapter-key", "direction"))
    assert "fr-en was not trained" in refusal(own, toy_data, "--lang-pairs", "en-fr,fr-en")
    assert "no direction of the subset 'dev'" in refusal(own, toy_data, "--subset", "dev")


def test_what_takes_too_long_on_any_machine_is_refused_at_once(path, toy_data, unloaded, monkeypatch) -> None:
    monkeypatch.setattr(run, "_FASTEST", 30.0)
    message = refusal(path, toy_data)
    assert "passes over 20 directions would take at least 7 hours, more than --max-hours 1; choose languages" in message


def test_what_takes_too_long_here_is_refused_before_it_starts(path, toy_data, monkeypatch, capsys) -> None:
    monkeypatch.setattr(run, "_seconds_each", lambda meter, directions: 60.0)
    monkeypatch.setattr(run, "_measure", lambda *args: pytest.fail("it was measured"))
    assert "would take about 3 hours, more than --max-hours 1" in refusal(
        path, toy_data, "--langs", "en,fr,nl", "--by", "layer,position,swap"
    )
    assert "measuring" not in capsys.readouterr().err


def test_several_processes_are_refused(path, toy_data, unloaded, monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "an ablation runs in one process, but torchrun started 2; leave torchrun out" in refusal(path, toy_data)


def test_damaged_data_are_named(path, toy_data, tmp_path) -> None:
    data = own_copy(toy_data, tmp_path)
    file = data / "valid.en-wo.wo.bin"
    file.write_bytes(file.read_bytes()[:-4])
    message = refusal(path, data, *LANGS)
    assert message.startswith(PREFIX)
    assert "en-wo" in message
