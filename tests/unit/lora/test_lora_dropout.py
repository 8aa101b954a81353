"""Dropout of what A reads: the formula with the same random numbers, sentence by sentence; and nothing without it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from langspec_lora.keys import KeyLayout
from langspec_lora.lora import LanguageRouting, Languages, LanguageSpecificLinear
from langspec_lora.lora import routing as routing_module
from langspec_lora.scaling import Scaling

RANKS, P, TIME, IDS = (2, 4, 1), 0.4, 5, [2, 0, 1, 1]
FACTORS = [3 / rank for rank in RANKS]


def make(part: tuple[int, int], dropout: float = P, dtype: torch.dtype = torch.float64) -> LanguageSpecificLinear:
    torch.manual_seed(3)
    routing = LanguageRouting(KeyLayout.by_language(RANKS), scaling=Scaling(3.0, "rank"))
    linear = LanguageSpecificLinear(nn.Linear(8, 11).to(dtype), routing, "src", *part, dropout=dropout)
    nn.init.normal_(linear.lora_B)
    routing.set(Languages(torch.tensor(IDS), torch.tensor(IDS)))
    return linear


def formula(linear: LanguageSpecificLinear, x: Tensor, keep: Tensor) -> Tensor:
    """W x + b + factor · B A (keep · x), sentence by sentence."""
    part = linear.slice or slice(None)
    outputs = []
    for sentence, language in enumerate(IDS):
        rows = slice(sum(RANKS[:language]), sum(RANKS[: language + 1]))
        output = x[:, sentence] @ linear.weight.t() + linear.bias
        update = (keep * x[..., part])[:, sentence] @ linear.lora_A[rows].t() @ linear.lora_B[rows]
        added = torch.zeros_like(output)
        added[:, part] = FACTORS[language] * update
        outputs.append(output + added)
    return torch.stack(outputs, 1)


@pytest.mark.parametrize("part", [(0, 0), (5, 2)], ids=["whole", "slice"])
@pytest.mark.parametrize("form", ["dense", "gathered"])
@pytest.mark.parametrize("needs", ["everything", "adapters", "input"])
def test_results_and_gradients_are_those_of_the_formula(part, form, needs, monkeypatch) -> None:
    monkeypatch.setattr(routing_module, "DENSE_ROWS", 0 if form == "gathered" else 10**6)
    linear = make(part)
    x = torch.randn(TIME, len(IDS), 8, dtype=torch.float64)
    own = {"adapters": [linear.lora_A, linear.lora_B], "input": [x]}
    values = own.get(needs, [x, linear.weight, linear.bias, linear.lora_A, linear.lora_B])
    for value in (x, *linear.parameters()):
        value.requires_grad_(any(value is wanted for wanted in values))
    read = x.detach()[..., linear.slice or slice(None)]
    torch.manual_seed(8)
    keep = F.dropout(torch.ones_like(read), P)
    assert set(keep.flatten().tolist()) == {0.0, 1 / (1 - P)}
    expected = formula(linear, x, keep)
    torch.manual_seed(8)
    output = linear(x)
    torch.testing.assert_close(output, expected)
    weights = torch.randn_like(output)
    slopes = torch.autograd.grad((expected * weights).sum(), values)
    torch.testing.assert_close(torch.autograd.grad((output * weights).sum(), values), slopes)


@pytest.mark.parametrize("mode", ["evaluation", "zero"])
def test_without_dropout_nothing_is_drawn_and_nothing_changes(mode) -> None:
    x = torch.randn(TIME, len(IDS), 8, dtype=torch.float64)
    plain = make((0, 0), 0.0)
    linear = make((0, 0)).eval() if mode == "evaluation" else make((0, 0), 0.0).train()
    state = torch.get_rng_state()
    output = linear(x)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(output, plain.eval()(x))


def test_autocast_computes_the_same_to_its_precision_and_gives_single_precision_gradients() -> None:
    linear = make((0, 0), dtype=torch.float32)
    x = torch.randn(TIME, len(IDS), 8, requires_grad=True)
    results = []
    for on in (False, True):
        torch.manual_seed(9)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=on):
            output = linear(x)
        slopes = torch.autograd.grad(output.float().sum(), [x, linear.lora_A, linear.lora_B])
        assert all(slope.dtype == torch.float32 for slope in slopes)
        results.append([output.float(), *slopes])
    for exact, half in zip(*results, strict=True):
        torch.testing.assert_close(half, exact, rtol=0.05, atol=0.03 * float(exact.abs().max()))
