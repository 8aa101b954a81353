"""Arguments and checkpoints that are put together from a base model and adapters."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace

import pytest
import torch
from fairseq import checkpoint_utils

from langspec_lora.adapters.entries import language_manifest
from langspec_lora.adapters.packed import adapter_entries
from langspec_lora.checkpoints.arguments import architecture, model_settings
from langspec_lora.checkpoints.assembly import (
    adapted_arguments,
    adapted_checkpoint,
    checkpoint_of,
    stock_arguments,
    untrained_arguments,
)
from langspec_lora.errors import UserError
from langspec_lora.languages import languages_from_json
from tests import toy
from tests.unit.adapters.test_adapter_folder import LANGUAGES, make

RUN = {"save_adapters_only": True, "user_dir": "u", "finetune_from_model": "b.pt", "train_languages": "wo"}


def test_settings_of_a_model_are_those_of_its_training() -> None:
    said = {"encoder_langtok": "src", "decoder_langtok": True, "lora_init": "zero"}
    assert model_settings(Namespace(arch="a", **said, dropout=0.1)) == {"arch": "a", **said}
    assert model_settings(Namespace()) == {"arch": ""}
    assert architecture(Namespace(_name="registered", arch="a")) == "registered"


def test_arguments_of_an_adapted_model_are_its_bases_and_its_adapters(toy_data) -> None:
    base = toy.parse(toy.base_flags(toy_data, "--task", "translation_multi_simple_epoch", "--arch", "transformer"))
    vars(base).update(langs=["wo", "en"], **RUN, lang_resources="levels.yaml", encoder_langtok=None)
    args = adapted_arguments(
        base, make(0).adapters, {"arch": "ours", "encoder_langtok": "src", "decoder_langtok": True}
    )
    assert all(getattr(args, name) is None for name in (*RUN, "lang_resources"))
    assert (args.arch, args._name, args.encoder_langtok, args.decoder_langtok) == ("ours", "ours", "src", True)
    assert args.langs == ["wo", "en", "ଓଡ଼ିଆ"]
    assert (args.high_rank, args.med_rank, args.low_rank) == (2, 1, 4)
    assert (args.encoder_lora_layer, args.encoder_lora_position, args.encoder_activation_direction) == (
        "0",
        "q",
        "src_tgt",
    )
    assert (args.decoder_lora_layer, args.decoder_lora_position, args.decoder_activation_direction) == (
        "1",
        "fc1",
        "tgt_tgt",
    )
    assert args.dropout == base.dropout
    assert vars(base)["finetune_from_model"] == "b.pt"


def test_arguments_of_a_stock_model_hold_nothing_of_ours(toy_data) -> None:
    args = toy.parse(toy.plugin_flags(toy_data))
    vars(args).update(RUN, dictionary_langs=["wo", "en"])
    stock = stock_arguments(args)
    plain = toy.parse(toy.base_flags(toy_data, "--task", "translation_multi_simple_epoch", "--arch", "transformer"))
    assert not vars(stock).keys() - vars(plain).keys() - {*RUN, "_name"}
    assert all(getattr(stock, name, None) is None for name in RUN)
    assert (stock.arch, stock.task, stock.langs) == ("transformer", "translation_multi_simple_epoch", ["wo", "en"])


def test_fairseq_reads_a_checkpoint_that_was_put_together(toy_data, tmp_path) -> None:
    args = toy.parse(toy.base_flags(toy_data, "--task", "translation_multi_simple_epoch", "--arch", "transformer"))
    torch.save(checkpoint_of(args, {"x": torch.ones(2)}), tmp_path / "checkpoint.pt")
    state = checkpoint_utils.load_checkpoint_to_cpu(str(tmp_path / "checkpoint.pt"))
    assert state["extra_state"]["train_iterator"] == {"epoch": 1, "iterations_in_epoch": 0}
    assert state["optimizer_history"][-1].keys() == {
        "criterion_name", "optimizer_name", "lr_scheduler_state", "num_updates",
    }  # fmt: skip


def test_architecture_is_the_registered_name_before_the_flag_s() -> None:
    for args, name in (({"_name": "", "arch": "a"}, "a"), ({"_name": None, "arch": None}, ""), ({"arch": "a"}, "a")):
        assert architecture(Namespace(**args)) == name


def test_adapters_become_entries_under_fairseq_s_names() -> None:
    adapters = make(0.5).adapters
    state = adapter_entries(adapters)
    names = {"encoder.layers.0.self_attn.q_proj": ("encoder", 0, "q"), "decoder.layers.1.fc1": ("decoder", 1, "fc1")}
    matrices = {
        f"{name}.lora_{part}": value
        for name, site in names.items()
        for part, value in zip(
            ("A", "B", "mask"), next(adapters.packed[own] for own in adapters.packed if own == site), strict=True
        )
    }
    expected = {"adapters.manifest": language_manifest(LANGUAGES), "adapters.mask_epoch": torch.tensor([7]), **matrices}
    assert state.keys() == expected.keys()
    assert all(state[name].dtype == value.dtype and torch.equal(state[name], value) for name, value in expected.items())


def sized(**changes: object) -> Namespace:
    """Arguments of a base that :func:`make`'s adapters fit."""
    sizes = {f"{stack}_{name}": size for stack, name, size in (
        ("encoder", "layers", 2), ("encoder", "embed_dim", 10), ("encoder", "ffn_embed_dim", 5),
        ("decoder", "layers", 2), ("decoder", "embed_dim", 10), ("decoder", "ffn_embed_dim", 23),
    )}  # fmt: skip
    return Namespace(**{**sizes, "langs": "en,fr", **changes})


