"""The schedule against the published figures; the masks against a plain sort of each group."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from langspec_lora.keys import KeyLayout
from langspec_lora.languages import LanguageTable
from langspec_lora.lora import LanguageRouting, LanguageSpecificLinear
from langspec_lora.pruning.callback import DenseTraining, GradualPruning
from langspec_lora.pruning.choices import PruningSettings
from langspec_lora.pruning.schedule import PruningSchedule
from langspec_lora.sites import Site

TABLE = LanguageTable(("en", "nl", "wo"), ("high", "med", "low"), (1, 2, 4))
SCOPES = ("language", "layer", "matrix")
SITES = tuple(Site(*key) for key in itertools.product(("encoder", "decoder"), (0, 1), ("q", "fc1")))


class State(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask_epoch", torch.zeros(1, dtype=torch.int64))


def make(scope: str = "language", schedule: PruningSchedule | None = None, seed: int = 0, **choices):
    torch.manual_seed(seed)
    routing = LanguageRouting(KeyLayout.by_language(TABLE.ranks))
    linears = {
        site: LanguageSpecificLinear(nn.Linear(6, 10 if site.position == "fc1" else 6), routing, "src")
        for site in SITES
    }
    for linear in linears.values():
        nn.init.normal_(linear.lora_B)
    settings = PruningSettings(schedule or PruningSchedule(2, 10, 0.9), scope, **choices)
    pruning = GradualPruning(linears, TABLE, settings, State())
    return linears, pruning


def blocks_of(linears: dict, scope: str) -> list[list[tuple[Site, int, int]]]:
    """The competing B matrices, as (site, first row, end row), spelled out for each scope."""
    rows = [(0, 1), (1, 3), (3, 7)]
    if scope == "language":
        return [[(site, *span) for site in linears] for span in rows]
    if scope == "matrix":
        return [[(site, *span)] for site in linears for span in rows]
    layers = [(stack, layer) for stack in ("encoder", "decoder") for layer in (0, 1)]
    return [[(site, *span) for site in linears if site[:2] == key for span in rows] for key in layers]


def expected_zeros(before: dict[Site, np.ndarray], scope: str, ratio: float) -> dict[Site, np.ndarray]:
    """Where the smallest entries of each group are, by a plain sort."""
    zeros = {site: np.zeros(values.shape, dtype=bool) for site, values in before.items()}
    for group in blocks_of(before, scope):
        entries = [
            (abs(before[site][row, column]), site, row, column)
            for site, start, end in group
            for row in range(start, end)
            for column in range(before[site].shape[1])
        ]
        entries.sort(key=lambda entry: entry[0])
        for _, site, row, column in entries[: round(ratio * len(entries))]:
            zeros[site][row, column] = True
    return zeros


def snapshot(linears: dict) -> dict[Site, np.ndarray]:
    return {site: linear.lora_B.detach().numpy().copy() for site, linear in linears.items()}


def test_schedule_gives_the_published_figures() -> None:
    schedule = PruningSchedule(start=2, length=10, target=0.9)
    published = [0, 0.244, 0.439, 0.591, 0.706, 0.788, 0.842, 0.876, 0.893, 0.899, 0.900]  # epochs 2 to 12
    assert [schedule.ratio(epoch) for epoch in range(2, 13)] == pytest.approx(published, abs=0.000501)
    assert schedule.ratio(1) == 0
    assert schedule.ratio(13) == schedule.ratio(100) == 0.9


@pytest.mark.parametrize("scope", SCOPES)
def test_smallest_entries_of_each_group_are_pruned(scope) -> None:
    linears, pruning = make(scope)
    for epoch in (3, 4, 7, 12):
        before = snapshot(linears)
        pruning.begin_epoch(epoch)
        zeros = expected_zeros(before, scope, 0.9 - 0.9 * (1 - (epoch - 2) / 10) ** 3)
        for site, linear in linears.items():
            assert np.array_equal(linear.lora_B.detach().numpy() == 0, zeros[site])
            assert np.array_equal(linear.lora_mask.numpy() == 0, zeros[site])
            assert np.array_equal(linear.lora_B.detach().numpy()[~zeros[site]], before[site][~zeros[site]])


def test_scopes_prune_different_sets() -> None:
    sets = []
    for scope in SCOPES:
        linears, pruning = make(scope)
        pruning.begin_epoch(5)
        sets.append(torch.cat([linear.lora_mask.flatten() for linear in linears.values()]).tolist())
    assert all(first != second for first, second in itertools.combinations(sets, 2))


def test_pruned_entries_stay_zero_under_adam_and_get_no_gradient() -> None:
    linears, pruning = make()
    parameters = [linear.lora_B for linear in linears.values()]
    optimizer = torch.optim.Adam(parameters, lr=0.1)

    def update() -> None:
        optimizer.zero_grad()
        sum((parameter * torch.randn_like(parameter)).sum() for parameter in parameters).backward()
        optimizer.step()
        pruning.end_update()

    pruning.begin_epoch(1)
    for _ in range(3):
        update()
    pruning.begin_epoch(6)  # now the momentum of the pruned entries is not zero
    pruned = [linear.lora_mask == 0 for linear in linears.values()]
    assert sum(int(mask.sum()) for mask in pruned) > 100
    for _ in range(3):
        update()
        for parameter, mask in zip(parameters, pruned, strict=True):
            assert torch.all(parameter[mask] == 0)
            assert torch.all(parameter[~mask] != 0)
            assert torch.all(parameter.grad[mask] == 0)


def test_pruned_entries_stay_zero_beside_single_precision_master_copies() -> None:
    linears, pruning = make()
    halves = [linear.half().lora_B for linear in linears.values()]
    masters = [half.detach().float() for half in halves]  # as fairseq's FP16Optimizer keeps them
    optimizer = torch.optim.Adam(masters, lr=0.1)
    for epoch in range(1, 9):
        pruning.begin_epoch(epoch)
        for _ in range(2):
            for half, master in zip(halves, masters, strict=True):
                half.grad = None
                (half * torch.randn_like(half)).sum().backward()
                master.grad = half.grad.float()
            optimizer.step()
            with torch.no_grad():
                for half, master in zip(halves, masters, strict=True):
                    half.copy_(master)
            pruning.end_update()
            for linear in linears.values():
                assert torch.equal(linear.lora_B == 0, linear.lora_mask == 0)
    assert sum(int((half == 0).sum()) for half in halves) > 100


def test_pruned_set_only_grows() -> None:
    linears, pruning = make()
    before = {site: torch.zeros_like(linear.lora_mask, dtype=torch.bool) for site, linear in linears.items()}
    for epoch in range(1, 14):
        pruning.begin_epoch(epoch)
        with torch.no_grad():
            for site, linear in linears.items():
                assert torch.all(linear.lora_mask[before[site]] == 0)
                before[site] = linear.lora_mask == 0
                linear.lora_B.add_(torch.randn_like(linear.lora_B))
        pruning.end_update()


def test_masks_hold_through_an_epoch_that_begins_again_after_a_restart() -> None:
    linears, pruning = make()
    pruning.begin_epoch(5)
    masks = {site: (torch.rand(linear.lora_mask.shape) < 0.5).to(torch.uint8) for site, linear in linears.items()}
    with torch.no_grad():
        for site, linear in linears.items():
            linear.lora_mask.copy_(masks[site])  # restored: no share or magnitude would choose these again
            nn.init.normal_(linear.lora_B)
    pruning.begin_epoch(5)
    for site, linear in linears.items():
        assert torch.equal(linear.lora_mask, masks[site])
        assert torch.equal(linear.lora_B == 0, masks[site] == 0)
    pruning.begin_epoch(6)
    assert not all(torch.equal(linear.lora_mask, masks[site]) for site, linear in linears.items())


@pytest.mark.parametrize(
    "value", [0.0, 9.0], ids=["beside zeros that live", "though another program left values there"]
)
def test_what_is_pruned_stays_pruned(value) -> None:
    linears, pruning = make()
    pruning.begin_epoch(5)
    pruned = {site: linear.lora_mask == 0 for site, linear in linears.items()}
    with torch.no_grad():
        for site, linear in linears.items():
            linear.lora_B.zero_()
            linear.lora_B[pruned[site]] = value
    pruning.begin_epoch(6)
    for site, linear in linears.items():
        assert torch.all(linear.lora_mask[pruned[site]] == 0)


def test_new_run_on_pruned_adapters_chooses_its_own_masks() -> None:
    linears, pruning = make(schedule=PruningSchedule(0, 1, 0.5))
    pruning.begin_epoch(1)
    _, new = make(schedule=PruningSchedule(5, 1, 0.5))
    new.linears, new.state = linears, pruning.state
    new._groups = pruning._groups
    new.forget_masks_at_first_epoch()
    new.begin_epoch(1)
    assert all(torch.all(linear.lora_mask == 1) for linear in linears.values())


@pytest.mark.parametrize("trained", [None, {"src": (0, 2), "tgt": (0, 2)}], ids=["all", "some"])
def test_training_without_pruning_lifts_the_masks_of_the_languages_that_train(trained) -> None:
    linears, pruning = make()
    pruning.begin_epoch(12)
    before = {site: linear.lora_mask.clone() for site, linear in linears.items()}
    dense = DenseTraining(linears, pruning.state, trained)
    dense.begin_epoch(1)
    for site, linear in linears.items():
        kept = torch.equal(linear.lora_mask[1:3], before[site][1:3])
        assert kept == (trained is not None)
        lifted = torch.ones_like(linear.lora_mask, dtype=torch.bool)
        lifted[1:3] = trained is None
        assert torch.all(linear.lora_mask[lifted] == 1)
    assert int(pruning.state.mask_epoch) == (0 if trained is None else 12)


def test_ties_are_broken_by_the_order_of_the_sites() -> None:
    linears, pruning = make("layer", PruningSchedule(0, 1, 0.5))
    with torch.no_grad():
        for number, linear in enumerate(linears.values()):
            linear.lora_B.fill_(-3.0 if number % 2 else 3.0)
    pruning.begin_epoch(1)
    for site in SITES:
        # Of the 7 · (6 + 10) entries of a layer the first half: all of q, and of fc1 what is left.
        mask = linears[site].lora_mask.flatten()
        pruned = 42 if site.position == "q" else 14
        assert torch.all(mask[:pruned] == 0)
        assert torch.all(mask[pruned:] == 1)


def test_every_epoch_logs_target_and_actual_share_by_level(caplog: pytest.LogCaptureFixture) -> None:
    linears, pruning = make("layer")
    with caplog.at_level("INFO"):
        pruning.begin_epoch(1)
        pruning.begin_epoch(7)
    first, second = caplog.messages
    assert first == "pruning | epoch 1 | target 0.0000 | pruned all 0.0000, high 0.0000, med 0.0000, low 0.0000"
    shares = []
    for start, end in ((0, 7), (0, 1), (1, 3), (3, 7)):
        values = np.concatenate([linear.lora_B.detach().numpy()[start:end].ravel() for linear in linears.values()])
        shares.append((values == 0).mean())
    target = 0.9 - 0.9 * 0.5**3
    expected = "pruning | epoch 7 | target {:.4f} | pruned all {:.4f}, high {:.4f}, med {:.4f}, low {:.4f}"
    assert second == expected.format(target, *shares)


def test_ties_and_untrained_zeros_prune_exactly_the_asked_count(caplog: pytest.LogCaptureFixture) -> None:
    linears, pruning = make(schedule=PruningSchedule(0, 1, 0.3))
    with torch.no_grad():
        for linear in linears.values():
            linear.lora_B.zero_()
    with caplog.at_level("INFO"):
        pruning.begin_epoch(1)
    assert caplog.messages == [
        "pruning | epoch 1 | target 0.3000 | pruned all {:.4f}, high {:.4f}, med {:.4f}, low {:.4f}".format(
            *(sum(round(0.3 * size) for size in sizes) / sum(sizes) for sizes in ([64, 128, 256], [64], [128], [256]))
        )
    ]
    for language, (start, end) in enumerate([(0, 1), (1, 3), (3, 7)]):
        masks = torch.cat([linear.lora_mask[start:end].flatten() for linear in linears.values()])
        assert int((masks == 0).sum()) == round(0.3 * masks.numel()), language
