"""Pairs as PEFT's LoRA and back, tensor by tensor; the settings as PEFT itself writes and reads them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from langspec_lora.adapters.packed import Adapters, PackedMatrices
from langspec_lora.convert.hf.peft_folder import base_model_name, export_lora, import_lora
from langspec_lora.errors import UserError
from langspec_lora.languages import PAPER_RESOURCES, LanguageTable
from langspec_lora.sites import Site
from tests.optional import hugging_face

Q, FC1, CROSS_V = (
    Site("encoder", 0, "q"),
    Site("encoder", 1, "fc1"),
    Site("decoder", 0, "crossv"),
)
NAMES = {
    Q: "encoder.layers.0.self_attn.q_proj",
    FC1: "encoder.layers.1.fc1",
    CROSS_V: "decoder.layers.0.encoder_attn.v_proj",
}
SIZES = {
    f"{stack}.layers.{layer}.{name}.weight": {"fc1": (7, 4), "fc2": (4, 7)}.get(name, (4, 4))
    for stack, layers in (("encoder", 2), ("decoder", 1))
    for layer in range(layers)
    for name in (*(f"{kind}_attn.{p}_proj" for kind in ("self", "encoder") for p in "qkv"), "fc1", "fc2")
    if stack == "decoder" or not name.startswith("encoder_attn")
}
SIDES = {"encoder": ("src", "tgt"), "decoder": ("tgt",)}
LANGUAGES = LanguageTable(("en", "nl", "wo"), ("high", "med", "low"), (2, 1, 3))
ROWS = {"en": slice(0, 2), "nl": slice(2, 3), "wo": slice(3, 6)}


def adapters(dim: int = 0, start: int = 0) -> Adapters:
    """Random adapters at three sites."""
    torch.manual_seed(2)
    matrices = {}
    for site, name in NAMES.items():
        d_out, d_in = SIZES[f"{name}.weight"]
        a, b = torch.randn(6, dim or d_in), torch.randn(6, dim or d_out)
        matrices[site] = PackedMatrices(a, b, torch.ones_like(b, dtype=torch.uint8))
    return Adapters(LANGUAGES, SIDES, dim, start, matrices, 0)


@pytest.mark.parametrize("part", [(0, 0), (2, 1)], ids=["whole", "slice"])
def test_an_exported_lora_has_in_each_layer_the_adapter_of_its_language(tmp_path, part) -> None:
    own = adapters(*part)
    export_lora(own, "en", "wo", SIZES, tmp_path / "lora")
    tensors = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    assert len(tensors) == 6
    for site, language in ((Q, "en"), (FC1, "wo"), (CROSS_V, "wo")):
        d_out, d_in = SIZES[f"{NAMES[site]}.weight"]
        dim, start = part
        a, b = (packed[ROWS[language]] for packed in own.packed[site][:2])
        expected_a, expected_b = torch.zeros(len(a), d_in), torch.zeros(d_out, len(a))
        expected_a[:, start : start + (dim or d_in)] = a
        expected_b[start : start + (dim or d_out)] = b.T
        prefix = f"base_model.model.model.{NAMES[site]}"
        assert torch.equal(tensors[f"{prefix}.lora_A.weight"], expected_a)
        assert torch.equal(tensors[f"{prefix}.lora_B.weight"], expected_b)


def test_exported_settings_give_each_module_its_rank_and_scale_nothing(tmp_path) -> None:
    export_lora(adapters(), "en", "wo", SIZES, tmp_path / "lora")
    assert json.loads((tmp_path / "lora" / "adapter_config.json").read_text()) == {
        "peft_type": "LORA",
        "task_type": "SEQ_2_SEQ_LM",
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": 3,  # of two modules of three
        "lora_alpha": 3,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": [
            "model.decoder.layers.0.encoder_attn.v_proj",
            "model.encoder.layers.0.self_attn.q_proj",
            "model.encoder.layers.1.fc1",
        ],
        "rank_pattern": {"model.encoder.layers.0.self_attn.q_proj": 2},
        "alpha_pattern": {"model.encoder.layers.0.self_attn.q_proj": 2},
    }
    assert base_model_name(tmp_path / "lora") is None


class Linears(torch.nn.Module):
    """What PEFT needs of a model: modules of the names, and two attributes of a translation model."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.config, self.prepare_inputs_for_generation = {"model_type": "m2m_100"}, None
        for name in SIZES:
            *folders, last = f"model.{name}".removesuffix(".weight").split(".")
            module = self
            for folder in folders:
                if not hasattr(module, folder):
                    module.add_module(folder, torch.nn.Module())
                module = getattr(module, folder)
            module.add_module(last, torch.nn.Linear(*SIZES[name][::-1]))