def test_adapted_checkpoint_is_the_base_and_the_adapters() -> None:
    adapters = make(0.5).adapters
    base = {"x": torch.ones(2), "adapters.mask_epoch": torch.tensor([99])}
    state = adapted_checkpoint(base, sized(), adapters, {})
    assert state["args"] == adapted_arguments(sized(), adapters, {})
    assert state["model"].keys() == {"x", *adapter_entries(adapters)}
    assert int(state["model"]["adapters.mask_epoch"]) == 7
    assert state["model"]["x"] is base["x"]


def test_base_that_the_adapters_do_not_fit_is_named() -> None:
    adapters = make(0.5).adapters
    with pytest.raises(
        UserError, match=r"^the adapter has encoder\.layers\.0\.self_attn\.q_proj\.lora_A of shape \(7, 10\)"
    ):
        adapted_checkpoint({}, sized(encoder_embed_dim=12), adapters, {})
    with pytest.raises(UserError, match=r"^the base model is not a Transformer that can be adapted \(.*encoder_layers"):
        adapted_checkpoint({}, Namespace(), adapters, {})


def test_arguments_of_an_adapted_model_leave_nothing_of_its_base_s_training() -> None:
    adapters = replace(make(0).adapters, dim=6, start=2)
    base = sized(
        langs=None, add_lora=False, freeze_original_parameters=False, language_num=2, lora_init="standard", dim=3
    )
    args = adapted_arguments(base, adapters, {})
    assert (args.arch, args._name) == ("langspec_transformer_lora", "langspec_transformer_lora")
    assert args.task == "translation_multi_simple_epoch_lora"
    assert (args.add_lora, args.freeze_original_parameters, args.language_num) == (True, True, None)
    assert (args.dim, args.start_idx, args.lora_init) == (6, 2, "standard")
    assert args.langs == list(LANGUAGES.names)
    assert languages_from_json(args.adapter_languages) == LANGUAGES
    assert (args.pruning, args.base_checkpoint, args.absent_languages) == (False, None, "rest")
    assert adapted_arguments(base, adapters, {"lora_init": "rank", "arch": ""}).lora_init == "rank"


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_stack_without_adapters_says_so(stack) -> None:
    adapters = make(0).adapters
    args = adapted_arguments(
        sized(),
        replace(adapters, packed={site: own for site, own in adapters.packed.items() if site.stack != stack}),
        {},
    )
    assert getattr(args, f"{stack}_lora_layer") == "none"
    assert getattr(args, f"{stack}_lora_position") is None


def test_adapters_stand_at_the_same_positions_of_every_layer_of_a_stack() -> None:
    adapters = make(0).adapters
    matrices = next(iter(adapters.packed.values()))
    site = type(next(iter(adapters.packed)))

    def arguments(*sites: tuple) -> Namespace:
        return adapted_arguments(sized(), replace(adapters, packed={site(*own): matrices for own in sites}), {})

    args = arguments(*(("encoder", layer, name) for layer in (1, 0) for name in ("fc2", "k")), ("decoder", 1, "crossv"))
    assert (args.encoder_lora_layer, args.encoder_lora_position) == ("0_1", "k_fc2")
    assert (args.decoder_lora_layer, args.decoder_lora_position) == ("1", "crossv")
    for sites in (
        (("encoder", 0, "q"), ("encoder", 1, "k")),
        (("encoder", 0, "q"), ("encoder", 0, "k"), ("encoder", 1, "k")),
    ):
        with pytest.raises(
            UserError, match=r"^the encoder's adapters have different positions in different layers; expected the"
        ):
            arguments(*sites)


def test_pruning_of_a_base_s_own_training_is_forgotten() -> None:
    trained = sized(pruning=True, pruning_t1=50, pruning_t2=3, target_pruning_ratio=0.5, pruning_scope="layer", dim=4)
    trained.global_pruning = trained.cross_language = True
    args = untrained_arguments(trained)
    unpruned = {"pruning": False, "pruning_t1": 2, "pruning_t2": 10, "target_pruning_ratio": 0.9, "pruning_scope": None}
    unpruned |= {"pruning_criterion": "magnitude", "pruning_target": "b", "pruning_unit": "entry"}
    unpruned |= {"global_pruning": False, "cross_language": False}
    assert vars(args) == {**vars(sized()), "dim": 4, **unpruned}
    assert trained.pruning is True


def test_stock_model_keeps_its_langs_where_its_dictionary_has_no_order_of_its_own() -> None:
    args = sized(dim=3, adapter_languages="{}", lang_resources="levels.yaml", absent_languages="rest", user_dir="u")
    stock = stock_arguments(args, "other")
    assert vars(stock) == {
        **vars(sized()), "user_dir": None, "arch": "other", "_name": "other", "task": "translation_multi_simple_epoch",
    }  # fmt: skip
    ordered = stock_arguments(sized(dictionary_langs=["fr", "en"]))
    assert (ordered.langs, hasattr(ordered, "dictionary_langs")) == (["fr", "en"], False)
    assert stock_arguments(sized(dictionary_langs=None)).langs == "en,fr"


def test_checkpoint_holds_what_fairseq_saves_before_the_first_update() -> None:
    args, model = Namespace(a=1), {"x": torch.ones(2)}
    assert checkpoint_of(args, model) == {
        "args": args,
        "cfg": None,
        "model": model,
        "optimizer_history": [
            {"criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {}, "num_updates": 0},
        ],
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}},
        "last_optimizer_state": None,
    }
