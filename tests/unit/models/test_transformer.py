"""The fairseq model around the adapters: what it takes, returns, counts, saves and loads."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
import torch
from fairseq.models.transformer import TransformerModel
from torch import nn

from langspec_lora.checkpoints.fingerprint import base_fingerprint
from langspec_lora.errors import UserError
from langspec_lora.lora import adapted_linears
from langspec_lora.models import layers
from langspec_lora.models.summary import parameter_summary
from tests import toy
from tests.bad_input import STOCK, refusal_of, write_checkpoint

PLAIN = ("--add-lora", "False")


@pytest.fixture(scope="module")
def built(toy_data) -> tuple:
    """Task, model with random adapters and batch; tests change only the mode and the languages of the batch."""
    task, model = toy.build(toy.plugin_flags(toy_data))
    toy.randomise_adapters(model)
    return task, model, toy.mixed_batch(task)


def texts(batch: dict) -> dict:
    return {name: batch["net_input"][name] for name in ("src_tokens", "src_lengths", "prev_output_tokens")}


def ids(batch: dict) -> dict:
    return {"src_lang_id": batch["net_input"]["src_lang_id"], "tgt_lang_id": batch["tgt_lang_id"]}


def encode(model: nn.Module, batch: dict, **more) -> dict:
    return model.encoder(batch["net_input"]["src_tokens"], batch["net_input"]["src_lengths"], **more)


def test_encoder_hands_the_languages_on_to_the_decoder(built) -> None:
    _, model, batch = built
    model.eval()
    expected = toy.forward(model, batch)
    model.adapters.routing.set(None)
    output = encode(model, batch, **ids(batch))
    assert [side.tolist() for side in output["languages"]] == [side.view(-1).tolist() for side in ids(batch).values()]
    assert output["encoder_states"] == []
    model.adapters.routing.set(None)
    logits = model.decoder(batch["net_input"]["prev_output_tokens"], encoder_out=output)[0]
    assert torch.equal(logits, expected)
    assert len(encode(model, batch, return_all_hiddens=True)["encoder_states"]) == 3  # the languages are still set


@pytest.mark.parametrize("missing", ["src_lang_id", "tgt_lang_id"])
def test_encoder_needs_the_languages_of_both_sides(built, missing) -> None:
    _, model, batch = built
    with pytest.raises(UserError, match=f"{missing} is missing"):
        encode(model, batch, **{**ids(batch), missing: None})


def test_a_model_without_adapters_knows_no_languages(toy_data, built) -> None:
    _, model = toy.build(toy.plugin_flags(toy_data, *PLAIN))
    batch = built[2]
    assert "languages" not in encode(model.eval(), batch, **ids(batch))
    expected = toy.forward(model, batch)
    assert model.adapters is None
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    assert toy.forward(model.train(), batch).shape == expected.shape


def test_encoder_without_adapters_needs_no_languages(toy_data, built) -> None:
    _, model = toy.build(toy.plugin_flags(toy_data, "--encoder-lora-layer", "none"))
    output = encode(model.eval(), built[2])
    assert "languages" not in output
    model.adapters.routing.set_batch(*ids(built[2]).values())
    tokens = built[2]["net_input"]["prev_output_tokens"]
    expected = model(**texts(built[2]), **ids(built[2]))[0]
    assert torch.equal(model.decoder(tokens, encoder_out=output)[0], expected)  # with the languages that are set


def test_one_language_holds_for_all_sentences_in_any_order(built) -> None:
    _, model, batch = built
    two = {name: value[:2] for name, value in texts(batch).items()}
    single = {"src_lang_id": torch.tensor([1]), "tgt_lang_id": torch.tensor([[3]])}
    output = model.encoder(two["src_tokens"], two["src_lengths"], **single)
    for order in ([1, 0], [0, 0, 1, 1], [1]):
        reordered = model.encoder.reorder_encoder_out(output, torch.tensor(order))
        assert [side.tolist() for side in reordered["languages"]] == [[1], [3]]


def test_beams_are_seen_on_any_device(built) -> None:
    _, model, batch = built
    output = encode(model, batch, **ids(batch))
    count = len(batch["id"])
    order = torch.arange(count).repeat_interleave(3)
    with torch.device("meta"):  # where new tensors are then made that are not told where
        repeated = model.encoder.reorder_encoder_out(output, order)
    assert repeated["beams"] == 3
    fewer = model.encoder.reorder_encoder_out(repeated, torch.arange(3, 3 * count))
    assert fewer["beams"] == 3


def test_features_are_causal_whoever_asks_for_them(built) -> None:
    _, model, batch = built
    output, tokens = encode(model.eval(), batch, **ids(batch)), batch["net_input"]["prev_output_tokens"]
    features, _ = model.decoder.extract_features(tokens, encoder_out=output)
    assert features.shape == (*tokens.shape, 16)
    expected = model(**texts(batch), **ids(batch), features_only=True)[0]
    assert torch.equal(features, expected)
    other = tokens.clone()
    other[:, -1] = 5
    changed, _ = model.decoder.extract_features(other, encoder_out=output)
    assert torch.equal(changed[:, :-1], features[:, :-1])


@pytest.mark.parametrize("training", [True, False])
def test_attention_weights_are_those_of_the_layer_that_is_asked_for(built, training) -> None:
    _, model, batch = built
    model.train(training)
    output, tokens = encode(model, batch, **ids(batch)), batch["net_input"]["prev_output_tokens"]

    def weights(**more):
        return model.decoder.extract_features(tokens, encoder_out=output, **more)[1]["attn"][0]

    assert (weights() is None) == training
    first, last = weights(alignment_layer=0), weights(alignment_layer=1)
    assert first.shape == last.shape == (*tokens.shape, batch["net_input"]["src_tokens"].size(1))
    assert not torch.equal(first, last)
    assert training or torch.equal(weights(), last)
    torch.testing.assert_close(first.sum(-1), torch.ones(tokens.shape))
    assert not torch.equal(weights(alignment_layer=0, alignment_heads=1), first)  # one head's alone


def test_whole_sentences_have_weights_where_steps_of_decoding_leave_them_out(toy_data, built) -> None:
    _, model = toy.build(toy.plugin_flags(toy_data))
    batch = built[2]
    model.eval().make_generation_fast_(need_attn=False)
    output, tokens = encode(model, batch, **ids(batch)), batch["net_input"]["prev_output_tokens"]
    assert model.decoder(tokens, encoder_out=output)[1]["attn"][0].size(2) == batch["net_input"]["src_tokens"].size(1)
    assert model.decoder(tokens[:, :1], encoder_out=output, incremental_state={})[1]["attn"] == [None]


def test_decoder_without_cross_attention_needs_no_encoder(toy_data, built) -> None:
    flags = toy.plugin_flags(toy_data, "--no-cross-attention", "--decoder-lora-position", "q")
    task, model = toy.build(flags)
    stock = TransformerModel.build_model(toy.parse(flags), task)
    own = {name: value for name, value in model.state_dict().items() if "lora_" not in name and "adapters" not in name}
    stock.load_state_dict(own)
    model.adapters.routing.set_batch(*ids(built[2]).values())
    tokens = built[2]["net_input"]["prev_output_tokens"]
    expected = stock.eval().decoder(tokens, encoder_out=None)[0]
    torch.testing.assert_close(model.eval().decoder(tokens, encoder_out=None)[0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("layers", [0, 1])
def test_few_decoder_layers_decode_step_by_step(toy_data, built, layers) -> None:
    flags = ("--decoder-layers", str(layers), "--decoder-lora-layer", "none")
    _, model = toy.build(toy.plugin_flags(toy_data, *flags))
    batch = built[2]
    expected = toy.forward(model.eval(), batch)
    output, tokens, state = encode(model, batch, **ids(batch)), batch["net_input"]["prev_output_tokens"], {}
    for step in range(1, tokens.size(1) + 1):
        logits = model.decoder(tokens[:, :step], encoder_out=output, incremental_state=state)[0]
        rows = tokens[:, step - 1] != 1  # padding
        torch.testing.assert_close(logits[rows, 0], expected[rows, step - 1], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("flag", "offloads"), [(None, None), ("--checkpoint-activations", False), ("--offload-activations", True)]
)
def test_every_layer_is_run_again_where_activations_are_not_kept(toy_data, built, monkeypatch, flag, offloads) -> None:
    stock, asked = layers.checkpoint_wrapper, []

    def wrapper(layer: nn.Module, offload_to_cpu: bool = False) -> nn.Module:
        asked.append(offload_to_cpu)
        return stock(layer, offload_to_cpu=offload_to_cpu)

    monkeypatch.setattr(layers, "checkpoint_wrapper", wrapper)
    args = toy.parse(toy.plugin_flags(toy_data, *([flag] if flag else [])))
    if flag is None:  # as in a checkpoint from before there were such flags
        for name in ("checkpoint_activations", "offload_activations", "save_adapters_only", "base_checkpoint"):
            vars(args).pop(name, None)
    model = type(built[1]).build_model(args, built[0])
    runs: dict[str, int] = {}

    def count(name: str) -> None:
        runs[name] = runs.get(name, 0) + 1

    for stack in ("encoder", "decoder"):
        for index, layer in enumerate(getattr(model, stack).layers):
            layer.fc1.register_forward_hook(lambda *_, name=f"{stack} {index}": count(name))
    toy.forward(model.train(), built[2]).square().mean().backward()
    names = ("encoder 0", "encoder 1", "decoder 0", "decoder 1")
    assert runs == dict.fromkeys(names, 1 if flag is None else 2)
    assert asked == ([] if flag is None else [offloads] * 4)
    assert (args.checkpoint_activations, args.offload_activations) == (flag is not None, bool(offloads))


def test_only_the_adapters_train(built, toy_data) -> None:
    _, model, _ = built
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if name.endswith((".lora_A", ".lora_B"))}
    assert len(trained) == 2 * (2 * 5 + 2 * 8)
    assert {id(linear) for linear in adapted_linears(model)} == {
        id(linear) for linear in model.adapters.linears.values()
    }
    _, whole = toy.build(toy.plugin_flags(toy_data, "--freeze-original-parameters", "False"))
    assert all(parameter.requires_grad for parameter in whole.parameters())


def test_a_model_whose_adapters_are_removed_is_its_base(toy_data, built) -> None:
    _, model = toy.build(toy.plugin_flags(toy_data))
    batch = built[2]
    expected = toy.forward(model.eval(), batch)
    toy.randomise_adapters(model)
    assert not torch.allclose(toy.forward(model, batch), expected)
    model.remove_adapters()
    assert torch.equal(toy.forward(model, batch), expected)
    assert not any(name.endswith("lora_A") for name in model.state_dict())


def test_parameters_are_counted_by_language(toy_data, built) -> None:
    """Width 16, ffn 24: a rank has 32 parameters in each projection of attention, 40 in fc1 and in fc2."""
    per_rank = 2 * (3 * 32 + 2 * 40) + 2 * (6 * 32 + 2 * 40)
    assert per_rank == 896
    task, model, _ = built
    stock = TransformerModel.build_model(toy.parse(toy.plugin_flags(toy_data)), task)
    copies = re.compile(r"encoder\.layers\.\d+\.(in_proj|out_proj|fc1|fc2)_(weight|bias)")  # of fairseq 0.12.2
    base = sum(own.numel() for name, own in stock.named_parameters() if not copies.fullmatch(name))
    head = f"parameters | base {base:,} | adapters 13,440 | trainable "
    tail = " | per language: en 1,792, fr 1,792, nl 2,688, wo 3,584, sd 3,584"
    assert parameter_summary(model) == f"{head}13,440{tail}"
    assert parameter_summary(model, {"src": [2, 3], "tgt": [2, 3]}) == f"{head}6,272{tail}"
    _, plain = toy.build(toy.plugin_flags(toy_data, *PLAIN))
    assert parameter_summary(plain) == f"parameters | base {base:,} | adapters 0 | trainable {base:,}"


def test_what_a_checkpoint_stores_about_its_adapters_besides_their_weights(built) -> None:
    state = built[1].state_dict()
    own = {name: value for name, value in state.items() if name.startswith("adapters.")}
    assert set(own) == {"adapters.manifest", "adapters.mask_epoch"}
    assert {value.dtype for value in own.values()} == {torch.int64}
    assert own["adapters.mask_epoch"].tolist() == [0]
    assert b'"wo"' in bytes(own["adapters.manifest"].tolist())


def test_a_model_saved_with_fairseq_s_copies_of_its_weights_loads(toy_data, built) -> None:
    """As fairseq 0.12.2 saves encoders."""
    stock = TransformerModel.build_model(toy.parse(toy.plugin_flags(toy_data)), built[0])
    state = {name: value.clone() for name, value in stock.state_dict().items()}
    for layer in range(2):
        for name in ("in_proj", "out_proj", "fc1", "fc2"):
            for kind in ("weight", "bias"):
                state[f"encoder.layers.{layer}.{name}_{kind}"] = torch.full((3,), 7.0)
    _, own = toy.build(toy.plugin_flags(toy_data))
    own.load_state_dict(state)
    loaded = own.state_dict()
    assert not any(name.endswith(("in_proj_weight", "fc1_bias")) for name in loaded)
    name = "encoder.layers.1.fc1.weight"
    assert torch.equal(loaded[name], stock.state_dict()[name])


def test_a_model_of_an_older_fairseq_loads(toy_data, built) -> None:
    """Whose attention held q, k and v in one matrix."""
    expected = {name: value.clone() for name, value in built[1].state_dict().items()}
    state, prefix = dict(expected), "decoder.layers.1.self_attn."
    for kind in ("weight", "bias"):
        state[f"{prefix}in_proj_{kind}"] = torch.cat([state.pop(f"{prefix}{name}_proj.{kind}") for name in "qkv"])
    _, own = toy.build(toy.plugin_flags(toy_data))
    own.load_state_dict(state)
    for name in (f"{prefix}{name}_proj.{kind}" for name in "qkv" for kind in ("weight", "bias")):
        assert torch.equal(own.state_dict()[name], expected[name])
    assert own.eval().train().training


def test_a_state_of_another_model_is_named_by_its_first_difference(toy_data, built) -> None:
    post_norm = toy.build(toy.plugin_flags(toy_data, "--arch", "langspec_transformer_lora"))[1].state_dict()
    message = refusal_of(built[1].load_state_dict, post_norm)
    start = 'the checkpoint does not fit the model: Missing key(s) in state_dict: "encoder.layer_norm.weight", '
    assert start in message
    assert message.endswith("; give the --arch and flags of its model")
    many = {name: value for name, value in built[1].state_dict().items() if "layers.1." not in name or "lora" in name}
    excerpt = refusal_of(built[1].load_state_dict, many).partition("model: ")[2].partition("; give")[0]
    assert excerpt.startswith('Missing key(s) in state_dict: "encoder.layers.1.')
    assert len(excerpt) == 200
    assert len(built[1].load_state_dict(many, strict=False).missing_keys) > 10


@pytest.fixture
def lean(toy_data, tmp_path) -> tuple[nn.Module, Path, dict]:
    """A model that is saved without its base, which it has loaded; the base's file, and its state."""
    base = write_checkpoint(tmp_path / "base.pt", toy.base_flags(toy_data, *STOCK))
    start = ("--finetune-from-model", str(base), "--save-dir", str(tmp_path / "out"))
    _, model = toy.build(toy.plugin_flags(toy_data, *start))
    assert "encoder.layers.0.fc1.weight" in model.state_dict()  # before it has loaded any, it knows none
    state = torch.load(base, weights_only=False)["model"]
    model.load_state_dict(dict(state))
    toy.randomise_adapters(model)
    return model, base, state


