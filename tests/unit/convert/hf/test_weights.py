"""The table of names between fairseq's state and Hugging Face's: against the models that both sides build."""

from __future__ import annotations

import re
from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch
from fairseq.data import Dictionary
from fairseq.models.transformer import TransformerModel
from fairseq.models.transformer.transformer_legacy import base_architecture
from torch import Tensor

from langspec_lora.convert.hf.config_json import fairseq_args
from langspec_lora.convert.hf.weights import to_fairseq, to_huggingface, weight_shapes
from langspec_lora.errors import UserError
from tests.optional import hugging_face

ROWS = 11
CONFIG = {
    "model_type": "m2m_100",
    "d_model": 6,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_ffn_dim": 5,
    "decoder_ffn_dim": 7,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 2,
    "vocab_size": ROWS,
}
COPIES = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
EMBEDDINGS = (
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
    "decoder.output_projection.weight",
)


@pytest.fixture(scope="module")
def args() -> Namespace:
    args = fairseq_args(CONFIG, "config.json")
    base_architecture(args)
    return args


@pytest.fixture(scope="module")
def stock(args) -> dict[str, Tensor]:
    """What stock fairseq saves of such a model."""
    dictionary = Dictionary()
    for number in range(ROWS - len(dictionary)):
        dictionary.add_symbol(f"word{number}")
    torch.manual_seed(3)
    task = SimpleNamespace(source_dictionary=dictionary, target_dictionary=dictionary)
    state = TransformerModel.build_model(args, task).state_dict()
    # Copies that its encoder layers keep for torch's own fast path.
    return {name: value for name, value in state.items() if not re.search("(in|out)_proj_(weight|bias)|fc._", name)}


@pytest.fixture(scope="module")
def theirs() -> dict[str, Tensor]:
    """What transformers saves of such a model, the embedding once."""
    transformers = hugging_face("transformers")
    state = transformers.M2M100ForConditionalGeneration(transformers.M2M100Config(**CONFIG)).state_dict()
    return {name: value for name, value in state.items() if name not in COPIES and "embed_positions" not in name}


def test_the_table_holds_all_weights_of_a_stock_model_but_the_embedding(args, stock) -> None:
    weights = {name: tuple(value.shape) for name, value in stock.items() if "version" not in name}
    weights = {name: shape for name, shape in weights.items() if "embed_" not in name and name not in EMBEDDINGS}
    assert dict(weight_shapes(args)) == weights


def test_names_and_shapes_are_those_of_transformers(args, stock, theirs) -> None:
    ours = to_huggingface(stock, args, "it")
    assert {name: value.shape for name, value in ours.items()} == {name: v.shape for name, v in theirs.items()}


def test_an_imported_state_has_the_entries_that_stock_fairseq_saves(args, stock, theirs) -> None:
    state = to_fairseq(theirs, args, range(ROWS), "it")
    assert {name: (value.shape, value.dtype) for name, value in state.items()} == {
        name: (value.shape, value.dtype) for name, value in stock.items()
    }
    for stack in ("encoder", "decoder"):
        assert torch.equal(state[f"{stack}.version"], stock[f"{stack}.version"])
    for name, value in theirs.items():
        if name != "model.shared.weight":
            assert state[name.removeprefix("model.")] is value
    for name in EMBEDDINGS:
        assert torch.equal(state[name], theirs["model.shared.weight"])


def test_a_state_comes_back(args, stock) -> None:
    back = to_fairseq(to_huggingface(stock, args, "it"), args, range(ROWS), "it")
    assert back.keys() == stock.keys()
    assert all(torch.equal(back[name], value) for name, value in stock.items() if "_float_tensor" not in name)


def test_embeddings_are_put_in_the_order_of_the_dictionary(args, stock) -> None:
    order = [3, 1, 2, 0, *reversed(range(4, ROWS))]
    theirs = to_huggingface(stock, args, "it")
    state = to_fairseq(theirs, args, order, "it")
    for name in EMBEDDINGS:
        for row, number in enumerate(order):
            assert torch.equal(state[name][row], theirs["model.shared.weight"][number])


