"""A file of adapters taken apart: a whole checkpoint, one without its base, an adapter folder."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest
import torch

from langspec_lora.adapters.adapter_folder import AdapterFile, write_adapter_folder
from langspec_lora.adapters.entries import language_manifest
from langspec_lora.checkpoints.fingerprint import base_fingerprint
from langspec_lora.checkpoints.left_out_base import base_entry
from langspec_lora.checkpoints.stored_model import StoredModel
from langspec_lora.errors import UserError
from tests.unit.checkpoints.test_compatibility import TABLE, all_shapes, base_shapes, stored_arguments

ARGS = stored_arguments(arch="x", encoder_langtok="src")
SETTINGS = {"arch": "x", "encoder_langtok": "src", "lora_init": "rank"}


def model() -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    state = {name: torch.randn(shape) for name, shape in all_shapes(ARGS).items()}
    state |= {name: torch.ones(value.shape, dtype=torch.uint8) for name, value in state.items() if "mask" in name}
    manifest = {"adapters.manifest": language_manifest(TABLE), "adapters.mask_epoch": torch.tensor([3])}
    return {**state, **manifest, "encoder.layers.0.fc1_bias": torch.ones(3)}


def base(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: state[name] for name in base_shapes(ARGS)}


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, Path]:
    """The same adapters in every form, and their base."""
    state = model()
    fingerprint = base_fingerprint(base(state))
    ours = {name: value for name, value in state.items() if "lora" in name or name.startswith("adapters.")}
    lean_args = Namespace(**vars(ARGS), base_checkpoint=str(tmp_path / "base.pt"))
    torch.save({"model": state, "args": ARGS}, tmp_path / "whole.pt")
    torch.save({"model": base(state), "args": stored_arguments()}, tmp_path / "base.pt")
    torch.save({"model": {**ours, **base_entry(fingerprint)}, "args": lean_args}, tmp_path / "lean.pt")
    adapters = StoredModel(tmp_path / "whole.pt").adapters
    write_adapter_folder(AdapterFile(adapters, fingerprint, SETTINGS), tmp_path / "folder")
    named = {name: tmp_path / f"{name}.pt" for name in ("whole", "base", "lean")}
    return {**named, "folder": tmp_path / "folder", "file": tmp_path / "folder" / "adapter.safetensors"}


@pytest.mark.parametrize(
    ("form", "is_checkpoint", "has_adapters", "holds_base"),
    [
        ("whole", True, True, True),
        ("base", True, False, True),
        ("lean", True, True, False),
        ("folder", False, True, False),
        ("file", False, True, False),
    ],
)
def test_every_form_says_what_it_holds(paths, form, is_checkpoint, has_adapters, holds_base) -> None:
    source = StoredModel(paths[form])
    assert (source.is_checkpoint, source.has_adapters, source.holds_base) == (is_checkpoint, has_adapters, holds_base)
    assert str(source) == f"{'checkpoint' if is_checkpoint else 'adapter'} {paths[form]}"
    assert source.fingerprint == base_fingerprint(base(model()))
    assert source.base_path == (str(paths["base"]) if form == "lean" else None)
    assert bool(source.entries) is is_checkpoint
    if is_checkpoint:
        expected = base(model())
        assert source.base.keys() == expected.keys()
        assert all(torch.equal(source.base[name], expected[name]) for name in expected)
    if has_adapters:
        assert dict(source.settings) == SETTINGS
        assert source.adapters.languages == TABLE
        site = next(site for site in source.adapters.packed if site == ("decoder", 0, "fc2"))
        assert torch.equal(source.adapters.packed[site].b, model()["decoder.layers.0.fc2.lora_B"])


@pytest.mark.parametrize("form", ["folder", "file"])
def test_adapter_folder_has_no_base_to_give(paths, form, tmp_path) -> None:
    source = StoredModel(paths[form])
    for take in (
        lambda: source.base,
        lambda: source.args,
        lambda: source.write(source.adapters, tmp_path / "out.pt"),
    ):
        with pytest.raises(UserError) as refusal:
            take()
        assert str(refusal.value) == (
            f"adapter {paths[form]} holds no base model; make it a checkpoint with "
            f"'langspec-lora import {paths[form]} --from adapter --base …'"
        )


def test_base_that_has_moved_may_be_given(paths, tmp_path) -> None:
    moved = paths["base"].rename(tmp_path / "moved.pt")
    with pytest.raises(
        UserError, match=f"^checkpoint {paths['lean']} holds adapters only, and its base .*base.pt was not"
    ):
        _ = StoredModel(paths["lean"]).base
    source = StoredModel(paths["lean"], moved)
    assert source.base_path == str(moved)
    assert source.base.keys() == base(model()).keys()


def test_base_counts_as_the_same_in_half_precision(paths) -> None:
    held = base(model())
    exact = base_fingerprint(held)
    halves = [base_fingerprint(held, dtype) for dtype in (torch.float16, torch.bfloat16)]
    for form in ("whole", "base", "lean"):
        assert all(map(StoredModel(paths[form]).has_fingerprint, (exact, *halves)))
        assert not StoredModel(paths[form]).has_fingerprint("sha256:other")
    assert [StoredModel(paths["folder"]).has_fingerprint(one) for one in (exact, *halves)] == [True, False, False]
    paths["base"].unlink()
    assert [StoredModel(paths["lean"]).has_fingerprint(one) for one in (exact, *halves)] == [True, False, False]


@pytest.mark.parametrize("form", ["whole", "lean"])
def test_other_adapters_are_written_as_the_checkpoint_is(paths, form, tmp_path, monkeypatch) -> None:
    source = StoredModel(paths[form])
    monkeypatch.chdir(tmp_path)
    if form == "lean":
        source = StoredModel(paths[form], "base.pt")
    source.write(source.adapters, tmp_path / "out.pt")
    written = torch.load(tmp_path / "out.pt", weights_only=False)
    expected = torch.load(paths[form], weights_only=False)["model"]
    expected.pop("encoder.layers.0.fc1_bias", None)
    assert written["model"].keys() == expected.keys()
    assert all(torch.equal(written["model"][name], expected[name]) for name in expected)
    assert written["args"].base_checkpoint == (str(paths["base"]) if form == "lean" else None)
    assert written["args"].encoder_langtok == "src"


def test_nothing_is_written_on_another_base(paths, tmp_path) -> None:
    torch.save({"model": {"encoder.embed_tokens.weight": torch.ones(1)}, "args": Namespace()}, paths["base"])
    source = StoredModel(paths["lean"])
    with pytest.raises(UserError, match="is not the base model of"):
        source.write(source.adapters, tmp_path / "out.pt")
    assert not (tmp_path / "out.pt").exists()
