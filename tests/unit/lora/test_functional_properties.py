"""The packed layer against a plain loop over languages: random shapes, ids and ranks, values and gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from langspec_lora.errors import UserError
from langspec_lora.keys import KeyLayout
from langspec_lora.lora import LanguageRouting, Languages, LanguageSpecificLinear
from langspec_lora.lora import routing as routing_module
from tests.properties import examples


@st.composite
def layers(draw):
    """A layer, the ids of a batch, and an input of it; few rows or many, one language or several, whole or a slice."""
    ranks = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    d_in, d_out = draw(st.integers(2, 7)), draw(st.integers(2, 7))
    dim = draw(st.integers(0, min(d_in, d_out)))
    start = draw(st.integers(0, min(d_in, d_out) - dim)) if dim else 0
    torch.manual_seed(draw(st.integers(0, 99)))
    linear = nn.Linear(d_in, d_out, bias=draw(st.booleans())).double()
    routing = LanguageRouting(KeyLayout.by_language(tuple(ranks)))
    routing._rows["src"].dense = draw(st.booleans())
    layer = LanguageSpecificLinear(linear, routing, draw(st.sampled_from(("src", "tgt"))), dim, start)
    nn.init.normal_(layer.lora_B)
    ids = draw(st.lists(st.integers(0, len(ranks) - 1), min_size=1, max_size=5))
    other = draw(st.lists(st.integers(0, len(ranks) - 1), min_size=len(ids), max_size=len(ids)))
    x = torch.randn(draw(st.integers(1, 4)), len(ids), d_in, dtype=torch.float64, requires_grad=True)
    source, target = (ids, other) if layer.side == "src" else (other, ids)
    routing.set(Languages(torch.tensor(source), torch.tensor(target)))
    return layer, ids, x


def plain(layer: LanguageSpecificLinear, ids: list[int], x: Tensor) -> Tensor:
    """W x + b + Bᵀ A x, number by number of tokens, with the rows of the sentence's language cut out by hand."""
    ranks = layer.layout.ranks
    outputs = []
    for sentence, language in enumerate(ids):
        first = sum(ranks[:language])
        weight = layer.weight
        update = layer.lora_B[first : first + ranks[language]].t() @ layer.lora_A[first : first + ranks[language]]
        whole = torch.zeros_like(weight)
        part = layer.slice or slice(None)
        whole[part, part] = update
        outputs.append(x[:, sentence] @ (weight + whole).t() + (0 if layer.bias is None else layer.bias))
    return torch.stack(outputs, 1)


@examples(150)
@given(layers())
def test_values_and_gradients_are_those_of_a_plain_loop(case) -> None:
    layer, ids, x = case
    leaves = [x, *(p for p in (layer.weight, layer.bias, layer.lora_A, layer.lora_B) if p is not None)]
    found, expected = layer(x), plain(layer, ids, x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    weights = torch.randn_like(expected)
    ours, theirs = (torch.autograd.grad((y * weights).sum(), leaves) for y in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@examples(80)
@given(layers(), st.data())
def test_the_adapter_of_another_language_changes_nothing_bit_for_bit(case, data) -> None:
    layer, ids, x = case
    ranks = layer.layout.ranks
    others = [language for language in range(len(ranks)) if language not in ids]
    before = layer(x)
    (gradient,) = torch.autograd.grad(before.sum(), [x])
    if not others:
        return
    changed = data.draw(st.sampled_from(others))
    rows = slice(sum(ranks[:changed]), sum(ranks[: changed + 1]))
    with torch.no_grad():
        layer.lora_A[rows] *= data.draw(st.sampled_from((0.0, -3.0, 1e100)))
        layer.lora_B[rows] += data.draw(st.sampled_from((1.0, 1e100)))
    after = layer(x)
    assert torch.equal(before, after)
    again, a, b = torch.autograd.grad(after.sum(), [x, layer.lora_A, layer.lora_B])
    assert torch.equal(gradient, again)
    assert not a[rows].any()
    assert not b[rows].any()


@examples(60)
@given(layers(), st.randoms(use_true_random=False))
def test_the_order_of_the_sentences_is_that_of_the_results(case, shuffle) -> None:
    layer, ids, x = case
    before, order = layer(x), list(range(len(ids)))
    shuffle.shuffle(order)
    now = layer.routing.current
    both = (side if len(side) == 1 else side[order] for side in (now.source, now.target))
    layer.routing.set(Languages(*both))
    torch.testing.assert_close(layer(x[:, order]), before[:, order], rtol=1e-12, atol=1e-12)


@examples(80)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=6),
    st.lists(st.integers(-2, 7), min_size=1, max_size=4),
    st.integers(1, 3),
    st.booleans(),
)
def test_rows_are_those_of_each_sentence_or_its_languages_are_refused(ranks, ids, beams, dense) -> None:
    routing = LanguageRouting(KeyLayout.by_language(tuple(ranks)))
    routing._rows["src"].dense = dense
    given_ids = torch.tensor(ids).repeat_interleave(beams)
    if not all(0 <= number < len(ranks) for number in ids):
        with pytest.raises(UserError, match=f"expected numbers from 0 to {len(ranks) - 1}"):
            routing.set_batch(given_ids, given_ids)
        return
    routing.set_batch(given_ids, given_ids)
    selection = routing.select("src", len(ids) if len(given_ids) > 1 else 1)
    for sentence, language in enumerate(ids):
        own = set(range(sum(ranks[:language]), sum(ranks[: language + 1])))
        if selection.rows is None:
            assert (selection.foreign is None) == (len(ranks) == 1)  # then all rows are everybody's
            foreign = selection.foreign
            used = {row for row in range(sum(ranks)) if foreign is None or not foreign[sentence, row]}
        else:
            rows = selection.rows[sentence if len(selection.rows) > 1 else 0].tolist()
            foreign = selection.foreign
            hidden = [False] * len(rows) if foreign is None else foreign[sentence if len(foreign) > 1 else 0].tolist()
            kept = [row for row, is_hidden in zip(rows, hidden, strict=True) if not is_hidden]
            assert len(kept) == len(set(kept))
            used = set(kept)
        assert used == own


def test_both_ways_to_select_rows_are_tried() -> None:
    assert LanguageRouting(KeyLayout.by_language((1, 1)))._rows["src"].dense
    assert not LanguageRouting(KeyLayout.by_language((routing_module.DENSE_ROWS, 1)))._rows["src"].dense
