"""What export and import ask of their flags before they read anything, and a direction's weights."""

from __future__ import annotations

import importlib
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from langspec_lora import convert as formats
from langspec_lora.adapters.packed import Adapters, PackedMatrices
from langspec_lora.convert import EXPORTS, IMPORTS, adapter, carry_out, lslo, merged, say
from langspec_lora.errors import UserError
from langspec_lora.languages import LanguageTable
from langspec_lora.sites import Site

FLAGS = {
    "source_lang": "--source-lang",
    "target_lang": "--target-lang",
    "all": "--all",
    "fixed_dictionary": "--fixed-dictionary",
    "sentencepiece_model": "--sentencepiece-model",
    "added_languages": "--added-languages",
    "encoder_activation_direction": "--encoder-activation-direction",
    "decoder_activation_direction": "--decoder-activation-direction",
    "base": "--base",
    "langs": "--langs",
    "lang_resources": "--lang-resources",
}
OF_EXPORT = ("source_lang", "target_lang", "all", "fixed_dictionary", "sentencepiece_model")
OF_IMPORT = tuple(name for name in FLAGS if name not in ("all", "fixed_dictionary"))

FORMATS = {
    "--format adapter": (adapter.export, OF_EXPORT, ()),
    "--format merged": (merged.export, OF_EXPORT, ("source_lang", "target_lang")),
    "--from adapter": (adapter.import_checkpoint, OF_IMPORT, ("base",)),
    "--from lslo": (lslo.import_checkpoint, OF_IMPORT, ("langs", "lang_resources")),
}
"""The function of a format, the flags that its command has, and those of them that it takes."""

NEEDED = {"--format adapter": (), "--format merged": ("source_lang", "target_lang"), "--from adapter": ("base",)}


def arguments(option: str, **given: object) -> Namespace:
    """A command's arguments, with what the format needs, unless it is given otherwise; the files are not there."""
    needed = {name: name for name in NEEDED.get(option, ())}
    files = {name: Path("nowhere") / name for name in ("checkpoint", "path", "out")}
    plain = {**dict.fromkeys(FLAGS), **files, "base_checkpoint": None, "overwrite": False}
    return Namespace(**{**plain, **needed, **given})


def refusal(option: str, **given: object) -> str:
    """What a format says of its flags, before it says that the files are not there."""
    with pytest.raises(UserError) as refused:
        FORMATS[option][0](arguments(option, **given))
    first, *others = refused.value.errors
    assert all("nowhere" in str(other) or "base" in str(other) for other in others)
    return str(first)


@pytest.mark.parametrize(
    ("option", "name"),
    [(option, name) for option, (_, flags, taken) in FORMATS.items() for name in flags if name not in taken],
)
def test_a_flag_of_another_format_is_refused(option, name) -> None:
    assert refusal(option, **{name: "x"}) == f"{option} does not take {FLAGS[name]}; leave it out"


@pytest.mark.parametrize(("option", "name"), [(option, name) for option, names in NEEDED.items() for name in names])
def test_a_flag_that_a_format_needs_is_asked_for(option, name) -> None:
    assert refusal(option, **{name: None}) == f"{option} needs {FLAGS[name]}; give it too"


def test_a_direction_has_two_languages() -> None:
    message = refusal("--format merged", source_lang="wo", target_lang="wo")
    assert message == "source and target language are both 'wo'; give two different ones"


@pytest.mark.parametrize("option", ["--format merged", "--from adapter", "--from lslo"])
def test_a_file_that_is_there_is_not_replaced(option, tmp_path) -> None:
    (tmp_path / "out.pt").touch()
    assert "out.pt already exists" in refusal(option, out=tmp_path / "out.pt")


@pytest.mark.parametrize("name", ["adapter.safetensors", "adapter_config.json"])
def test_no_file_of_an_adapter_that_is_there_is_replaced(name, tmp_path) -> None:
    (tmp_path / name).touch()
    assert f"{name} already exists" in refusal("--format adapter", out=tmp_path)


def test_formats_are_called_by_these_names() -> None:
    assert list(EXPORTS) == ["adapter", "merged", "huggingface", "peft"]
    assert list(IMPORTS) == ["adapter", "lslo", "huggingface", "peft"]


@pytest.mark.parametrize("table", [EXPORTS, IMPORTS], ids=["exports", "imports"])
def test_every_format_has_its_function(table, monkeypatch) -> None:
    for name, target in table.items():
        module, function = target.split(".")
        monkeypatch.setattr(
            importlib.import_module(f"{formats.__name__}.{module}"), function, lambda args, name=name: [name, args]
        )
        assert carry_out(table, name, "the flags") == [name, "the flags"]


def test_a_remark_goes_to_where_errors_go(capsys) -> None:
    say("it is so")
    assert capsys.readouterr() == ("", "langspec-lora: it is so\n")


@pytest.mark.parametrize("part", [(0, 0), (3, 1)], ids=["whole", "slice"])
def test_a_direction_adds_to_each_layer_the_adapter_of_its_language(part) -> None:
    torch.manual_seed(5)
    sites = [Site("encoder", 0, "q"), Site("encoder", 1, "q"), Site("decoder", 0, "crossv")]
    names = ["encoder.layers.0.self_attn.q_proj", "encoder.layers.1.self_attn.q_proj"]
    names.append("decoder.layers.0.encoder_attn.v_proj")
    width = part[0] or 6
    matrices = {
        site: PackedMatrices(torch.randn(3, width), torch.randn(3, width), torch.ones(3, width)) for site in sites
    }
    languages = LanguageTable(("en", "wo"), ("high", "low"), (1, 2))
    adapters = Adapters(languages, {"encoder": ("src", "tgt"), "decoder": ("tgt",)}, *part, matrices, 0)
    base = {f"{name}.weight": torch.randn(6, 6) for name in names} | {"encoder.layer_norm.weight": torch.ones(6)}
    weights = merged.merged_weights(base, adapters, "wo", "en")
    assert list(weights) == [f"{name}.weight" for name in names]
    for site, name, rows in zip(sites, names, ([1, 2], [0], [0]), strict=True):
        expected = base[f"{name}.weight"].clone()
        for row in rows:
            for i in range(width):
                for j in range(width):
                    expected[part[1] + i, part[1] + j] += matrices[site].b[row, i] * matrices[site].a[row, j]
        torch.testing.assert_close(weights[f"{name}.weight"], expected)
    with pytest.raises(UserError, match="unknown language 'xx'"):
        merged.merged_weights(base, adapters, "wo", "xx")