def test_a_model_without_its_base_is_whole_again_where_the_base_lies(lean, toy_data, tmp_path, built) -> None:
    model, base, _ = lean
    saved = model.state_dict()
    assert all("lora_" in name or name.startswith("adapters.") for name in saved)
    expected = toy.forward(model.eval(), built[2])
    start = ("--finetune-from-model", str(base), "--save-dir", str(tmp_path / "out"))
    _, again = toy.build(toy.plugin_flags(toy_data, *start))
    again.load_state_dict(dict(saved))
    assert torch.equal(toy.forward(again.eval(), built[2]), expected)
    assert again.state_dict().keys() == saved.keys()
    for name, value in again.state_dict().items():
        assert torch.equal(value, saved[name])
    assert list(model.state_dict(prefix="model.")) != list(saved)


def test_a_base_that_has_changed_is_saved_from_then_on(lean, caplog) -> None:
    model, base, state = lean
    content = base.read_bytes()
    base.write_bytes(content + b" ")
    with caplog.at_level(logging.WARNING):
        whole = model.state_dict()
    assert f"{base} has changed; from now on, checkpoints include the base" in caplog.text
    assert torch.equal(whole["decoder.layers.1.fc2.weight"], state["decoder.layers.1.fc2.weight"])
    base.write_bytes(content)
    caplog.clear()
    assert "decoder.layers.1.fc2.weight" in model.state_dict()
    assert not caplog.text


def test_base_that_a_state_stands_on_is_that_of_the_last_one_loaded(toy_data, tmp_path) -> None:
    path = write_checkpoint(tmp_path / "base.pt", toy.base_flags(toy_data, *STOCK))
    start = ("--finetune-from-model", str(path), "--save-dir", str(tmp_path / "save"))
    _, model = toy.build(toy.plugin_flags(toy_data, *start))
    states = [torch.load(path, weights_only=False)["model"] for _ in range(2)]
    states[1]["decoder.layer_norm.bias"] += 1
    held = []
    for state in states:
        model.load_state_dict(dict(state))
        held.append(bytes(model.state_dict()["adapters.base"].tolist()).decode())
    assert held == [base_fingerprint(state) for state in states]
    assert held[0] != held[1]