@pytest.mark.parametrize("left", ["a part", "nothing of a module", "nothing"])
def test_pruned_components_are_left_out_and_peft_computes_the_same(tmp_path, left) -> None:
    peft = hugging_face("peft")
    own = adapters()
    rows = {"a part": {Q: [0], CROSS_V: [3, 5]}, "nothing of a module": {Q: [0, 1], FC1: [4]}}
    rows = rows.get(left, {site: list(range(6)) for site in NAMES})
    for site, pruned in rows.items():
        own.packed[site].mask[pruned] = 0
        own.packed[site].b[pruned] = 0
    export_lora(own, "en", "wo", SIZES, tmp_path / "lora")
    tensors = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    ranks = {Q: 2, FC1: 3, CROSS_V: 3}
    for site, name in NAMES.items():
        lives = ranks[site] - len(set(rows.get(site, [])) & set(range(6)[ROWS["en" if site == Q else "wo"]]))
        held = tensors.get(f"base_model.model.model.{name}.lora_A.weight")
        if left == "nothing" and site == Q:
            lives = 1  # PEFT takes no LoRA without a module
        assert (held is None) == (lives == 0)
        assert held is None or len(held) == lives
    plain = Linears()
    model = peft.PeftModel.from_pretrained(Linears(), tmp_path / "lora")
    for site, name in NAMES.items():
        module, base = (one.get_submodule(f"model.{name}") for one in (model.base_model.model, plain))
        x = torch.randn(5, base.in_features)
        a, b = (packed[ROWS["en" if site == Q else "wo"]] for packed in own.packed[site][:2])
        torch.testing.assert_close(module(x), base(x) + x @ a.T @ b)
    back = import_lora(tmp_path / "lora", "en", "wo", SIZES, SIDES, PAPER_RESOURCES)
    for site in own.packed:
        old_a, old_b = own.matrices(site, "en", "wo")
        a, b = back.matrices(site, "en", "wo") if site in back.packed else (old_a, torch.zeros_like(old_b))
        torch.testing.assert_close(b.T @ a, old_b.T @ old_a)


