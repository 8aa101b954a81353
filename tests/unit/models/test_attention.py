"""Attention over adapted projections against fairseq's own module with the same weights."""

from __future__ import annotations

import copy
from unittest.mock import Mock

import pytest
import torch
import torch.nn.functional as F
from fairseq.modules import MultiheadAttention

from langspec_lora.models import attention
from langspec_lora.models.attention import AdaptedAttention

WIDTH, HEADS, SENTENCES, BEAM = 16, 4, 3, 2
PADDING = torch.tensor([[0, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]], dtype=torch.bool)  # as sources have it


@pytest.fixture(params=[False, True], ids=["as on a CPU", "as on a GPU"])
def steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the steps of decoding are fused."""
    monkeypatch.setattr(attention, "FUSE_STEPS_ON_CPU", request.param)
    return request.param


def both(kind: str, dropout: float = 0.0, **more: bool) -> tuple[AdaptedAttention, MultiheadAttention]:
    """The adapted attention, and fairseq's with the same weights; neither "self" nor "cross" reads any two inputs."""
    torch.manual_seed(0)
    stock = MultiheadAttention(
        WIDTH,
        HEADS,
        dropout=dropout,
        self_attention=kind == "self",
        encoder_decoder_attention=kind == "cross",
        **more,
    )
    adapted = copy.deepcopy(stock)
    AdaptedAttention.convert(adapted)
    return adapted, stock


def states(module: MultiheadAttention, incremental: dict) -> dict:
    """What a module keeps between steps."""
    return module._get_input_buffer(incremental)


def assert_same_state(adapted: dict, stock: dict) -> None:
    assert adapted.keys() == stock.keys()
    for name, expected in stock.items():
        if expected is None:
            assert adapted[name] is None
        else:
            torch.testing.assert_close(adapted[name], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_self_attention_of_whole_sentences_is_fairseq_s_with_its_gradients(padded, masked) -> None:
    adapted, stock = both("self")
    x = torch.randn(5, SENTENCES, WIDTH)
    mask = torch.triu(torch.full((5, 5), float("-inf")), 1) if masked else None
    padding = PADDING.flip(1) if padded else None  # targets are padded at their end
    outputs = [m(x, x, x, padding, need_weights=False, attn_mask=mask)[0] for m in (adapted, stock)]
    assert torch.equal(*outputs)
    for output in outputs:
        output.square().mean().backward()
    for one, other in zip(adapted.parameters(), stock.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-7)


@pytest.mark.parametrize("padded", [False, True])
def test_cross_attention_is_fairseq_s_with_its_gradients(padded) -> None:
    adapted, stock = both("cross")
    x, memory = torch.randn(4, SENTENCES, WIDTH), torch.randn(5, SENTENCES, WIDTH)
    padding = PADDING if padded else None
    outputs = [
        m(x, memory, memory, padding, static_kv=True, need_weights=False, incremental_state=None)[0]
        for m in (adapted, stock)
    ]
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-6)
    for output in outputs:
        output.square().mean().backward()
    for one, other in zip(adapted.parameters(), stock.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-6)


@pytest.mark.parametrize("beam", [1, SENTENCES])
@pytest.mark.parametrize("padding_at", [None, 0, 1])
def test_steps_of_self_attention_keep_what_fairseq_keeps(steps, padding_at, beam) -> None:
    adapted, stock = both("self")
    kept: list[dict] = [{}, {}]
    for module in (adapted, stock):
        module.set_beam_size(beam)  # which matters to cross-attention only
    for step in range(3):
        x = torch.randn(1, SENTENCES, WIDTH)
        padding = torch.tensor([[False], [True], [False]]) if step == padding_at else None
        outputs = [
            module(x, x, x, padding, incremental_state=state, need_weights=False)[0]
            for module, state in zip((adapted, stock), kept, strict=True)
        ]
        rows = [0, 2] if step == padding_at == 0 else [0, 1, 2]  # a sentence of nothing but padding has no attention
        torch.testing.assert_close(outputs[0][:, rows], outputs[1][:, rows], rtol=0, atol=1e-6)
        assert_same_state(states(adapted, kept[0]), states(stock, kept[1]))
        order = torch.tensor([2, 0, 0])
        for module, state in zip((adapted, stock), kept, strict=True):
            module.reorder_incremental_state(state, order)
        assert_same_state(states(adapted, kept[0]), states(stock, kept[1]))


