"""Checkpoints as torch loads them."""

from __future__ import annotations

import zipfile
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from langspec_lora.checkpoints import loading
from langspec_lora.checkpoints.loading import load_checkpoint, load_entries, model_arguments
from langspec_lora.errors import UserError
from tests.bad_input import Touch

STATE = {"model": {"x": torch.arange(4.0), "note": "no tensor", "y": torch.ones(2)}, "args": Namespace(a=1)}


@pytest.fixture(params=[True, False], ids=["zip", "legacy"])
def saved(request, tmp_path: Path) -> Path:
    """A checkpoint in either format."""
    torch.save(STATE, tmp_path / "model.pt", _use_new_zipfile_serialization=request.param)
    return tmp_path / "model.pt"


def test_checkpoint_of_either_format_is_loaded(saved) -> None:
    assert load_checkpoint(saved)["args"] == Namespace(a=1)
    found = load_entries(str(saved))
    assert list(found) == ["x", "y"]
    assert torch.equal(found["x"], torch.arange(4.0))


@pytest.mark.parametrize("can_map", [True, False])
def test_only_the_present_format_is_mapped_and_everything_goes_to_the_cpu(saved, monkeypatch, can_map) -> None:
    given = []
    monkeypatch.setattr(torch, "load", lambda path, **options: given.append(options))
    monkeypatch.setattr(loading, "_CAN_MAP", can_map)
    load_checkpoint(saved)
    mapped = {"mmap": True} if can_map and zipfile.is_zipfile(saved) else {}
    assert given == [{"map_location": "cpu", "weights_only": False, **mapped}]


@pytest.mark.parametrize("error", [RuntimeError, EOFError, OSError])
def test_file_that_torch_stumbles_over_is_damaged(saved, monkeypatch, error) -> None:
    def load(*args, **options):
        raise error("whatever\nit says")

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(UserError, match=rf"^checkpoint {saved} is damaged \({error.__name__}\); download it again"):
        load_checkpoint(saved)


def test_hostile_file_is_refused_and_not_run(tmp_path) -> None:
    torch.save({**STATE, "extra": Touch(tmp_path / "executed")}, tmp_path / "model.pt")
    with pytest.raises(UserError, match="which no checkpoint needs"):
        load_checkpoint(tmp_path / "model.pt")
    assert not (tmp_path / "executed").exists()


def test_archive_that_lacks_the_numbers_of_a_tensor_is_damaged(tmp_path) -> None:
    torch.save(STATE, tmp_path / "whole.pt")
    with zipfile.ZipFile(tmp_path / "whole.pt") as whole, zipfile.ZipFile(tmp_path / "part.pt", "w") as part:
        for name in whole.namelist():
            if "/data/" not in name:
                part.writestr(name, whole.read(name))
    with pytest.raises(UserError, match="is damaged"):
        load_checkpoint(tmp_path / "part.pt")


def test_arguments_are_a_copy_of_those_that_either_fairseq_stores() -> None:
    held = Namespace(a=1)
    for state in (
        {"args": held, "cfg": {"model": Namespace(a=2)}},
        {"args": None, "cfg": {"model": held}},
        {"cfg": {"model": held}},
        {"args": held, "cfg": Namespace()},
    ):
        found = model_arguments(state, "m.pt")
        assert found == held
        assert found is not held


@pytest.mark.parametrize("state", [{}, {"args": None, "cfg": None}, {"cfg": {}}, {"cfg": {"model": {"a": 1}}}])
def test_checkpoint_without_arguments_is_named(state) -> None:
    with pytest.raises(
        UserError, match=r"^checkpoint m.pt holds no training arguments; give a file written by fairseq"
    ):
        model_arguments(state, "m.pt")
