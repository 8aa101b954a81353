"""Loading base checkpoints and adapters into a model: what is filled in, found by name, or refused."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch

from langspec_lora.adapters.checks import check_entries, check_languages, check_shapes
from langspec_lora.adapters.entries import adapter_shapes, base_of, is_adapter_entry, language_manifest, read_manifest
from langspec_lora.checkpoints.stored_model import checked_adapters
from langspec_lora.config import AdapterConfig, StackConfig
from langspec_lora.errors import UserError
from langspec_lora.languages import LanguageTable, languages_to_json
from langspec_lora.models.layers import FAST_PATH_COPIES
from langspec_lora.models.loaded_state import complete_state
from tests import toy


def is_pair(name: str) -> bool:
    return "lora_" in name


def state_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("copies", [True, False], ids=["0.12.2", "main"])
def test_base_checkpoint_loads_strictly_under_its_own_names_and_leaves_the_adapters_fresh(toy_data, copies) -> None:
    _, stock = toy.build(
        toy.base_flags(
            toy_data, "--task", "translation_multi_simple_epoch", "--arch", "transformer", "--encoder-normalize-before",
            "--decoder-normalize-before",
        )
    )  # fmt: skip
    with torch.no_grad():
        for parameter in stock.parameters():
            parameter.normal_()
    base = state_of(stock)
    held = [name for name in base if name.split(".")[-1] in FAST_PATH_COPIES and "self_attn" not in name]
    if copies and not held:
        pytest.skip("this fairseq's encoder layer keeps no copies")
    if not copies:
        base = {name: value for name, value in base.items() if name not in held}
    _, model = toy.build(toy.plugin_flags(toy_data))
    fresh = state_of(model)
    model.load_state_dict(dict(base), strict=True)
    loaded = state_of(model)
    for name, value in loaded.items():
        if name.endswith("._float_tensor"):
            continue  # one element of uninitialised memory that fairseq saves with each sinusoidal embedding
        source = fresh if is_pair(name) or name.startswith("adapters.") else base
        assert torch.equal(value, source[name]), name
    assert not any(name in loaded for name in held)


def test_adapters_are_found_by_name_in_another_order_and_subset_of_languages(toy_data) -> None:
    _, model = toy.build(toy.plugin_flags(toy_data))
    toy.randomise_adapters(model)
    names = ["sd", "en", "nl"]
    pairs = "sd-en,en-sd,nl-en"
    _, other = toy.build([*toy.plugin_flags(toy_data), "--langs", ",".join(names), "--lang-pairs", pairs])
    other.load_state_dict(state_of(model), strict=True)
    rows = {"en": (0, 2), "fr": (2, 4), "nl": (4, 7), "wo": (7, 11), "sd": (11, 15)}  # ranks 2, 2, 3, 4, 4
    for site, linear in other.adapters.linears.items():
        for packed in ("lora_A", "lora_B"):
            original = getattr(model.adapters.linears[site], packed)
            expected = torch.cat([original[slice(*rows[name])] for name in names])
            assert torch.equal(getattr(linear, packed), expected)


@pytest.mark.parametrize("entry", ["lora_A", "lora_B", "lora_mask", "adapters.manifest"])
def test_checkpoint_with_part_of_the_adapters_is_refused(toy_data, entry) -> None:
    _, model = toy.build(toy.plugin_flags(toy_data))
    state = state_of(model)
    del state[next(name for name in state if name.endswith(entry))]
    with pytest.raises(SystemExit, match="holds only part of the adapters: 1 of"):
        model.load_state_dict(state, strict=True)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--low-rank", "5"], "rank 4 for wo, but rank 5 was given"),
        (["--dim", "8"], "give the same ranks, --dim and languages"),
        (["--encoder-lora-layer", "0"], "holds adapters that the model does not have"),
        (["--langs", "en,fr,nl,wo,ko", "--lang-pairs", "en-fr"], "has no adapters for ko"),
        (["--add-lora", "False"], "holds adapters, but --add-lora False was given"),
    ],
)
def test_other_adapters_than_the_model_s_are_refused(toy_data, tmp_path, flags, message) -> None:
    _, model = toy.build(toy.plugin_flags(toy_data))
    levels = tmp_path / "levels.yaml"
    levels.write_text(toy.LEVELS.replace("[wo, sd]", "[wo, sd, ko]"), encoding="utf-8")
    _, other = toy.build([*toy.plugin_flags(toy_data), "--lang-resources", str(levels), *flags])
    with pytest.raises(SystemExit, match=message):
        other.load_state_dict(state_of(model), strict=True)


@pytest.mark.parametrize(
    "flags",
    [(), ("--dim", "6"), ("--encoder-lora-layer", "1", "--decoder-lora-position", "crossk_fc1_q")],
    ids=["whole", "slice", "part"],
)
def test_shapes_known_before_building_are_those_of_the_built_model(toy_data, flags) -> None:
    flags = toy.plugin_flags(toy_data, *flags)
    _, model = toy.build(flags)
    built = {
        name: tuple(value.shape)
        for name, value in model.state_dict().items()
        if is_pair(name) or name.startswith("adapters.")
    }
    args = toy.parse(flags)
    config = AdapterConfig.from_args(args)
    assert adapter_shapes(args, config) == built
    del args.encoder_ffn_embed_dim
    with pytest.raises(UserError, match="arguments lack encoder_ffn_embed_dim"):
        adapter_shapes(args, config)


def test_manifest_survives_half_precision_and_averaging(toy_data) -> None:
    _, model = toy.build(toy.plugin_flags(toy_data))
    before = model.adapters.manifest.clone()
    model.half()
    assert torch.equal(model.adapters.manifest, before)
    averaged = sum(before.clone() for _ in range(15)) // 15  # as fairseq's average_checkpoints does for whole numbers
    assert torch.equal(averaged, before)


def test_published_flags_give_the_published_parameter_count(tmp_path) -> None:
    names = "en,fr,it,de,nl,zh,ja,ko,oc,or,sd,wo"
    published = [
        *(str(tmp_path), "--task", "translation_multi_simple_epoch_lora", "--arch", "langspec_m2m100_lora_base"),
        *("--langs", names, "--lang-pairs", "en-fr", "--language-num", "12", "--max-tokens", "10"),
        *("--encoder-lora-layer", "0_1_2_3_4_5_6_7_8_9_10_11", "--encoder-lora-position", "q_k_v_fc1_fc2"),
        *("--decoder-lora-layer", "0_1_2_3_4_5_6_7_8_9_10_11"),
        *("--decoder-lora-position", "q_k_v_crossq_crossk_crossv_fc1_fc2"),
        *("--encoder-activation-direction", "src_src_src_src_src_src_src_src_src_tgt_tgt_tgt"),
        *("--decoder-activation-direction", "_".join(["tgt"] * 12), "--dim", "1024"),
    ]
    counts = {}
    for ranks in ((2, 2, 8), (4, 4, 4), (8, 8, 8), (16, 16, 16), (64, 64, 64)):
        flags = [
            f for level, rank in zip(("high", "med", "low"), ranks, strict=True) for f in (f"--{level}-rank", str(rank))
        ]
        args = toy.parse([*published, *flags])
        shapes = adapter_shapes(args, AdapterConfig.from_args(args))
        counts[ranks] = sum(
            rows * width
            for name, (rows, *rest) in shapes.items()
            if name[-6:] in ("lora_A", "lora_B")
            for width in rest
        )
    assert counts == {
        (2, 2, 8): 15_335_424,
        (4, 4, 4): 15_335_424,
        (8, 8, 8): 30_670_848,
        (16, 16, 16): 61_341_696,
        (64, 64, 64): 245_366_784,
    }


SITE = "decoder.layers.1.fc2"


def with_number(name: str, number: float):
    """Changes one number of an entry."""

    def change(state: dict[str, torch.Tensor]) -> None:
        state[name].view(-1)[-1] = number

    return change


def with_dtype(name: str, dtype: torch.dtype):
    def change(state: dict[str, torch.Tensor]) -> None:
        state[name] = state[name].to(dtype)

    return change


def averaged(state: dict[str, torch.Tensor]) -> None:
    """As fairseq's average_checkpoints.py means it with a checkpoint in which other entries are pruned."""
    rows = state[f"{SITE}.lora_mask"]
    one, other = rows.clone(), rows.clone()
    one[0], other[1] = 0, 0
    values = state[f"{SITE}.lora_B"]
    state[f"{SITE}.lora_mask"] = (one + other) // 2  # whole numbers are divided so
    state[f"{SITE}.lora_B"] = (values * one + values * other) / 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_number(f"{SITE}.lora_A", float("nan")), f"infinite numbers or NaN in {SITE}.lora_A"),
        (with_number(f"{SITE}.lora_B", float("-inf")), f"infinite numbers or NaN in {SITE}.lora_B"),
        (with_number("decoder.layer_norm.bias", float("nan")), "infinite numbers or NaN in decoder.layer_norm.bias"),
        (with_number(f"{SITE}.lora_mask", 2), f"numbers other than 0 and 1 in {SITE}.lora_mask"),
        (with_dtype(f"{SITE}.lora_B", torch.int64), f"int64 numbers in {SITE}.lora_B; expected float32 or"),
        (with_dtype(f"{SITE}.lora_A", torch.complex64), f"complex64 numbers in {SITE}.lora_A"),
        (with_dtype(f"{SITE}.lora_A", torch.float16), f".* but float16 in {SITE}.lora_A; expected one type"),
        (with_dtype(f"{SITE}.lora_mask", torch.float32), f"float32 numbers in {SITE}.lora_mask; expected uint8"),
        (with_dtype("adapters.manifest", torch.float32), "float32 numbers in adapters.manifest; expected int64"),
        (with_dtype("adapters.mask_epoch", torch.float64), "float64 numbers in adapters.mask_epoch"),
        (with_number("adapters.mask_epoch", -1), "no epoch in adapters.mask_epoch"),
        (averaged, f"entries in {SITE}.lora_B that its mask prunes"),
    ],
)
def test_numbers_that_no_training_leaves_are_refused(toy_data, change, words) -> None:
    """torch would copy them, and fairseq's search pass over NaN: the translations would be nonsense without a word."""
    _, model = toy.build(toy.plugin_flags(toy_data))
    toy.randomise_adapters(model)
    state = state_of(model)
    change(state)
    with pytest.raises(SystemExit, match=f"the checkpoint has {words}"):
        model.load_state_dict(state)


