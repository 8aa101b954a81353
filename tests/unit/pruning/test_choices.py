"""Criteria, targets and units of pruning against plain loops over single entries."""

from __future__ import annotations

import math
from itertools import pairwise, product

import pytest
import torch

from langspec_lora.pruning.callback import DenseTraining, GradualPruning
from langspec_lora.pruning.choices import PruningSettings
from langspec_lora.pruning.schedule import PruningSchedule
from tests.unit.pruning.test_pruning import SCOPES, SITES, TABLE, State, blocks_of, make

HALF = PruningSchedule(0, 1, 0.5)


def squares_of(linears: dict, seed: int = 3) -> dict:
    """A mean square of the gradient for each entry."""
    draw = torch.Generator().manual_seed(seed)
    parameters = [parameter for linear in linears.values() for parameter in (linear.lora_A, linear.lora_B)]
    return {parameter: torch.rand(parameter.shape, generator=draw) for parameter in parameters}


def parts(linears: dict, site) -> dict[str, list]:
    return {part: getattr(linears[site], f"lora_{part}").tolist() for part in "AB"}


def smallest(scores: dict, share: float) -> set:
    ordered = sorted(scores, key=scores.__getitem__)
    return set(ordered[: round(share * len(ordered))])


def chosen(pruning: GradualPruning, squares: dict, epoch: int = 1) -> None:
    pruning._squares = lambda optimizer: squares
    pruning.begin_epoch(epoch)
    pruning.begin_batch(None)


@pytest.mark.parametrize(("scope", "target"), product(SCOPES, ("b", "ab")))
def test_first_order_prunes_the_entries_of_smallest_weight_times_gradient(scope, target) -> None:
    linears, pruning = make(scope, HALF, criterion="first-order", target=target)
    values, squares = {site: parts(linears, site) for site in SITES}, squares_of(linears)
    gradients = {
        (site, part): squares[getattr(linears[site], f"lora_{part}")].tolist() for site in SITES for part in "AB"
    }
    chosen(pruning, squares)
    for part in target.upper():
        expected = set()
        for group in blocks_of(linears, scope):
            scores = {
                (site, row, column): abs(value) * math.sqrt(gradients[site, part][row][column])
                for site, start, end in group
                for row in range(start, end)
                for column, value in enumerate(values[site][part][row])
            }
            expected |= smallest(scores, 0.5)
        zeros = {
            (site, row, column)
            for site in SITES
            for row, column in (getattr(linears[site], f"lora_{part}") == 0).nonzero().tolist()
        }
        assert zeros == expected
    if target == "b":
        assert all((linear.lora_A != 0).all() for linear in linears.values())


@pytest.mark.parametrize(("scope", "criterion"), product(SCOPES, ("magnitude", "first-order")))
def test_whole_components_of_smallest_score_are_pruned(scope, criterion) -> None:
    linears, pruning = make(scope, HALF, criterion=criterion, unit="rank")
    values, squares = {site: parts(linears, site) for site in SITES}, squares_of(linears)
    gradients = {site: squares[linears[site].lora_B].tolist() for site in SITES}
    chosen(pruning, squares)
    expected = set()
    for group in blocks_of(linears, scope):
        scores = {}
        for site, start, end in group:
            for row in range(start, end):
                a, b = values[site]["A"][row], values[site]["B"][row]
                if criterion == "magnitude":  # the norm of the matrix that the component adds
                    scores[site, row] = math.sqrt(sum((x * y) ** 2 for x in a for y in b))
                else:
                    scores[site, row] = sum(abs(y) * math.sqrt(g) for y, g in zip(b, gradients[site][row], strict=True))
        expected |= smallest(scores, 0.5)
    for site in SITES:
        for row in range(7):
            pruned = (site, row) in expected
            assert linears[site].lora_B[row].tolist() == (
                [0.0] * len(values[site]["B"][row]) if pruned else values[site]["B"][row]
            )
            assert set(linears[site].lora_mask[row].tolist()) == ({0} if pruned else {1})
        assert linears[site].lora_A.tolist() == values[site]["A"]


