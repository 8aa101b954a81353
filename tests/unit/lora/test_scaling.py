"""Products of adapters that are scaled by alpha and the rank, held against the formula, sentence by sentence."""

from __future__ import annotations

import math
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from langspec_lora.lora import MergedWeights, adapted_linears, adapter_parameters, inject, merge
from langspec_lora.lora import routing as routing_module
from langspec_lora.pruning.blocks import all_keys, group_blocks
from langspec_lora.pruning.choices import ENTRY, FIRST_ORDER, MAGNITUDE, RANK
from langspec_lora.pruning.criteria import SCORES, Known
from langspec_lora.pruning.magnitude import prune_smallest
from langspec_lora.scaling import SCALINGS, Scaling
from langspec_lora.sites import Site

RANKS = (2, 1, 4)
ALPHA = 3.0
FACTORS = {
    "rank": (ALPHA / 2, ALPHA, ALPHA / 4),
    "root": (ALPHA / math.sqrt(2), ALPHA, ALPHA / 2),
    "constant": (ALPHA, ALPHA, ALPHA),
}
SIDES = {"0": "src", "1": "learned"}
SOURCES, TARGETS = [0, 2, 1, 2], [1, 0, 2, 2]


def make(by: str | None, dim: int = 0) -> nn.Module:
    torch.manual_seed(4)
    model = nn.Sequential(*(nn.Linear(6, 6) for _ in SIDES)).double()
    scaling = None if by is None else Scaling(ALPHA, by)
    model.routing = inject(model, SIDES, RANKS, dim=dim, start=1 if dim else 0, scaling=scaling)
    model.forward = lambda x: model[1](model[0](x))
    for linear in adapted_linears(model):
        nn.init.normal_(linear.lora_B)
    return model


def rows(language: int, is_target: bool = False) -> list[int]:
    start = sum(RANKS[:language]) + is_target * sum(RANKS)
    return list(range(start, start + RANKS[language]))


def plain(model: nn.Module, x: Tensor, sources: list[int], targets: list[int], by: str) -> Tensor:
    """W x + factor · B A x in the first layer; in the second, half of that of each side."""
    first, second = adapted_linears(model)
    outputs = []
    for sentence, (source, target) in enumerate(zip(sources, targets, strict=True)):
        hidden = x[:, sentence]
        for linear, parts in (
            (first, [(rows(source), FACTORS[by][source])]),
            (second, [(rows(source), FACTORS[by][source] / 2), (rows(target, True), FACTORS[by][target] / 2)]),
        ):
            weight = linear.weight.clone()
            part = linear.slice or slice(None)
            for own, factor in parts:
                weight[part, part] += factor * linear.lora_B[own].t() @ linear.lora_A[own]
            hidden = hidden @ weight.t() + linear.bias
        outputs.append(hidden)
    return torch.stack(outputs, 1)


def test_all_ways_to_scale_are_tested() -> None:
    assert FACTORS.keys() == SCALINGS.keys()