def test_an_export_replaces_files_only_where_it_is_told_to(tmp_path) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_text("mine")
        with pytest.raises(UserError, match=f"already contains {name}"):
            export_lora(adapters(), "en", "wo", SIZES, folder)
        assert [path.read_text() for path in folder.iterdir()] == ["mine"]
        export_lora(adapters(), "en", "wo", SIZES, folder, overwrite=True)
        assert {path.name for path in folder.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    with pytest.raises(UserError, match="unknown language 'xx'"):
        export_lora(adapters(), "en", "xx", SIZES, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def lora(*sites: Site, rank: int = 2, **ranks: int) -> dict[str, Tensor]:
    """Random tensors as PEFT names them."""
    torch.manual_seed(4)
    tensors = {}
    for site in sites or NAMES:
        d_out, d_in = SIZES[f"{NAMES[site]}.weight"]
        own = ranks.get(site.position, rank)
        tensors[f"base_model.model.model.{NAMES[site]}.lora_A.weight"] = torch.randn(own, d_in)
        tensors[f"base_model.model.model.{NAMES[site]}.lora_B.weight"] = torch.randn(d_out, own)
    return tensors


def write(folder: Path, tensors: Mapping[str, Tensor], **settings) -> Path:
    folder.mkdir(exist_ok=True)
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, **settings}
    settings = {name: value for name, value in settings.items() if value != "left out"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def read(folder: Path, sides: Mapping[str, tuple[str, ...]] = SIDES) -> Adapters:
    return import_lora(folder, "en", "wo", SIZES, sides, PAPER_RESOURCES)


def added(own: Adapters, site: Site, language: str) -> Tensor:
    """What a language's adapter adds to the weight."""
    a, b = own.adapter(site, language)
    return b.T @ a


def expected_of(tensors: Mapping[str, Tensor], site: Site, scaling: float = 1.0) -> Tensor:
    prefix = f"base_model.model.model.{NAMES[site]}"
    return tensors[f"{prefix}.lora_B.weight"] @ tensors[f"{prefix}.lora_A.weight"] * scaling


def test_an_imported_lora_becomes_part_of_the_adapters_of_the_layers_languages(tmp_path) -> None:
    tensors = lora(q=3, fc1=1)
    own = read(write(tmp_path, tensors, lora_alpha=5, rank_pattern={"q_proj": 3, "fc1": 1}))
    assert own.languages == LanguageTable(("en", "wo"), ("high", "low"), (3, 2))
    assert own.sides == SIDES
    assert (own.dim, own.start, own.mask_epoch) == (0, 0, 0)
    assert [site for site in own.packed if site in NAMES] == [Q, FC1, CROSS_V]  # in the order of the model
    for site, language, rank in ((Q, "en", 3), (FC1, "wo", 1), (CROSS_V, "wo", 2)):
        torch.testing.assert_close(added(own, site, language), expected_of(tensors, site, 5 / rank))
        other = {"en": "wo", "wo": "en"}[language]
        assert not own.adapter(site, other)[1].any()
    for site in NAMES:
        a, b, mask = own.packed[site]
        d_out, d_in = SIZES[f"{NAMES[site]}.weight"]
        assert (a.shape, b.shape) == ((5, d_in), (5, d_out))
        assert mask.dtype == torch.uint8
        assert torch.equal(mask, torch.ones(5, d_out))


def test_what_a_lora_lacks_is_drawn_as_a_training_draws_it_and_alike_each_time(tmp_path) -> None:
    rows, width = 64, 128
    name = "decoder.layers.0.encoder_attn.v_proj"
    tensors = {
        f"base_model.model.model.{name}.lora_A.weight": torch.zeros(rows, width),
        f"base_model.model.model.{name}.lora_B.weight": torch.zeros(width, rows),
    }
    folder = write(tmp_path, tensors, r=rows)
    sizes = {f"{name}.weight": (width, width)}
    sides = {"encoder": (), "decoder": ("tgt",)}
    own, again = (import_lora(folder, "en", "wo", sizes, sides, PAPER_RESOURCES) for _ in range(2))
    assert own.languages.ranks == (1, rows)  # the source language has nothing to do, but each has an adapter
    a = own.adapter(CROSS_V, "en")[0]
    assert torch.equal(a, again.adapter(CROSS_V, "en")[0])
    reversed_sides = {"encoder": (), "decoder": ("src",)}
    other = import_lora(folder, "en", "wo", sizes, reversed_sides, PAPER_RESOURCES)
    assert other.languages.ranks == (rows, 1)
    short = {key: value[:1] if "lora_A" in key else value[:, :1] for key, value in tensors.items()}
    wide = {key.replace("layers.0", "layers.1"): value for key, value in tensors.items()}
    folder = write(tmp_path, {**short, **wide}, r=1, rank_pattern={"layers.1.encoder_attn.v_proj": rows})
    sizes[f"{name}.weight".replace("layers.0", "layers.1")] = (width, width)
    both = import_lora(folder, "en", "wo", sizes, {"encoder": (), "decoder": ("tgt", "tgt")}, PAPER_RESOURCES)
    a, b = both.adapter(CROSS_V, "wo")
    assert not a[0].any()
    bound = rows**-0.5  # U(-1/√r, 1/√r), as --lora-init rank draws
    assert 0.98 * bound < a[1:].max() <= bound
    assert -bound <= a[1:].min() < -0.98 * bound
    assert abs(a[1:].mean()) < 0.02 * bound
    assert not b.any()


def test_all_positions_of_a_lora_are_in_every_layer_that_it_adapts(tmp_path) -> None:
    """A model has the same positions in all adapted layers of a stack; what a LoRA lacks there adds nothing."""
    sizes = {
        f"{stack}.layers.{layer}.{name}.weight": (4, 4)
        for stack in ("encoder", "decoder")
        for layer in range(4)
        for name in ("self_attn.q_proj", "self_attn.v_proj", "fc1", "encoder_attn.k_proj")
    }
    linears = ["encoder.layers.3.fc1", "encoder.layers.0.self_attn.v_proj", "decoder.layers.2.encoder_attn.k_proj"]
    tensors = {f"base_model.model.model.{name}.lora_A.weight": torch.randn(2, 4) for name in linears}
    tensors |= {f"base_model.model.model.{name}.lora_B.weight": torch.randn(4, 2) for name in linears}
    sides = {"encoder": ("src",) * 4, "decoder": ("tgt",) * 4}
    own = import_lora(write(tmp_path, tensors), "en", "wo", sizes, sides, PAPER_RESOURCES)
    grid = [("encoder", layer, position) for layer in (0, 3) for position in ("v", "fc1")]
    assert list(own.packed) == [*grid, ("decoder", 2, "crossk")]
    for site in (("encoder", 0, "fc1"), ("encoder", 3, "v")):
        a, b, _ = own.packed[Site(*site)]
        assert a.abs().min() > 0
        assert not b.any()


@pytest.mark.parametrize(
    ("rank_pattern", "alpha_pattern", "scaling"),
    [
        ({}, {}, 6 / 2),
        (None, None, 6 / 2),
        ("left out", "left out", 6 / 2),
        ({"fc1": 2, r".*\.fc1": 9}, {"nothing": 1, "fc1": 8, r".*\.fc1": 9}, 8 / 2),  # the first that fits
        ({}, {"layers.1.fc1": 8}, 8 / 2),
        ({}, {"c1": 8, "fc": 8, "fc1.x": 8}, 6 / 2),  # whole parts of the name only
        ({}, {"model.encoder.layers.1.fc1": 5}, 5 / 2),
        ({}, {"fc1|q_proj": 0.5}, 0.5 / 2),
        ({}, {f"x{'|x' * 148}|fc1"[-300:]: 7}, 7 / 2),  # the longest that is read
        ({}, {r"model\..*layers\.\d+\.fc1": 7}, 7 / 2),
    ],
    ids=str,
)
def test_ranks_and_alphas_are_found_as_peft_finds_them(tmp_path, rank_pattern, alpha_pattern, scaling) -> None:
    other = hugging_face("peft.utils.other")
    if isinstance(alpha_pattern, dict):
        key = other.get_pattern_key(alpha_pattern.keys(), f"model.{NAMES[FC1]}")
        assert alpha_pattern.get(key, 6) / 2 == scaling
    tensors = lora(FC1)
    folder = write(tmp_path, tensors, lora_alpha=6, rank_pattern=rank_pattern, alpha_pattern=alpha_pattern)
    torch.testing.assert_close(added(read(folder), FC1, "wo"), expected_of(tensors, FC1, scaling))


def test_rank_and_alpha_that_settings_leave_out_are_pefts_defaults_and_named(tmp_path, caplog) -> None:
    peft = hugging_face("peft")
    tensors = lora(FC1, rank=peft.LoraConfig().r)
    own = read(write(tmp_path, tensors, r="left out", lora_alpha="left out"))
    scaling = peft.LoraConfig().lora_alpha / peft.LoraConfig().r
    torch.testing.assert_close(added(own, FC1, "wo"), expected_of(tensors, FC1, scaling))
    assert "adapter_config.json lacks r and lora_alpha; PEFT's default, 8, is taken" in caplog.text
    caplog.clear()
    own = read(write(tmp_path, tensors, r="left out", lora_alpha=24))
    assert "adapter_config.json lacks r; PEFT's default" in caplog.text
    caplog.clear()
    read(write(tmp_path, tensors, r=8, lora_alpha=24))
    assert not caplog.text
    torch.testing.assert_close(added(own, FC1, "wo"), expected_of(tensors, FC1, 24 / peft.LoraConfig().r))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        *(({"r": value}, f"r is {value!r} for model.encoder.layers.1.fc1") for value in (0, -2, "2", True, None, [2])),
        *(({"lora_alpha": value}, f"lora_alpha is {value!r} for") for value in (0, -0.5, 1e9, True, "x", None)),
        ({"r": 3}, "has rank 2 at encoder.layers.1.fc1, but its adapter_config.json says 3"),
        ({"rank_pattern": {"fc1": True}}, "r is True for"),
        *(
            ({"rank_pattern": table}, "rank_pattern is not a table of names and numbers")
            for table in ([2], {"(": 3}, 5)
        ),
        ({"alpha_pattern": "fc1"}, "alpha_pattern is not a table of names and numbers"),
        *(
            ({"alpha_pattern": {text: 2}}, f"alpha_pattern has {text[:60]!r}, too complex for a module name")
            for text in ("x" * 301, "a*b+c?", "a?b{2}c*", "(a)+", "(a)*", "(a)?", "(a){3}")
        ),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_ranks_and_alphas_that_are_none_are_refused(tmp_path, settings, expected) -> None:
    with pytest.raises(UserError) as refused:
        read(write(tmp_path, lora(FC1), **settings))
    assert expected in str(refused.value)
    assert str(tmp_path) in str(refused.value)


@pytest.mark.parametrize("alpha", [1e-3, 0.5, 999_999_999.5])
def test_alphas_may_be_any_number_that_a_person_would_give(tmp_path, alpha) -> None:
    tensors = lora(FC1)
    own = read(write(tmp_path, tensors, lora_alpha=alpha))
    torch.testing.assert_close(added(own, FC1, "wo"), expected_of(tensors, FC1, alpha / 2))


HARMLESS = {
    "task_type": "SEQ_2_SEQ_LM",
    "auto_mapping": {"base_model_class": "M2M100ForConditionalGeneration"},
    "base_model_name_or_path": "facebook/m2m100_418M",
    "revision": "main",
    "peft_version": "0.18.0",
    "inference_mode": True,
    "lora_dropout": 0.1,
    "rank_pattern": {"other": 4},
    "alpha_pattern": {"other": 4},
    "target_modules": ["q_proj"],
    "exclude_modules": ["lm_head"],
    "layers_to_transform": [0],
    "layers_pattern": "layers",
    "init_lora_weights": "gaussian",
    "runtime_config": {"ephemeral_gpu_offload": True},
    "megatron_core": "megatron.core",
    "qalora_group_size": 16,
    "loftq_config": {"loftq_bits": 4},
    "eva_config": {"rho": 2.0},
    "corda_config": {"use_float16_for_covariance": True},
    "lora_ga_config": {"direction": "ArB2r"},
}
"""What PEFT writes of a LoRA that computes no more than ``B A x``: how it was trained, and on what."""


def test_settings_of_how_a_lora_was_trained_change_nothing(tmp_path) -> None:
    tensors = lora()
    expected = read(write(tmp_path, tensors))
    folder = write(tmp_path, tensors, **HARMLESS)
    own = read(folder)
    for site in NAMES:
        assert all(torch.equal(*both) for both in zip(own.packed[site], expected.packed[site], strict=True))
    assert base_model_name(folder) == "facebook/m2m100_418M"


def test_everything_that_peft_writes_by_default_is_taken(tmp_path) -> None:
    peft = hugging_face("peft")
    folder = write(tmp_path, lora())
    peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="SEQ_2_SEQ_LM").save_pretrained(folder)
    assert {*read(folder).packed} >= {*NAMES}


@pytest.mark.parametrize("init", [True, False, "gaussian", "orthogonal", "eva", "mica"])
def test_ways_to_start_that_leave_the_base_alone_are_taken(tmp_path, init) -> None:
    assert read(write(tmp_path, lora(), init_lora_weights=init)).packed


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga", None, []])
def test_ways_to_start_that_change_the_base_are_refused(tmp_path, init) -> None:
    with pytest.raises(UserError) as refused:
        read(write(tmp_path, lora(), init_lora_weights=init))
    assert f"init_lora_weights={init!r}, which also changes the base model" in str(refused.value)


@pytest.mark.parametrize("value", [None, False, 0, 0.0, "none", [], {}])
def test_settings_of_a_later_peft_are_taken_where_they_say_nothing(tmp_path, value) -> None:
    assert read(write(tmp_path, lora(), invented=value)).packed


@pytest.mark.parametrize("value", [True, 1, -1, 0.5, "", "all", [0], {"a": 0}, "x" * 99])
def test_settings_of_a_later_peft_are_refused_where_they_may_say_something(tmp_path, value) -> None:
    with pytest.raises(UserError) as refused:
        read(write(tmp_path, lora(), invented=value))
    source = tmp_path / "adapter_config.json"
    assert str(refused.value).startswith(f"{source} has invented={str(value)[:60]}, which adapters cannot express; ")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"peft_type": "IA3"}, "describes a 'IA3' adapter; expected a LORA"),
        ({"peft_type": "left out"}, "describes a None adapter; expected a LORA"),
        ({"bias": "all"}, "has bias='all'; adapters have no biases"),
        ({"bias": None}, "has bias=None; adapters have no biases"),
    ],
    ids=str,
)
def test_other_adapters_are_named(tmp_path, settings, expected) -> None:
    with pytest.raises(UserError) as refused:
        read(write(tmp_path, lora(), **settings))
    assert str(refused.value).startswith(f"{tmp_path / 'adapter_config.json'} {expected}")