def masks(linears: dict) -> torch.Tensor:
    return torch.cat([linear.lora_mask.flatten() for linear in linears.values()])


@pytest.mark.parametrize("unit", ["entry", "rank"])
def test_random_masks_know_nothing_of_the_values_grow_with_the_epochs_and_are_the_same_in_every_process(unit) -> None:
    schedule, found = PruningSchedule(0, 4, 0.8), []
    for values, seed in ((0, 1), (1, 1), (0, 2)):
        linears, _ = make("layer", schedule, seed=values)
        settings = PruningSettings(schedule, "layer", "random", unit=unit)
        pruning, own = GradualPruning(linears, TABLE, settings, State(), seed=seed), []
        for epoch in (1, 2, 4):
            pruning.begin_epoch(epoch)
            own.append(masks(linears).clone())
            for linear in linears.values():
                torch.nn.init.normal_(linear.lora_B)
        assert all(((after == 0) | (before == 1)).all() for before, after in pairwise(own))
        found.append(own)
    assert all(map(torch.equal, found[0], found[1]))
    assert not torch.equal(found[0][0], found[2][0])
    resumed, pruning = make("layer", schedule, criterion="random", unit=unit)
    pruning.begin_epoch(4)  # what was pruned before may be read from a checkpoint, or not be pruned yet
    assert torch.equal(masks(resumed), found[0][2])


def test_random_masks_favour_no_entry() -> None:
    counts = torch.zeros(len(masks(make()[0])))
    for seed in range(60):
        linears, _ = make()
        settings = PruningSettings(PruningSchedule(0, 1, 0.5), "matrix", "random")
        GradualPruning(linears, TABLE, settings, State(), seed=seed).begin_epoch(1)
        counts += masks(linears) == 0
    assert counts.min() > 30 - 5 * 3.9  # five standard deviations of 60 tosses
    assert counts.max() < 30 + 5 * 3.9


def test_without_an_update_magnitude_stands_in_for_the_gradient_and_the_log_says_so(caplog) -> None:
    linears, pruning = make("layer", HALF, criterion="first-order")
    plain, by_magnitude = make("layer", HALF)
    by_magnitude.begin_epoch(1)
    with caplog.at_level("INFO"):
        chosen(pruning, None)
    assert torch.equal(masks(linears), masks(plain))
    assert "pruning | epoch 1 | no gradients are known before the first update: by magnitude" in caplog.text


def adam_update(optimizer, linears: dict, draw: torch.Generator) -> None:
    optimizer.zero_grad()
    parameters = [parameter for linear in linears.values() for parameter in (linear.lora_A, linear.lora_B)]
    sum((parameter * torch.randn(parameter.shape, generator=draw)).sum() for parameter in parameters).backward()
    optimizer.step()


@pytest.mark.parametrize("restart", [False, True], ids=["", "restarted in every epoch"])
def test_pruned_entries_of_a_stay_zero_and_get_no_gradient(restart) -> None:
    linears, pruning = make("language", PruningSchedule(1, 3, 0.7), target="ab")
    optimizer = torch.optim.AdamW([p for x in linears.values() for p in (x.lora_A, x.lora_B)], lr=0.1, weight_decay=0.1)
    draw = torch.Generator().manual_seed(0)
    for epoch in (1, 2, 3, 4, 5):
        pruning.begin_epoch(epoch)
        pruned = {site: linear.lora_A == 0 for site, linear in linears.items()}
        for update in range(3):
            if restart and update == 1:  # the masks of A are not in a checkpoint
                state = pruning.state
                for linear in linears.values():
                    del linear.lora_A_mask
                    linear.lora_A._backward_hooks.clear()
                pruning = GradualPruning(linears, TABLE, pruning.settings, state)
                pruning.begin_epoch(epoch)
            adam_update(optimizer, linears, draw)
            pruning.end_update()
            for site, linear in linears.items():
                assert torch.equal(linear.lora_A == 0, pruned[site])
                assert torch.all(linear.lora_A.grad[pruned[site]] == 0)
                assert torch.equal(linear.lora_B == 0, linear.lora_mask == 0)
    for start, end in ((0, 1), (1, 3), (3, 7)):
        zeros = torch.cat([(linear.lora_A[start:end] == 0).flatten() for linear in linears.values()])
        assert int(zeros.sum()) == round(0.7 * len(zeros))


