"""The adapters of a checkpoint as plain data, held against the model that they came from."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from langspec_lora.adapters.entries import adapter_shapes, language_manifest
from langspec_lora.checkpoints.stored_model import StoredModel, checked_adapters
from langspec_lora.config import AdapterConfig
from langspec_lora.errors import UserError
from langspec_lora.languages import LanguageTable, languages_to_json
from tests import toy
from tests.bad_input import STOCK, without_one_adapter, write_checkpoint
from tests.unit.adapters.test_adapter_folder import make
from tests.unit.checkpoints.test_compatibility import dtype_of, stored_arguments

ROWS = {"en": (0, 2), "fr": (2, 4), "nl": (4, 7), "wo": (7, 11), "sd": (11, 15)}


@pytest.mark.parametrize("flags", [(), ("--dim", "6", "--start-idx", "2")], ids=["whole", "slice"])
def test_adapters_are_the_rows_that_the_model_uses(toy_data, tmp_path, flags) -> None:
    path = write_checkpoint(tmp_path / "a.pt", toy.plugin_flags(toy_data, *flags), fill_b)
    adapters = StoredModel(path).adapters
    model = torch.load(path, weights_only=False)["model"]
    assert adapters.languages.names == toy.LANGUAGES
    assert (adapters.dim, adapters.start) == ((6, 2) if flags else (0, 0))
    assert adapters.sides == {"encoder": ("src", "tgt"), "decoder": ("tgt", "tgt")}
    names = {("encoder", 1, "q"): "encoder.layers.1.self_attn.q_proj", ("decoder", 0, "fc1"): "decoder.layers.0.fc1"}
    names["decoder", 1, "crossv"] = "decoder.layers.1.encoder_attn.v_proj"
    for site, name in names.items():
        for language, (start, end) in ROWS.items():
            site = next(own for own in adapters.packed if own == site)
            a, b = adapters.adapter(site, language)
            assert torch.equal(a, model[f"{name}.lora_A"][start:end])
            assert torch.equal(b, model[f"{name}.lora_B"][start:end])
            assert b.abs().sum() > 0
    assert len(adapters.packed) == 2 * 5 + 2 * 8


def test_features_are_those_of_the_slice() -> None:
    adapters = make(0).adapters
    assert adapters.features is None
    assert replace(adapters, dim=6, start=2).features == slice(2, 8)


def test_adapters_of_other_sizes_than_the_arguments_say_are_refused() -> None:
    args = stored_arguments(adapter_languages=languages_to_json(LanguageTable(("en", "wo"), ("high", "low"), (2, 3))))
    shapes = adapter_shapes(args, AdapterConfig.from_args(args))
    state = {name: torch.zeros(shape, dtype=dtype_of(name)) for name, shape in shapes.items()}
    state["adapters.manifest"] = language_manifest(LanguageTable(("en", "wo"), ("high", "low"), (2, 3)))
    state["adapters.mask_epoch"] = torch.tensor([4])
    held = checked_adapters({**state, "x": torch.zeros(1)}, args, "here")
    assert held.languages.names == ("en", "wo")
    assert held.mask_epoch == 4
    wrong = {**state, "encoder.layers.0.fc1.lora_B": torch.zeros(5, 7)}
    with pytest.raises(
        UserError, match=r"^here has encoder\.layers\.0\.fc1\.lora_B of shape \(5, 7\), but the model has"
    ):
        checked_adapters(wrong, args, "here")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ((("wo", "en"), ("low", "high"), (3, 2)), "names wo,en, but those of its training have en,wo"),
        ((("en", "wo"), ("med", "low"), (2, 3)), "levels med,low, but those of its training have high,low"),
        ((("en", "wo"), ("high", "low"), (3, 2)), "ranks 3,2, but those of its training have 2,3"),
    ],
)
def test_rows_of_other_languages_than_the_arguments_say_are_refused(table, words) -> None:
    """Each language would get rows of another, which have the right shapes."""
    args = stored_arguments(adapter_languages=languages_to_json(LanguageTable(("en", "wo"), ("high", "low"), (2, 3))))
    shapes = adapter_shapes(args, AdapterConfig.from_args(args))
    state = {name: torch.zeros(shape, dtype=dtype_of(name)) for name, shape in shapes.items()}
    state["adapters.manifest"] = language_manifest(LanguageTable(*table))
    with pytest.raises(UserError, match=f"^here is damaged: its adapters' languages have the {words}"):
        checked_adapters(state, args, "here")


def fill_b(state: dict) -> None:
    torch.manual_seed(4)
    for name, value in state["model"].items():
        if name.endswith("lora_B"):
            value.normal_()


def test_base_entries_are_those_of_the_stock_model(toy_data, tmp_path) -> None:
    adapted = StoredModel(write_checkpoint(tmp_path / "a.pt", toy.plugin_flags(toy_data))).base
    stock = StoredModel(write_checkpoint(tmp_path / "b.pt", toy.base_flags(toy_data, *STOCK))).base
    assert adapted.keys() == stock.keys()
    assert not any("lora" in name or name.startswith("adapters.") for name in adapted)
    assert "encoder.layers.0.in_proj_weight" not in stock
    assert "encoder.layers.0.self_attn.q_proj.weight" in stock


def test_checkpoints_without_their_adapters_are_refused(toy_data, tmp_path) -> None:
    base = write_checkpoint(tmp_path / "base.pt", toy.base_flags(toy_data, *STOCK))
    with pytest.raises(UserError, match="holds no adapters"):
        _ = StoredModel(base).adapters
    part = write_checkpoint(tmp_path / "part.pt", toy.plugin_flags(toy_data), without_one_adapter)
    with pytest.raises(UserError, match="holds only part of the adapters: 1 of"):
        _ = StoredModel(part).adapters
    with pytest.raises(UserError, match="does not exist"):
        _ = StoredModel(tmp_path / "none.pt").adapters