def test_numbers_that_training_leaves_are_taken(toy_data) -> None:
    """Pruned entries of either sign of zero, and memory that fairseq never wrote to."""
    _, model = toy.build(toy.plugin_flags(toy_data))
    toy.randomise_adapters(model)
    state = state_of(model)
    state[f"{SITE}.lora_mask"][0], state[f"{SITE}.lora_B"][0] = 0, -0.0
    state["encoder.embed_positions._float_tensor"] = torch.tensor([float("nan")])
    model.load_state_dict(state)


def test_wrong_numbers_are_refused_where_adapters_are_read_as_data(toy_data) -> None:
    flags = toy.plugin_flags(toy_data)
    _, model = toy.build(flags)
    args = toy.model_settings(toy.parse(flags))
    args.adapter_languages = languages_to_json(model.adapters.config.languages)
    state = state_of(model)
    checked_adapters(state, args, "checkpoint x.pt")
    averaged_in = state[f"{SITE}.lora_B"].normal_()
    averaged(state)
    assert averaged_in.any()
    with pytest.raises(UserError, match=r"checkpoint x\.pt has entries in .* download .* 'langspec-lora average'"):
        checked_adapters(state, args, "checkpoint x.pt")


OURS = (
    *("adapters.manifest", "adapters.mask_epoch", "adapters.base", "encoder.layers.0.fc1.lora_A"),
    *("encoder.layers.11.self_attn.q_proj.lora_B", "decoder.layers.0.encoder_attn.k_proj.lora_mask"),
)
THEIRS = (
    *("encoder.embed_tokens.weight", "encoder.layers.0.fc1.weight", "decoder.layers.1.fc2.bias", "adapters.other"),
    *("encoder.layers.0.fc1.lora_A.scale", "encoder.layers.0.fc1.lora_C", "lora_A", "decoder.layers.0.fc1_weight"),
    *("encoder.layers.0.self_attn.out_proj.weight", "encoder.layers.0.fc1_weight.scale", "x.encoder.layers.0.fc1_bias"),
)


