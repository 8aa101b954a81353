"""Adapters of groups, of directions, and of all languages, held against plain loops."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import nn

from langspec_lora.errors import UserError
from langspec_lora.keys import KeyLayout, PackedLayout
from langspec_lora.lora import FrozenKeys, adapted_linears, inject, merge
from langspec_lora.lora import routing as routing_module
from langspec_lora.lora.language_adam import all_present

GROUPED, DIRECTIONS = PackedLayout((2, 3)), PackedLayout((1, 3, 2))
LAYOUT = KeyLayout(
    (0, 1, 0, 1),
    {"src": GROUPED, "tgt": GROUPED, "direction": DIRECTIONS, "shared": PackedLayout((4,))},
    {(0, 1): 0, (1, 3): 1, (3, 0): 2},
)
SIDES = {"0": "src", "1": "tgt", "2": "direction", "3": "shared"}
SOURCES, TARGETS = [0, 1, 3, 1, 0], [1, 3, 0, 3, 1]

ROWS = {
    "src": {0: range(0, 2), 1: range(2, 5), 2: range(0, 2), 3: range(2, 5)},
    "direction": {(0, 1): range(0, 1), (1, 3): range(1, 4), (3, 0): range(4, 6)},
}
"""The rows of each language's group and of each direction, counted out by hand."""


def rows_of(side: str, source: int, target: int) -> range:
    if side == "shared":
        return range(4)
    return (
        ROWS["direction"][source, target] if side == "direction" else ROWS["src"][{"src": source, "tgt": target}[side]]
    )


@pytest.fixture(params=["projecting onto all", "gathering"])
def model(request, monkeypatch) -> nn.Module:
    if request.param == "gathering":
        monkeypatch.setattr(routing_module, "DENSE_ROWS", 0)
    torch.manual_seed(1)
    model = nn.Sequential(*(nn.Linear(6, 6) for _ in SIDES)).double()
    inject(model, SIDES, LAYOUT)
    for linear in adapted_linears(model):
        nn.init.normal_(linear.lora_B)
    return model


def routing(model: nn.Module):
    return next(adapted_linears(model)).routing


def plain(model: nn.Module, x: torch.Tensor, sources: list[int], targets: list[int]) -> torch.Tensor:
    """Each sentence through the sum of both weights, one linear after the other."""
    outputs = []
    for sentence, direction in enumerate(zip(sources, targets, strict=True)):
        hidden = x[:, sentence]
        for linear in adapted_linears(model):
            rows = list(rows_of(linear.side, *direction))
            hidden = hidden @ (linear.weight + linear.lora_B[rows].t() @ linear.lora_A[rows]).t() + linear.bias
        outputs.append(hidden)
    return torch.stack(outputs, 1)


@pytest.mark.parametrize("several", [True, False])
def test_results_and_gradients_are_those_of_a_loop(model, several) -> None:
    sources, targets = (SOURCES, TARGETS) if several else ([1] * 5, [3] * 5)
    x = torch.randn(3, 5, 6, dtype=torch.float64)
    parameters = [p for linear in adapted_linears(model) for p in (linear.lora_A, linear.lora_B)]
    expected = plain(model, x, sources, targets)
    slopes = torch.autograd.grad(expected.square().sum(), parameters)
    ids = [torch.tensor(own if several else own[:1]) for own in (sources, targets)]
    routing(model).set_batch(*ids, 5)
    output = model(x)
    torch.testing.assert_close(output, expected)
    for own, other in zip(torch.autograd.grad(output.square().sum(), parameters), slopes, strict=True):
        torch.testing.assert_close(own, other)


def test_beams_follow_their_sentences(model) -> None:
    beams = [torch.tensor(own).repeat_interleave(3) for own in (SOURCES, TARGETS)]
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    routing(model).set_batch(*beams)
    torch.testing.assert_close(model(x), plain(model, x, SOURCES, TARGETS))


def test_merged_weights_compute_the_same_for_each_direction(model) -> None:
    from copy import deepcopy

    for direction in LAYOUT.key_of_direction:
        merged, x = deepcopy(model), torch.randn(3, 2, 6, dtype=torch.float64)
        merge(merged, *direction)
        torch.testing.assert_close(merged(x), plain(model, x, *([side] * 2 for side in direction)))


def test_a_direction_without_an_adapter_is_refused(model) -> None:
    routing(model).set_batch(torch.tensor([0, 1]), torch.tensor([1, 0]))
    with pytest.raises(UserError, match="the direction from language 1 to 0 has no adapter"):
        model(torch.randn(2, 2, 6, dtype=torch.float64))
    with pytest.raises(UserError, match="the direction from language 2 to 0 has no adapter"):
        merge(model, 2, 0)
    routing(model).set_batch(torch.tensor([2]), torch.tensor([0, 1]))
    with pytest.raises(UserError, match="the direction from language 2 to 0 has no adapter"):
        model(torch.randn(2, 2, 6, dtype=torch.float64))


def test_a_side_that_the_layout_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="side 'shared' of 0: expected src or tgt"):
        inject(nn.Sequential(nn.Linear(2, 2)), {"0": "shared"}, (1, 2))


def test_only_the_keys_that_train_get_gradients_and_change(model) -> None:
    trained = {"src": (1,), "tgt": (1,), "direction": (2,), "shared": ()}
    own = {"src": {2, 3, 4}, "tgt": {2, 3, 4}, "direction": {4, 5}, "shared": set()}
    linears = list(adapted_linears(model))
    hook = FrozenKeys(linears, trained)
    hook.begin_epoch(1)
    before = [(linear.lora_A.detach().clone(), linear.lora_B.detach().clone()) for linear in linears]
    routing(model).set_batch(torch.tensor(SOURCES), torch.tensor(TARGETS))
    model(torch.randn(3, 5, 6, dtype=torch.float64)).square().sum().backward()
    torch.optim.AdamW(model.parameters(), weight_decay=0.5).step()
    hook.end_update()
    for linear, (a, b) in zip(linears, before, strict=True):
        for parameter, kept in ((linear.lora_A, a), (linear.lora_B, b)):
            for row, (now, then) in enumerate(zip(parameter, kept, strict=True)):
                assert torch.equal(now, then) == (row not in own[linear.side])


def test_presence_is_counted_for_what_can_be_absent() -> None:
    present = all_present(LAYOUT, False)
    assert {side: len(values) for side, values in present.items()} == {"src": 2, "tgt": 2, "direction": 3}


def test_the_layout_of_two_hundred_languages_directions_stays_small() -> None:
    pairs = {pair: key for key, pair in enumerate(product(range(200), range(200)))}
    layout = KeyLayout(tuple(range(200)), {"direction": PackedLayout((1,) * len(pairs))}, pairs)
    tables = routing_module.LanguageRouting(layout)
    assert sum(table.numel() * table.element_size() for table in tables.buffers()) < 2e6
