"""Layers that mix the adapters of the source and the target language, held against a plain loop."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from langspec_lora.keys import KeyLayout
from langspec_lora.lora import (
    MergedWeights,
    SideMixture,
    adapted_linears,
    adapter_parameters,
    inject,
    mark_trainable,
    merge,
)
from langspec_lora.lora import routing as routing_module

RANKS = (2, 1, 3)
LAYERS = {"0": "first", "1": "first", "2": "second", "3": "fixed"}
SIDES = {"0": "learned", "1": "learned", "2": "learned", "3": "src"}
LOGITS = [[0.3, -0.4], [-1.0, 0.5]]
SOURCES, TARGETS = [0, 2, 1, 0], [1, 1, 0, 2]


@pytest.fixture(params=["projecting onto all", "gathering"])
def model(request, monkeypatch) -> nn.Module:
    if request.param == "gathering":
        monkeypatch.setattr(routing_module, "DENSE_ROWS", 0)
    torch.manual_seed(1)
    model = nn.Sequential(*(nn.Linear(5, 5) for _ in SIDES)).double()
    model.routing = inject(model, SIDES, RANKS, layer_of=LAYERS.__getitem__, rate=2.0)
    model.forward = lambda x: model[3](model[2](model[1](model[0](x))))
    for linear in adapted_linears(model):
        nn.init.normal_(linear.lora_B)
    with torch.no_grad():
        model.routing.mixture.logits.copy_(torch.tensor(LOGITS))
    return model


def rows(language: int, is_target: bool) -> list[int]:
    """A language's rows in a layer that mixes, counted out by hand."""
    start = sum(RANKS[:language]) + is_target * sum(RANKS)
    return list(range(start, start + RANKS[language]))


def plain(
    model: nn.Module, x: torch.Tensor, sources: list[int], targets: list[int], hard: bool = False
) -> torch.Tensor:
    """The formula, sentence by sentence: W x + w_src B_s A_s x + w_tgt B_t A_t x."""
    outputs = []
    for sentence, (source, target) in enumerate(zip(sources, targets, strict=True)):
        hidden = x[:, sentence]
        for place, linear in enumerate(adapted_linears(model)):
            weight = linear.weight
            if place == 3:
                weight = weight + linear.lora_B[rows(source, False)].t() @ linear.lora_A[rows(source, False)]
            else:
                shares = (2.0 * model.routing.mixture.logits[place // 2]).exp()
                shares = shares / shares.sum()
                for is_target, language in enumerate((source, target)):
                    if not hard or shares[is_target] == shares.max():
                        own = rows(language, bool(is_target))
                        weight = weight + shares[is_target] * linear.lora_B[own].t() @ linear.lora_A[own]
            hidden = hidden @ weight.t() + linear.bias
        outputs.append(hidden)
    return torch.stack(outputs, 1)


@pytest.mark.parametrize("several", [True, False])
def test_results_and_gradients_are_those_of_a_loop(model, several) -> None:
    sources, targets = (SOURCES, TARGETS) if several else ([2] * 4, [1] * 4)
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    parameters = list(adapter_parameters(model))
    assert any(parameter is model.routing.mixture.logits for parameter in parameters)
    expected = plain(model, x, sources, targets)
    slopes = torch.autograd.grad(expected.square().sum(), parameters)
    model.routing.set_batch(*(torch.tensor(own if several else own[:1]) for own in (sources, targets)), 4)
    output = model(x)
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-6)
    for own, other in zip(torch.autograd.grad(output.square().sum(), parameters), slopes, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-5)


def test_the_smaller_side_is_left_out_on_request(model) -> None:
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    model.routing.mixture.hard = True
    model.routing.set_batch(torch.tensor(SOURCES), torch.tensor(TARGETS))
    torch.testing.assert_close(model(x), plain(model, x, SOURCES, TARGETS, hard=True), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("hard", [False, True])
def test_merged_weights_compute_the_same_and_follow_the_mixture(model, hard) -> None:
    x = torch.randn(3, 2, 5, dtype=torch.float64)
    merged = MergedWeights(adapted_linears(model))
    for logits in (LOGITS, [[-0.2, 0.1], [0.7, 0.0]]):
        with torch.no_grad():
            model.routing.mixture.logits.copy_(torch.tensor(logits))
        model.routing.mixture.hard = hard
        expected = plain(model, x, [2, 2], [1, 1], hard)
        with merged.using(2, 1):
            torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-6)
    folded = deepcopy(model)
    folded.forward = lambda x: folded[3](folded[2](folded[1](folded[0](x))))
    merge(folded, 2, 1)
    torch.testing.assert_close(folded(x), expected, rtol=1e-5, atol=1e-6)


def test_gradients_follow_the_weights_from_one_forward_pass_to_the_next(model) -> None:
    """The weights are computed once for a batch, and a batch without gradients must not leave its own."""
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    mark_trainable(model)
    model.routing.mixture.logits.requires_grad_()
    ids = torch.tensor(SOURCES), torch.tensor(TARGETS)
    model.routing.set_batch(*ids)
    with torch.no_grad():
        model(x)
    for _ in range(2):
        model.routing.mixture.logits.grad = None
        model.routing.set_batch(*ids)
        model(x).square().sum().backward()
        (expected,) = torch.autograd.grad(
            plain(model, x, SOURCES, TARGETS).square().sum(), [model.routing.mixture.logits]
        )
        torch.testing.assert_close(model.routing.mixture.logits.grad, expected, rtol=1e-5, atol=1e-5)


def test_a_rate_multiplies_adams_steps() -> None:
    steps = []
    for rate in (1.0, 10.0):
        mixture = SideMixture(1, rate)
        optimizer = torch.optim.Adam(mixture.parameters(), lr=1e-3)
        for _ in range(5):
            optimizer.zero_grad()
            (mixture.weights()[0] * torch.tensor([1.0, 3.0])).sum().backward()
            optimizer.step()
        steps.append((mixture.logits * mixture.rate).detach())
    torch.testing.assert_close(steps[1], 10 * steps[0], rtol=1e-3, atol=1e-6)


def test_equal_weights_at_the_start_and_the_source_wins_a_tie() -> None:
    mixture = SideMixture(3)
    assert mixture.weights().tolist() == [[0.5, 0.5]] * 3
    mixture.hard = True
    assert mixture.weights().tolist() == [[0.5, 0.0]] * 3


def test_a_layout_without_mixed_keys_has_no_learned_side() -> None:
    with pytest.raises(ValueError, match="side 'learned' of 0: expected src or tgt"):
        inject(nn.Sequential(nn.Linear(2, 2)), {"0": "learned"}, KeyLayout.by_language((1, 2)))