def test_entries_of_adapters_and_copies_of_weights_are_told_from_the_base_by_name() -> None:
    assert {name.removesuffix("weight").removesuffix("bias") for name in FAST_PATH_COPIES} == {
        "in_proj_", "out_proj_", "fc1_", "fc2_",
    }  # fmt: skip
    copies = [f"encoder.layers.{layer}.{name}" for layer in (0, 11) for name in FAST_PATH_COPIES]
    state = {name: number for number, name in enumerate((*OURS, *copies, *THEIRS))}
    assert tuple(name for name in state if is_adapter_entry(name)) == OURS
    assert base_of(state) == {name: state[name] for name in THEIRS}


TABLE = LanguageTable(("en", "ଓଡ଼ିଆ", "wo"), ("high", "med", "low"), (2, 1, 3))


def test_manifest_is_a_json_text_in_utf8_and_comes_back() -> None:
    manifest = language_manifest(TABLE)
    assert manifest.dtype == torch.int64
    assert json.loads(bytes(manifest.tolist())) == {
        "names": list(TABLE.names), "levels": list(TABLE.levels), "ranks": list(TABLE.ranks),
        "sha256": hashlib.sha256(
            rb'[["en","\u0b13\u0b21\u0b3c\u0b3f\u0b06","wo"],["high","med","low"],[2,1,3]]'
        ).hexdigest(),
    }  # fmt: skip
    assert "ଓଡ଼ିଆ".encode() in bytes(manifest.tolist())
    assert read_manifest(manifest) == TABLE


