"""Pruning of random adapters: counts as the schedule says, masks that only lose entries, and no favourites."""

from __future__ import annotations

from fractions import Fraction

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from langspec_lora.keys import KeyLayout
from langspec_lora.lora import LanguageRouting, LanguageSpecificLinear
from langspec_lora.pruning.blocks import add_a_masks, group_blocks
from langspec_lora.pruning.choices import CRITERIA
from langspec_lora.pruning.criteria import SCORES, Known
from langspec_lora.pruning.magnitude import apply_masks, prune_smallest, pruned_in_rows
from langspec_lora.pruning.schedule import PruningSchedule
from langspec_lora.pruning.scopes import SCOPES
from langspec_lora.sites import Site
from tests.properties import examples

SHARES = st.integers(0, 99).map(lambda percent: percent / 100)


def as_published(start: int, length: int, target: Fraction, epoch: int) -> Fraction:
    """The paper's schedule (section 3.3) in whole numbers: P − P (1 − (e − t1) / t2)³ between t1 and t1 + t2."""
    if epoch < start:
        return Fraction(0)
    if epoch >= start + length:
        return target
    return target - target * (1 - Fraction(epoch - start, length)) ** 3


@examples(150)
@given(st.integers(0, 30), st.integers(1, 40), st.integers(0, 99), st.integers(1, 80))
def test_the_ratio_is_the_published_one_and_never_falls(start, length, percent, epoch) -> None:
    schedule, target = PruningSchedule(start, length, percent / 100), Fraction(percent, 100)
    assert abs(schedule.ratio(epoch) - float(as_published(start, length, target, epoch))) < 1e-12
    assert 0 <= schedule.ratio(epoch) <= schedule.ratio(epoch + 1) <= percent / 100


@st.composite
def adapted(draw):
    """Some adapted layers with values that repeat, and the language ids."""
    ranks = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)))
    routing = LanguageRouting(KeyLayout.by_language(ranks))
    torch.manual_seed(draw(st.integers(0, 99)))
    sites = draw(
        st.lists(
            st.sampled_from([Site(s, n, p) for s in ("encoder", "decoder") for n in (0, 1) for p in "qv"]),
            min_size=1,
            max_size=3,
            unique=True,
        )
    )
    linears = {}
    for site in sorted(sites):
        linears[site] = LanguageSpecificLinear(nn.Linear(2, draw(st.integers(1, 5))), routing, "src")
        with torch.no_grad():
            values = torch.randn_like(linears[site].lora_B)
            linears[site].lora_B.copy_(values.round() if draw(st.booleans()) else values)
    return linears, tuple(range(len(ranks)))


@examples(100)
@given(adapted(), st.sampled_from(tuple(SCOPES)), st.lists(SHARES, min_size=1, max_size=4).map(sorted))
def test_counts_are_exact_and_what_is_pruned_stays_pruned(case, scope, ratios) -> None:
    linears, languages = case
    groups = group_blocks(linears, {"src": languages}, scope)
    expected: dict = {}
    for site, linear in linears.items():
        for language in languages:
            whose = {"language": language, "layer": site[:2], "matrix": (*site, language)}[scope]
            expected.setdefault(whose, []).append((linear, linear.layout.slice(language)))
    assert [[(block.linear, block.rows) for block in blocks] for blocks in groups] == list(expected.values())
    dead: dict[Site, torch.Tensor] = {site: torch.zeros_like(linear.lora_mask) for site, linear in linears.items()}
    for ratio in ratios:
        alive = {site: linear.lora_B.detach().clone() for site, linear in linears.items()}
        for blocks in groups:
            prune_smallest(blocks, ratio)
            total = sum(block.mask.numel() for block in blocks)
            pruned = sum(int((block.mask == 0).sum()) for block in blocks)
            assert pruned == round(ratio * total)
            kept = [abs(float(v)) for block in blocks for v in block.values[block.mask != 0]]
            lost = [abs(float(v)) for block in blocks for v in block.values[block.mask == 0]]
            assert max(lost, default=0) <= min(kept, default=float("inf"))
        apply_masks(linears.values())
        for site, linear in linears.items():
            assert not (dead[site].bool() & (linear.lora_mask != 0)).any()
            dead[site] = (linear.lora_mask == 0).to(torch.uint8)
            assert torch.equal(linear.lora_B, alive[site].masked_fill(linear.lora_mask == 0, 0))
            with torch.no_grad():  # training moves what lives, also to zero
                linear.lora_B.copy_(torch.randn_like(linear.lora_B).round() * linear.lora_mask)
        zeros = sum(int(mask.sum()) for mask in dead.values())
        assert int(pruned_in_rows(linears.values())["src"].sum()) == zeros


