"""Stored arguments that describe no Transformer: every size, share and word at its bounds."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest
from fairseq.utils import get_available_activation_fns

from langspec_lora.checkpoints.argument_checks import check_model_arguments, check_model_sizes
from langspec_lora.checkpoints.outline import Outline
from langspec_lora.errors import UserError
from tests.unit.checkpoints.test_compatibility import SIZES, base_shapes

SIZE_BOUNDS = {
    f"{stack}_{name}": bounds
    for stack in ("encoder", "decoder")
    for name, bounds in {
        "layers": (0, 1000), "embed_dim": (1, 65536), "ffn_embed_dim": (1, 1048576), "attention_heads": (1, 1024),
    }.items()
} | {"max_source_positions": (1, 1_000_000), "max_target_positions": (1, 1_000_000)}  # fmt: skip
SHARES = (
    "dropout",
    "attention_dropout",
    "activation_dropout",
    "relu_dropout",
    "encoder_layerdrop",
    "decoder_layerdrop",
)


def refusal(**args: object) -> str:
    with pytest.raises(UserError) as refused:
        check_model_arguments(Namespace(**args))
    assert str(refused.value).endswith("; download it again, or correct it with --model-overrides")
    return str(refused.value)


@pytest.mark.parametrize("name", SIZE_BOUNDS)
def test_size_is_a_whole_number_within_its_bounds(name) -> None:
    least, most = SIZE_BOUNDS[name]
    for value in (None, least, most):
        check_model_arguments(Namespace(**{name: value}))
    for value in (least - 1, most + 1, 2.0, "2", True, [2], float("nan")):
        assert refusal(**{name: value}).startswith(
            f"the checkpoint's argument {name} is {str(value)!r}; expected a whole number from {least} to {most};"
        )


@pytest.mark.parametrize("name", SHARES)
def test_share_is_a_number_from_zero_to_one(name) -> None:
    for value in (None, 0, 0.0, 0.3, 1, 1.0):
        check_model_arguments(Namespace(**{name: value}))
    for value in (-0.1, 1.1, float("nan"), float("inf"), "0.1", True, False):
        assert refusal(**{name: value}).startswith(
            f"the checkpoint's argument {name} is {str(value)!r}; expected a number from 0 to 1;"
        )


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_heads_divide_the_width_of_their_stack(stack) -> None:
    heads, width = f"{stack}_attention_heads", f"{stack}_embed_dim"
    check_model_arguments(Namespace(**{heads: 4, width: 12}))
    check_model_arguments(Namespace(**{heads: 5}))
    check_model_arguments(Namespace(**{width: 12}))
    check_model_arguments(Namespace(**{heads: None, width: 12}))
    assert f"argument {heads} is '5'; expected a number that divides {width} 12;" in refusal(**{heads: 5, width: 12})


def test_activation_is_one_that_fairseq_knows() -> None:
    for name in (*get_available_activation_fns(), None):
        check_model_arguments(Namespace(activation_fn=name))
    message = refusal(activation_fn="silu")
    assert "argument activation_fn is 'silu'; expected relu, " in message
    assert all(name in message for name in get_available_activation_fns())


def test_long_value_is_cut_in_the_message() -> None:
    message = refusal(encoder_layers="x" * 500)
    assert f"'{'x' * 80}';" in message


def outline(shapes: dict, **args: object) -> Outline:
    return Outline(Path("m.pt"), shapes, Namespace(**{**SIZES, **args}), None)


@pytest.mark.parametrize("name", SIZES)
def test_stored_size_is_that_of_the_model_in_the_file(name) -> None:
    shapes = base_shapes(Namespace(**SIZES))
    check_model_sizes(outline(shapes))
    for value in (None, "x", 2.5):  # refused before a model is built
        check_model_sizes(outline(shapes, **{name: value}))
    with pytest.raises(UserError) as refused:
        check_model_sizes(outline(shapes, **{name: 77}))
    assert str(refused.value) == (
        f"checkpoint m.pt is damaged: its argument {name} is 77, but it holds a model of {SIZES[name]}; "
        "download it again"
    )
    with pytest.raises(UserError, match=rf"{name} is {10**79}, but it"):  # 80 digits, and what follows
        check_model_sizes(outline(shapes, **{name: 10**79}))
    with pytest.raises(UserError, match=rf"{name} is 1{'0' * 79}, but it"):
        check_model_sizes(outline(shapes, **{name: 10**90}))


def test_sizes_of_what_is_not_in_the_file_cannot_be_compared() -> None:
    check_model_sizes(outline({}))
    check_model_sizes(outline({"encoder.embed_tokens.weight": (9, 6), "x.encoder.layers.0.fc1.weight": (1, 1)}))
    check_model_sizes(outline({"encoder.layers.0.fc1.bias": (3,)}, encoder_layers=1))
    check_model_sizes(Outline(Path("m.pt"), base_shapes(Namespace(**SIZES)), None, None))


def test_layers_may_begin_with_another_than_the_first() -> None:
    """As where fairseq has dropped some."""
    shapes = {f"decoder.layers.{layer}.fc1.weight": (8, 4) for layer in (10, 3)}
    check_model_sizes(outline(shapes, decoder_layers=2))
    with pytest.raises(UserError, match="decoder_layers is 1, but it holds a model of 2"):
        check_model_sizes(outline(shapes, decoder_layers=1))
    with pytest.raises(UserError, match="decoder_ffn_embed_dim is 7, but it holds a model of 8"):
        check_model_sizes(outline(shapes, decoder_layers=2, decoder_ffn_embed_dim=7))