@pytest.mark.parametrize("value", [[300], [-1], [0.5], [0xFF], [123], 3, 2**50, [*b'{"names": ["en"]}'], [*b"[1]"], []])
def test_damaged_manifest_is_named(value) -> None:
    with pytest.raises(UserError, match=r"adapters\.manifest is damaged \(.*; download the file again"):
        read_manifest(torch.tensor(value))


PAIR = {"x.lora_A": (2, 4), "x.lora_B": (2, 6), "x.lora_mask": (2, 6)}
WHOLE = {"adapters.manifest": (30,), "adapters.mask_epoch": (1,), **PAIR}


def test_checkpoint_holds_all_adapters_or_none() -> None:
    assert check_entries(WHOLE, WHOLE) is True
    assert check_entries({**WHOLE, "adapters.base": (70,)}, WHOLE) is True
    assert check_entries({}, WHOLE) is False
    assert check_entries({"adapters.manifest": (30,)}, WHOLE) is False  # no adapters
    assert check_entries({}, {}) is False


@pytest.mark.parametrize(
    ("found", "expected", "words"),
    [
        (WHOLE, {}, "here holds adapters, but --add-lora False was given; leave it out, or give a base checkpoint"),
        (PAIR, WHOLE, "here holds only part of the adapters: 2 of 5 entries are missing, adapters.manifest first;"),
        (
            {"x.lora_A": (2, 4)},
            PAIR,
            "here holds only part of the adapters: 2 of 3 entries are missing, x.lora_B first",
        ),
        (
            {**PAIR, "y.lora_B": (1, 1), "w.lora_A": (1, 1)},
            PAIR,
            "here holds adapters that the model does not have, w.lora_A",
        ),
    ],
)
def test_part_of_the_adapters_or_others_are_named(found, expected, words) -> None:
    with pytest.raises(UserError) as refusal:
        check_entries(found, expected, "here")
    assert str(refusal.value).startswith(words)


def test_first_adapter_of_another_size_is_named_and_other_entries_may_have_any() -> None:
    check_shapes({**WHOLE, "adapters.manifest": (31,), "z.lora_A": (1, 1)}, WHOLE)
    with pytest.raises(
        UserError, match=r"^here has x\.lora_A of shape \(3, 4\), but the model has \(2, 4\); give the same ranks"
    ):
        check_shapes({**WHOLE, "x.lora_mask": (1, 6), "x.lora_A": (3, 4)}, WHOLE, "here")