@pytest.mark.parametrize("name", COPIES)
def test_the_embedding_may_have_any_of_its_names(args, stock, name) -> None:
    """Which one it has depends on the version of transformers that saved it, early ones saved all."""
    tensors = to_huggingface(stock, args, "it")
    everything = {**tensors, **dict.fromkeys(COPIES, tensors["model.shared.weight"])}
    everything |= {f"model.{stack}.embed_positions.weights": torch.zeros(2, 6) for stack in ("encoder", "decoder")}
    renamed = {name if key == "model.shared.weight" else key: value for key, value in tensors.items()}
    for given in (everything, renamed):
        state = to_fairseq(given, args, range(ROWS), "it")
        assert all(torch.equal(state[key], stock[key]) for key in EMBEDDINGS)
    for other in (tensors["model.shared.weight"] + 1, tensors["model.shared.weight"][:4]):
        with pytest.raises(
            UserError, match=f"^it: {name} differs from model.shared.weight; .*expected shared embeddings"
        ):
            to_fairseq({**everything, name: other}, args, range(ROWS), "it")


def test_weights_that_are_missing_or_of_another_shape_are_named(args, stock) -> None:
    tensors = to_huggingface(stock, args, "it")
    for name in tensors:
        without = {key: value for key, value in tensors.items() if key != name}
        with pytest.raises(UserError, match=f"^({name} is missing from it|it has no {name}); "):
            to_fairseq(without, args, range(ROWS), "it")
        other = torch.zeros(tuple(size + 1 for size in tensors[name].shape))
        size, expected = re.escape(str(tuple(other.shape))), re.escape(str(tuple(tensors[name].shape)))
        with pytest.raises(UserError, match=rf"^it has {name} of shape {size}, but its settings say {expected}$"):
            to_fairseq({**tensors, name: other}, args, range(ROWS), "it")
    for name in set(stock) - set(EMBEDDINGS) - {key for key in stock if "version" in key or "_float" in key}:
        without = {key: value for key, value in stock.items() if key != name}
        with pytest.raises(UserError, match=f"^{name} is missing from it; "):
            to_huggingface(without, args, "it")


@pytest.mark.parametrize("name", ["model.encoder.layers.1.fc1.weight", "model.decoder.embed_positions.weights.x" * 9])
def test_weights_of_another_kind_of_model_are_named(args, stock, name) -> None:
    expected = f"it holds {name[:120]}, which M2M100 does not have; give an M2M100 or NLLB-200"
    with pytest.raises(UserError) as refused:
        to_fairseq({**to_huggingface(stock, args, "it"), name: torch.zeros(1)}, args, range(ROWS), "it")
    assert str(refused.value) == expected
    with pytest.raises(UserError) as refused:
        to_huggingface({**stock, name: torch.zeros(1)}, args, "it")
    assert str(refused.value) == expected


def test_quantised_weights_are_named(args, stock) -> None:
    tensors = to_huggingface(stock, args, "it")
    tensors["model.decoder.layers.1.fc2.weight"] = tensors["model.decoder.layers.1.fc2.weight"].to(torch.int8)
    with pytest.raises(UserError, match=r"^it holds model.decoder.layers.1.fc2.weight as integers; "):
        to_fairseq(tensors, args, range(ROWS), "it")


def test_only_a_shared_embedding_is_written_and_old_checkpoints_keep_one_copy_less(args, stock) -> None:
    expected = to_huggingface(stock, args, "it")
    without = {name: value for name, value in stock.items() if name != EMBEDDINGS[2]}
    assert to_huggingface(without, args, "it").keys() == expected.keys()
    for name, other in (
        (EMBEDDINGS[1], stock[EMBEDDINGS[0]] + 1),
        (EMBEDDINGS[2], stock[EMBEDDINGS[0]] + 1),
        (EMBEDDINGS[2], stock[EMBEDDINGS[0]][:4]),
    ):
        with pytest.raises(UserError, match=f"^it has no {name} that equals its encoder's .* --share-all-embeddings"):
            to_huggingface({**stock, name: other}, args, "it")
    with pytest.raises(UserError, match=f"^it has no {EMBEDDINGS[0]} that equals its encoder's embedding"):
        to_huggingface({name: value for name, value in stock.items() if name not in EMBEDDINGS}, args, "it")
