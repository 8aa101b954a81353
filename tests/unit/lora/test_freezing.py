"""Languages that do not train, beside languages that do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from langspec_lora.keys import KeyLayout
from langspec_lora.lora import FrozenKeys, LanguageRouting, LanguageSpecificLinear

RANKS = (2, 1, 3, 2)
TRAINED = (1, 3)
OWN = torch.tensor([False, False, True, False, False, False, True, True])  # rows of the languages 1 and 3


@pytest.fixture
def linears() -> list[LanguageSpecificLinear]:
    torch.manual_seed(1)
    routing = LanguageRouting(KeyLayout.by_language(RANKS))
    linears = [LanguageSpecificLinear(nn.Linear(6, 8), routing, side) for side in ("src", "tgt")]
    for linear in linears:
        nn.init.normal_(linear.lora_B)
    ids = torch.tensor([0, 1, 2, 3])
    routing.set_batch(ids, ids.flip(0))
    return linears


def matrices(linears: list[LanguageSpecificLinear]) -> list[nn.Parameter]:
    return [parameter for linear in linears for parameter in (linear.lora_A, linear.lora_B)]


def backward(linears: list[LanguageSpecificLinear]) -> None:
    torch.manual_seed(2)
    x = torch.randn(3, 4, 6)
    sum(linear(x).square().sum() for linear in linears).backward()


def test_frozen_languages_get_no_gradient_and_the_others_the_one_they_had(linears) -> None:
    backward(linears)
    without = [parameter.grad.clone() for parameter in matrices(linears)]
    for parameter in matrices(linears):
        parameter.grad = None
    FrozenKeys(linears, dict.fromkeys(("src", "tgt"), TRAINED))
    backward(linears)
    for parameter, gradient in zip(matrices(linears), without, strict=True):
        assert (gradient[~OWN] != 0).all()
        assert torch.equal(parameter.grad[OWN], gradient[OWN])
        assert (parameter.grad[~OWN] == 0).all()


def test_frozen_languages_count_neither_in_clipping_nor_in_adam(linears) -> None:
    FrozenKeys(linears, dict.fromkeys(("src", "tgt"), TRAINED))
    backward(linears)
    own = torch.cat([parameter.grad[OWN].flatten() for parameter in matrices(linears)])
    norm = nn.utils.clip_grad_norm_(matrices(linears), 1.0)
    torch.testing.assert_close(norm, own.norm())
    optimizer = torch.optim.Adam(matrices(linears))
    optimizer.step()
    for state in optimizer.state.values():
        assert (state["exp_avg"][OWN] != 0).all()
        assert (state["exp_avg"][~OWN] == 0).all()
        assert (state["exp_avg_sq"][~OWN] == 0).all()


def test_frozen_languages_are_set_back_to_what_they_were_remembered_as(linears) -> None:
    frozen = FrozenKeys(linears, dict.fromkeys(("src", "tgt"), TRAINED))
    with torch.no_grad():
        for parameter in matrices(linears):
            parameter.add_(1)  # a checkpoint is loaded
    frozen.begin_epoch(1)
    before = [parameter.detach().clone() for parameter in matrices(linears)]
    backward(linears)
    torch.optim.AdamW(matrices(linears), lr=0.1, weight_decay=0.5).step()
    frozen.end_update()
    for parameter, then in zip(matrices(linears), before, strict=True):
        assert torch.equal(parameter[~OWN], then[~OWN])
        assert (parameter[OWN] != then[OWN]).all()