def test_languages_of_a_checkpoint_may_be_more_but_not_fewer_or_of_other_ranks() -> None:
    check_languages(TABLE, LanguageTable(("wo", "en"), ("med", "low"), (3, 2)))
    more = LanguageTable(("en", "fr", "de"), ("high",) * 3, (2, 2, 2))
    with pytest.raises(UserError, match=r"^here has no adapters for fr, de; it knows en, ଓଡ଼ିଆ, wo$"):
        check_languages(TABLE, more, "here")
    wider = LanguageTable(("en", "wo"), ("high", "low"), (2, 4))
    with pytest.raises(UserError, match=r"^here has adapters of rank 3 for wo, but rank 4 was given; use 3$"):
        check_languages(TABLE, wider, "here")


Q = "encoder.layers.0.self_attn.q_proj"


def config_of(table: LanguageTable) -> AdapterConfig:
    """The adapters of a model with one adapted linear, whose path is :data:`Q`."""
    stacks = {"encoder": StackConfig((0,), ("q",), ("src",)), "decoder": StackConfig((), (), ())}
    return AdapterConfig(table, stacks, 0, 0, "rank")


def adapter_state(rows: list[int], table: LanguageTable) -> dict[str, torch.Tensor]:
    """A state whose rows hold their numbers; that of the number 0 is pruned."""
    numbers = torch.tensor(rows, dtype=torch.float32)[:, None]
    parts = {f"{Q}.lora_A": numbers, f"{Q}.lora_B": 10 * numbers, f"{Q}.lora_mask": (numbers != 0).byte()}
    return {"adapters.manifest": language_manifest(table), "adapters.mask_epoch": torch.tensor([3]), **parts}


def test_rows_follow_their_languages_into_a_model_of_fewer_in_another_order() -> None:
    wanted = LanguageTable(("wo", "en"), ("low", "high"), (3, 2))
    base = torch.ones(6, 2)
    state = {**adapter_state([0, 1, 2, 3, 4, 5], TABLE), "x.weight": base}
    complete_state(state, adapter_state([0] * 5, wanted), config_of(wanted))
    expected = {**adapter_state([3, 4, 5, 0, 1], wanted), "x.weight": base}
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_rows_of_the_same_languages_stay_and_take_the_model_s_levels() -> None:
    wanted = LanguageTable(TABLE.names, ("low", "low", "low"), TABLE.ranks)
    state = adapter_state([0, 1, 2, 3, 4, 5], TABLE)
    complete_state(state, adapter_state([0] * 6, wanted), config_of(wanted))
    assert read_manifest(state["adapters.manifest"]) == wanted
    assert state[f"{Q}.lora_B"].flatten().tolist() == [0, 10, 20, 30, 40, 50]


def test_rows_of_another_width_are_refused_after_sorting() -> None:
    own = {**adapter_state([0] * 6, TABLE), f"{Q}.lora_A": torch.zeros(6, 2)}
    with pytest.raises(UserError, match=r"q_proj\.lora_A of shape \(6, 1\), but the model has \(6, 2\)"):
        complete_state(adapter_state([0, 1, 2, 3, 4, 5], TABLE), own, config_of(TABLE))


def test_base_gets_copies_of_the_model_s_own_adapters() -> None:
    own = {**adapter_state([7] * 6, TABLE), "x.weight": torch.zeros(3)}
    own[f"{Q}.lora_A"].requires_grad_()
    state = {"x.weight": torch.ones(3)}
    complete_state(state, own, config_of(TABLE))
    assert state.keys() == own.keys()
    assert (state["x.weight"] == 1).all()
    assert torch.equal(state[f"{Q}.lora_A"], own[f"{Q}.lora_A"])
    assert not state[f"{Q}.lora_A"].requires_grad
    assert state[f"{Q}.lora_A"].data_ptr() != own[f"{Q}.lora_A"].data_ptr()