def test_entries_of_a_that_a_new_run_does_not_prune_train_again_while_adapters_that_rest_wait() -> None:
    linears, pruning = make(schedule=HALF, target="ab")
    pruning.begin_epoch(1)
    zeros = {site: linear.lora_A.detach() == 0 for site, linear in linears.items()}
    new = GradualPruning(linears, TABLE, PruningSettings(PruningSchedule(5, 1, 0.5), "language", target="ab"), State())
    new.forget_masks_at_first_epoch()
    new.begin_epoch(1)
    for site, linear in linears.items():
        assert torch.equal(linear.lora_A == 2.0**-24, zeros[site])  # no number that a computation would notice
    again = GradualPruning(linears, TABLE, new.settings, new.state)
    again.begin_epoch(1)  # resumed: entries that live are not taken for pruned ones
    assert all((linear.lora_A != 0).all() for linear in linears.values())


def test_the_log_says_what_is_left_of_a_and_of_components(caplog) -> None:
    with caplog.at_level("INFO"):
        make(schedule=HALF, target="ab")[1].begin_epoch(1)
        make("matrix", HALF, unit="rank")[1].begin_epoch(1)
    assert caplog.messages == [
        "pruning | epoch 1 | target 0.5000 | pruned all 0.5000, high 0.5000, med 0.5000, low 0.5000, of A 0.5000",
        # half of 1 is rounded to 0
        "pruning | epoch 1 | target 0.5000 | pruned all 0.4286, high 0.0000, med 0.5000, low 0.5000 of components",
    ]


@pytest.mark.parametrize("trained", [None, {"src": (0, 2), "tgt": (0, 2)}], ids=["all", "some"])
@pytest.mark.parametrize("prunes", [False, True])
def test_components_without_an_entry_are_drawn_anew_where_they_train(trained, prunes) -> None:
    """Each of A and B gets its gradient through the other, so both would stay zero for ever."""
    linears, _ = make()
    dead = (0, 2, 5)  # of en, nl and wo
    with torch.no_grad():
        for linear in linears.values():
            linear.lora_B[torch.tensor([*dead, 6])] = 0  # the last has an A, so it can train
            linear.lora_A[torch.tensor([*dead, 4])] = 0  # and this a B
    before = {site: parts(linears, site) for site in SITES}
    found = []
    for _ in range(2):
        for site, linear in linears.items():
            linear.lora_A.data = torch.tensor(before[site]["A"])
        hook = DenseTraining(linears, State(), trained, seed=4)
        if prunes:
            settings = PruningSettings(PruningSchedule(9, 1, 0.5), "layer")
            hook = GradualPruning(linears, TABLE, settings, State(), trained)
            hook.forget_masks_at_first_epoch()
        hook.begin_epoch(1)
        found.append({site: parts(linears, site) for site in SITES})
    assert found[0] == found[1]  # so all processes draw the same
    for site in SITES:
        assert found[0][site]["B"] == before[site]["B"]
        for row in range(7):
            changed = found[0][site]["A"][row] != before[site]["A"][row]
            assert changed == (row in dead and not (trained and row == 2))
        rank = {0: 1, 5: 4}
        for row, own in rank.items():
            drawn = found[0][site]["A"][row]
            assert len(set(drawn)) == 6
            assert max(map(abs, drawn)) <= 1 / math.sqrt(own)