@pytest.mark.parametrize("by", FACTORS)
@pytest.mark.parametrize("dim", [0, 4], ids=["whole", "slice"])
@pytest.mark.parametrize("form", ["dense", "gathered", "one language"])
def test_results_and_gradients_are_those_of_the_formula(by, dim, form, monkeypatch) -> None:
    monkeypatch.setattr(routing_module, "DENSE_ROWS", 0 if form == "gathered" else 10**6)
    model = make(by, dim)
    sources, targets = ([2] * 4, [0] * 4) if form == "one language" else (SOURCES, TARGETS)
    x = torch.randn(5, 4, 6, dtype=torch.float64, requires_grad=True)
    values = [x, *adapter_parameters(model)]
    expected = plain(model, x, sources, targets, by)
    slopes = torch.autograd.grad(expected.square().sum(), values, allow_unused=True)
    several = 1 if form == "one language" else 4
    model.routing.set_batch(torch.tensor(sources[:several]), torch.tensor(targets[:several]), 4)
    output = model(x)
    torch.testing.assert_close(output, expected, rtol=1e-6, atol=1e-6)  # the mixture is in single precision
    own = torch.autograd.grad(output.square().sum(), values, allow_unused=True)
    for value, slope in zip(own[:-1], slopes[:-1], strict=True):  # the last is the mixture's, half of which is given
        torch.testing.assert_close(value, slope, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("by", FACTORS)
def test_merged_weights_are_scaled(by) -> None:
    model = make(by)
    x = torch.randn(5, 2, 6, dtype=torch.float64)
    expected = plain(model, x, [2, 2], [0, 0], by)
    with MergedWeights(adapted_linears(model)).using(2, 0):
        torch.testing.assert_close(model(x), expected, rtol=1e-6, atol=1e-6)
    merged = deepcopy(model)
    merged.forward = lambda x: merged[1](merged[0](x))
    merge(merged, 2, 0)
    torch.testing.assert_close(merged(x), expected, rtol=1e-6, atol=1e-6)


def test_half_precision_does_not_round_the_factor() -> None:
    """1 / √3 has no short binary form."""
    linear = nn.Linear(4, 4, bias=False).half()
    model = nn.Sequential(linear)
    inject(model, {"0": "src"}, (3,), scaling=Scaling(1.0, "root"))
    model.float().half()
    (adapted,) = adapted_linears(model)
    nn.init.normal_(adapted.lora_B)
    exact = adapted.lora_B.double() / math.sqrt(3)
    assert torch.equal(adapted.scaled_b(), exact.half())


def test_without_a_scaling_b_itself_is_used() -> None:
    model = make(None)
    for linear in adapted_linears(model):
        assert linear.scaled_b() is linear.lora_B
    assert not any("scaling" in name for name in model.state_dict())


@pytest.mark.parametrize("unit", [ENTRY, RANK])
def test_pruning_across_languages_goes_by_what_the_products_have(unit) -> None:
    """Two models that compute the same, one with a scaling and one without, are pruned at the same entries."""
    kept = []
    scaled, folded = make("rank"), make(None)
    with torch.no_grad():
        for own, other in zip(adapted_linears(scaled), adapted_linears(folded), strict=True):
            factors = [factor for rank, factor in zip(RANKS, FACTORS["rank"], strict=True) for _ in range(rank)]
            factors *= len(own.lora_B) // len(factors)
            other.lora_A.copy_(own.lora_A)
            other.lora_B.copy_(own.lora_B * torch.tensor(factors, dtype=torch.float64).unsqueeze(1))
    for model in (scaled, folded):
        linears = {Site("encoder", 0, name): linear for name, linear in zip("qk", adapted_linears(model), strict=True)}
        for blocks in group_blocks(linears, all_keys(linears.values()), "layer"):
            prune_smallest(blocks, 0.6, SCORES[unit][MAGNITUDE])
        kept.append(torch.cat([linear.lora_mask for linear in linears.values()]))
    assert torch.equal(*kept)
    assert 0 < kept[0].float().mean() < 1


def test_the_first_order_score_is_the_same_with_a_scaling_and_without() -> None:
    scores = []
    for by in ("root", None):
        model = make(by)
        factors = torch.ones(7, 1, dtype=torch.float64)
        if by is None:
            factors = torch.tensor([f for r, f in zip(RANKS, FACTORS["root"], strict=True) for _ in range(r)])[:, None]
        first = next(adapted_linears(model))
        with torch.no_grad():
            first.lora_B.mul_(factors)
        model.routing.set_batch(torch.tensor(SOURCES), torch.tensor(TARGETS), 4)
        x = torch.linspace(-1, 1, 120, dtype=torch.float64).view(5, 4, 6)
        first(x).square().sum().backward()
        known = Known(squares={first.lora_B: first.lora_B.grad.square()})
        blocks = group_blocks({Site("encoder", 0, "q"): first}, all_keys([first]), "layer")[0]
        scores.append(torch.cat([SCORES[ENTRY][FIRST_ORDER](block, known) for block in blocks]))
    torch.testing.assert_close(*scores)