@examples(60)
@given(
    adapted(),
    st.sampled_from(tuple(SCOPES)),
    st.sampled_from(CRITERIA),
    st.sampled_from(["entry of B", "entry of A", "component"]),
    st.lists(SHARES, min_size=1, max_size=3).map(sorted),
)
def test_every_choice_prunes_the_asked_number_of_the_smallest_scores(case, scope, criterion, what, ratios) -> None:
    linears, languages = case
    add_a_masks(linears.values())
    part, unit = ("A" if what == "entry of A" else "B"), ("rank" if what == "component" else "entry")
    score = SCORES[unit][criterion]
    parameters = [parameter for linear in linears.values() for parameter in (linear.lora_A, linear.lora_B)]
    known = Known(7, {}, {parameter: torch.rand_like(parameter) for parameter in parameters})
    groups = group_blocks(linears, {"src": languages}, scope, part)
    for ratio in ratios:
        for blocks in groups:
            before = [block.mask.clone() for block in blocks]
            prune_smallest(blocks, ratio, score, known)
            kept, lost, total = [], [], 0
            for block, old in zip(blocks, before, strict=True):
                scores, mask = score(block, known), block.mask
                assert not ((old == 0) & (mask != 0)).any()
                if unit == "rank":
                    assert torch.equal(mask.amin(1), mask.amax(1))
                    mask, old = mask[:, :1], old[:, :1]
                assert scores.shape == mask.shape
                assert (scores >= 0).all()
                kept += scores[mask != 0].tolist()
                lost += scores[(mask == 0) & (old != 0)].tolist()  # what went before is not compared again
                total += mask.numel()
            assert total - len(kept) == round(ratio * total)
            assert max(lost, default=0) <= min(kept, default=float("inf"))


@examples(80)
@given(st.integers(1, 4), st.integers(1, 6), SHARES, st.randoms(use_true_random=False))
def test_the_place_of_an_entry_does_not_matter(rows, columns, ratio, shuffle) -> None:
    """Values that all differ: an exchange of rows and columns exchanges the masks."""

    def masked(values: torch.Tensor) -> torch.Tensor:
        layer = LanguageSpecificLinear(nn.Linear(2, columns), LanguageRouting(KeyLayout.by_language((rows,))), "src")
        layer.lora_B.data.copy_(values)
        (blocks,) = group_blocks({Site("encoder", 0, "q"): layer}, {"src": (0,)}, "matrix")
        prune_smallest(blocks, ratio)
        return layer.lora_mask

    numbers = list(range(1, rows * columns + 1))
    shuffle.shuffle(numbers)
    values = torch.tensor(numbers, dtype=torch.float32).view(rows, columns)
    values *= torch.tensor([shuffle.choice((-1.0, 1.0)) for _ in numbers]).view(rows, columns)
    by_row, by_column = list(range(rows)), list(range(columns))
    shuffle.shuffle(by_row)
    shuffle.shuffle(by_column)
    assert torch.equal(masked(values[by_row][:, by_column]), masked(values)[by_row][:, by_column])
    assert torch.equal(masked(values), masked(-values))