@pytest.mark.parametrize("length", [1, 2])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("beam", "repeated"), [(1, True), (BEAM, True), (BEAM, False), (3, True)])
def test_steps_of_cross_attention_keep_what_fairseq_keeps(steps, beam, repeated, padded, length) -> None:
    """A source may come once for each beam, as from fairseq's generator, or once for all."""
    adapted, stock = both("cross")
    memory, padding = torch.randn(5, SENTENCES, WIDTH), PADDING if padded else None
    if repeated:
        memory = memory.repeat_interleave(beam, dim=1)
        padding = None if padding is None else padding.repeat_interleave(beam, dim=0)
    kept: list[dict] = [{}, {}]
    for module in (adapted, stock):
        module.set_beam_size(beam)
    for step in range(3):
        if step == 2:
            memory = None  # whose keys and values are kept
        x = torch.randn(length, SENTENCES * beam, WIDTH)
        outputs = [
            module(x, memory, memory, padding, incremental_state=state, static_kv=True, need_weights=False)[0]
            for module, state in zip((adapted, stock), kept, strict=True)
        ]
        torch.testing.assert_close(*outputs, rtol=0, atol=1e-6)
        assert_same_state(states(adapted, kept[0]), states(stock, kept[1]))
        assert states(adapted, kept[0])["prev_key"].shape == (SENTENCES, HEADS, 5, WIDTH // HEADS)


@pytest.mark.parametrize("kind", ["self", "cross"])
def test_dropout_has_fairseq_s_distribution(kind) -> None:
    draws, length, dropout = 4000, 3, 0.3
    adapted, stock = both(kind, dropout)
    x = torch.randn(1, 1, WIDTH).expand(1, draws, WIDTH)
    memory = torch.randn(length, 1, WIDTH).expand(length, draws, WIDTH)
    if kind == "self":
        x = memory
    with torch.no_grad():
        samples = [
            module.train()(x, memory, memory, static_kv=kind == "cross", need_weights=kind == "self" and explicit)[0]
            for module, explicit in ((adapted, False), (stock, True))
        ]  # each (time, draws, width)
        exact = adapted.eval()(x[:, :1], memory[:, :1], memory[:, :1], static_kv=kind == "cross", need_weights=False)[0]
    spread = samples[1].std(1)
    assert spread.max() > 0.05
    standard_error = (spread / draws**0.5).unsqueeze(1)
    for sample in samples:
        assert ((sample.mean(1, keepdim=True) - exact).abs() < 5 * standard_error + 1e-6).all()
    torch.testing.assert_close(samples[0].std(1), spread, rtol=0.1, atol=1e-3)


@pytest.mark.parametrize("kind", ["self", "cross"])
def test_retained_dropout_drops_while_translating_what_training_drops(kind) -> None:
    adapted, _ = both(kind, 0.5)
    x, memory = torch.randn(4, SENTENCES, WIDTH), torch.randn(5, SENTENCES, WIDTH)
    memory = x if kind == "self" else memory

    def attend() -> torch.Tensor:
        torch.manual_seed(4)
        return adapted(x, memory, memory, static_kv=kind == "cross", need_weights=False)[0]

    trained, plain = adapted.train() and attend(), adapted.eval() and attend()
    assert not torch.allclose(trained, plain)
    adapted.dropout_module.make_generation_fast_("attention", retain_dropout=True)  # as fairseq's --retain-dropout
    assert torch.equal(adapted.eval() and attend(), trained)


@pytest.mark.parametrize("incremental", [False, True])
@pytest.mark.parametrize("kind", ["self", "cross"])
def test_attention_weights_are_computed_only_where_asked_for(steps, kind, incremental, monkeypatch) -> None:
    fused = Mock(wraps=F.scaled_dot_product_attention)
    monkeypatch.setattr(F, "scaled_dot_product_attention", fused)
    adapted, _ = both(kind)
    x, memory = torch.randn(1, SENTENCES, WIDTH), torch.randn(5, SENTENCES, WIDTH)
    memory = x if kind == "self" else memory
    for wanted in (False, True):
        fused.reset_mock()
        state = {} if incremental else None
        _, weights = adapted(x, memory, memory, incremental_state=state, static_kv=kind == "cross", need_weights=wanted)
        assert (weights is not None) == wanted
        assert fused.called == (not wanted and (steps or not incremental))


def test_head_weights_are_those_of_fairseq() -> None:
    adapted, stock = both("cross")
    x, memory = torch.randn(2, SENTENCES, WIDTH), torch.randn(5, SENTENCES, WIDTH)
    results = [m(x, memory, memory, PADDING, static_kv=True, need_head_weights=True) for m in (adapted, stock)]
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", ["self", "cross"])
def test_attention_that_is_told_nothing_more_gives_fairseq_s_weights(kind) -> None:
    adapted, stock = both(kind)
    x = torch.randn(5, SENTENCES, WIDTH)
    memory = x if kind == "self" else torch.randn(4, SENTENCES, WIDTH)
    results = [module(x, memory, memory) for module in (adapted, stock)]
    assert results[1][1].shape == (SENTENCES, 5, len(memory))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("wanted", ["need_weights", "need_head_weights", "before_softmax"])
def test_what_is_asked_for_beside_the_output_is_fairseq_s_in_every_step(wanted, steps) -> None:
    for kind in ("self", "cross"):
        adapted, stock = both(kind)
        kept: list[dict] = [{}, {}]
        memory = torch.randn(5, SENTENCES, WIDTH)
        for _ in range(2):
            x = torch.randn(1, SENTENCES, WIDTH)
            inputs = (x, x, x) if kind == "self" else (x, memory, memory, PADDING)
            options = {"static_kv": kind == "cross", "need_weights": False, wanted: True}
            results = [m(*inputs, incremental_state=k, **options) for m, k in zip((adapted, stock), kept, strict=True)]
            for one, other in zip(*results, strict=True):
                torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("weights", [False, True])
def test_masks_count_beside_weights_too(weights) -> None:
    adapted, stock = both("self")
    x = torch.randn(5, SENTENCES, WIDTH)
    mask = torch.triu(torch.full((5, 5), float("-inf")), 1)
    results = [m(x, x, x, PADDING.flip(1), need_weights=weights, attn_mask=mask)[0] for m in (adapted, stock)]
    torch.testing.assert_close(*results, rtol=0, atol=1e-6)


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("kind", ["self", "cross", "any"])
def test_projections_are_called_as_modules_whatever_is_asked_for(kind, weights) -> None:
    adapted, _ = both(kind)
    called = []
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        getattr(adapted, name).register_forward_hook(lambda *_, name=name: called.append(name))
    x = torch.randn(5, SENTENCES, WIDTH)
    for training in (True, False):
        called.clear()
        adapted.train(training)(x, x, x, need_weights=weights)
        assert sorted(called) == ["k_proj", "out_proj", "q_proj", "v_proj"]


def test_keys_and_values_of_two_inputs_are_fairseq_s() -> None:
    adapted, stock = both("any")
    x, key, value = (torch.randn(length, SENTENCES, WIDTH) for length in (4, 5, 5))
    results = [module(x, key, value, PADDING, need_weights=False)[0] for module in (adapted, stock)]
    torch.testing.assert_close(*results, rtol=0, atol=1e-6)


def test_a_key_of_zeros_is_fairseq_s() -> None:
    adapted, stock = both("self", add_zero_attn=True)
    x = torch.randn(5, SENTENCES, WIDTH)
    results = [module(x, x, x, need_weights=False)[0] for module in (adapted, stock)]
    torch.testing.assert_close(*results, rtol=0, atol=1e-6)


def test_a_key_of_parameters_is_not_left_out() -> None:
    adapted, _ = both("self", add_bias_kv=True)
    x = torch.randn(5, SENTENCES, WIDTH)
    with pytest.raises(AssertionError):  # fairseq's explicit path does not take it
        adapted(x, x, x, need_weights=False)


@pytest.mark.parametrize("setting", ["use_xformers", "onnx_trace"])
def test_what_takes_a_path_of_its_own_in_fairseq_is_not_fused(setting, monkeypatch) -> None:
    monkeypatch.setattr(F, "scaled_dot_product_attention", None)
    adapted, stock = both("self")
    expected = stock(x := torch.randn(5, SENTENCES, WIDTH), x, x)[0]
    setattr(adapted, setting, True)
    torch.testing.assert_close(adapted(x, x, x, need_weights=False)[0], expected, rtol=0, atol=1e-6)


def test_self_attention_has_no_static_keys(steps) -> None:
    for module in both("self"):
        state = {}
        x = torch.randn(1, SENTENCES, WIDTH)
        module(x, x, x, incremental_state=state, static_kv=True, need_weights=False)
        with pytest.raises(AssertionError):
            module(x, x, x, incremental_state=state, static_kv=True, need_weights=False)


def test_everything_is_computed_on_the_device_of_the_inputs() -> None:
    adapted, _ = both("self")
    x = torch.randn(5, SENTENCES, WIDTH)
    expected, _ = adapted(x, x, x, PADDING, need_weights=False)
    with torch.device("meta"):  # where new tensors are then made that are not told where
        output, _ = adapted(x, x, x, PADDING, need_weights=False)
    assert output.device == x.device
    assert torch.equal(output, expected)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", ["self", "cross"])
def test_masks_take_the_type_of_the_products_under_autocast(kind, masked, monkeypatch) -> None:
    """Some torch releases accept no others."""
    fused = Mock(wraps=F.scaled_dot_product_attention)
    monkeypatch.setattr(F, "scaled_dot_product_attention", fused)
    adapted, stock = both(kind)
    x = torch.randn(5, SENTENCES, WIDTH)
    mask = torch.triu(torch.full((5, 5), float("-inf")), 1) if masked else None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, _ = adapted(x, x, x, PADDING.flip(1), need_weights=False, attn_mask=mask)
    assert {fused.call_args.kwargs["attn_mask"].dtype, output.dtype} == {torch.bfloat16}
    expected = stock(x, x, x, PADDING.flip(1), need_weights=False, attn_mask=mask)[0]
    torch.testing.assert_close(output.float(), expected, rtol=0.05, atol=0.02)


@pytest.mark.parametrize(("device", "fuses"), [("cpu", False), ("meta", True)])
def test_steps_are_fused_on_every_device_but_a_cpu(device, fuses) -> None:
    for adapted, static in ((both("self")[0], False), (both("cross")[0], True)):
        query = torch.empty(1, SENTENCES, WIDTH, device=device)
        assert adapted._can_be_fused(query, incremental=True, static_kv=static) == fuses
        assert adapted._can_be_fused(query, incremental=False, static_kv=static)