PREFIX = "base_model.model.model.encoder.layers.1.fc1"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda tensors: tensors.clear(), "holds no LoRA weights; download it again"),
        (lambda tensors: tensors.pop(f"{PREFIX}.lora_A.weight"), "has only lora_B for encoder.layers.1.fc1;"),
        (lambda tensors: tensors.pop(f"{PREFIX}.lora_B.weight"), "has only lora_A for encoder.layers.1.fc1;"),
        (
            lambda tensors: tensors.update({f"{PREFIX}.lora_magnitude_vector{'r' * 120}": torch.ones(1)}),
            f"holds {f'{PREFIX}.lora_magnitude_vector'.ljust(120, 'r')}, which is not part of a plain LoRA",
        ),
        *(
            (
                lambda tensors, name=name: tensors.update({f"base_model.model.{name}.lora_A.weight": torch.ones(1, 1)}),
                f"adapts {name[:120]}, which adapters cannot; expected only q_proj, k_proj, v_proj, fc1, fc2 of",
            )
            for name in (
                "lm_head",
                "model.encoder.layers.1.self_attn.out_proj",
                "model.encoder.layers.1.encoder_attn.q_proj",  # encoders have none
                f"model.encoder.{'x' * 130}",
            )
        ),
        (
            lambda tensors: tensors.update(
                {name.replace("layers.1", "layers.12"): value for name, value in list(tensors.items())}
            ),
            "adapts encoder.layers.12.fc1, which the base model does not have; it belongs to another model",
        ),
        *(
            (
                lambda tensors, a=a, b=b: tensors.update(
                    {f"{PREFIX}.lora_A.weight": torch.ones(a), f"{PREFIX}.lora_B.weight": torch.ones(b)}
                ),
                f"has B {b} and A {a} at encoder.layers.1.fc1, whose weight is (7, 4) in the base model",
            )
            for a, b in (
                ((2, 4), (4, 2)),
                ((2, 7), (7, 2)),
                ((2, 5), (7, 2)),
                ((2, 4), (7, 3)),
                ((3, 4), (7, 2)),
                ((2, 4), (2, 7)),
                ((4,), (7, 4)),
                ((2, 4, 1), (7, 2)),
                ((2, 4), (7,)),
            )
        ),
    ],
)
def test_tensors_that_are_no_adapters_of_the_base_model_are_named(tmp_path, change, expected) -> None:
    tensors = lora(FC1)
    change(tensors)
    with pytest.raises(UserError) as refused:
        read(write(tmp_path, tensors))
    assert str(refused.value).startswith(f"{tmp_path} {expected}")


def test_names_of_older_pefts_are_read(tmp_path) -> None:
    tensors = lora()
    old = {re.sub(r"(lora_[AB])", r"\1.default", name): value for name, value in tensors.items()}
    own = read(write(tmp_path, old))
    for site, language in ((Q, "en"), (FC1, "wo"), (CROSS_V, "wo")):
        torch.testing.assert_close(added(own, site, language), expected_of(tensors, site))


def test_an_unknown_level_is_asked_for(tmp_path) -> None:
    with pytest.raises(UserError, match=r"no resource level for xx.*--lang-resources"):
        import_lora(write(tmp_path, lora()), "en", "xx", SIZES, SIDES, PAPER_RESOURCES)


def test_a_base_that_has_no_name_is_none(tmp_path) -> None:
    for name, expected in (("left out", None), ("", None), (None, None), ("x/y", "x/y")):
        assert base_model_name(write(tmp_path, lora(), base_model_name_or_path=name)) == expected
