"""Subspaces: languages whose changes have known ranks are ranked rightly; every figure equals a plain loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from langspec_lora.adapters.packed import Adapters, PackedMatrices
from langspec_lora.adapters.subspaces import effective_ranks, measure
from langspec_lora.keys import PackedLayout
from langspec_lora.languages import LanguageTable
from langspec_lora.lora import inject, mark_trainable
from langspec_lora.pruning.callback import GradualPruning
from langspec_lora.pruning.choices import PruningSettings
from langspec_lora.pruning.schedule import PruningSchedule
from langspec_lora.report.rank_correlation import spearman
from langspec_lora.sites import Site
from tests.unit.adapters.test_adapter_folder import LANGUAGES, make

WIDTH, RANK = 24, 8
CHANGES = {"four": 4, "one": 1, "eight": 8, "two": 2}
"""The rank of the change that each language needs."""


class Layer(nn.Module):
    """Two linears on the same input; that of fc1 is to change by the ranks of ``CHANGES``, that of q by 1."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.q = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.register_buffer("mask_epoch", torch.zeros(1, dtype=torch.int64))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.fc1(x), self.q(x)


def change(rank: int) -> Tensor:
    """A change of a weight with ``rank`` singular values of 1, all others 0."""
    orthogonal = [torch.linalg.qr(torch.randn(WIDTH, rank)).Q for _ in range(2)]
    return orthogonal[0] @ orthogonal[1].T


def trained(seed: int, pruned: float = 0.9) -> Adapters:
    """Adapters of equal rank, trained towards changes of different ranks, and pruned while training."""
    torch.manual_seed(seed)
    model = Layer()
    wanted = {
        "fc1": torch.stack([model.fc1.weight.data + change(rank) for rank in CHANGES.values()]),
        "q": torch.stack([model.q.weight.data + change(1) for _ in CHANGES]),
    }  # (languages, out, in)
    routing = inject(model, {"fc1": "src", "q": "src"}, [RANK] * len(CHANGES), init="standard")
    mark_trainable(model)
    languages = LanguageTable(tuple(CHANGES), ("high",) * len(CHANGES), (RANK,) * len(CHANGES))
    linears = {Site("encoder", 0, "fc1"): model.fc1, Site("encoder", 0, "q"): model.q}
    pruning = GradualPruning(linears, languages, PruningSettings(PruningSchedule(3, 6, pruned), "layer"), model)
    optimizer = torch.optim.Adam([value for value in model.parameters() if value.requires_grad], lr=0.01)
    ids = torch.arange(len(CHANGES))
    for epoch in range(1, 11):
        pruning.begin_epoch(epoch)
        for _ in range(20):
            x = torch.randn(16, len(CHANGES), WIDTH)
            routing.set_batch(ids, ids)
            loss = torch.zeros(())
            for found, (name, weight) in zip(model(x), wanted.items(), strict=True):
                right = torch.einsum("loi,tli->tlo", weight, x) + getattr(model, name).bias
                loss = loss + (found - right).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            pruning.end_update()
    packed = {
        site: PackedMatrices(linear.lora_A.data, linear.lora_B.data, linear.lora_mask)
        for site, linear in linears.items()
    }
    return Adapters(languages, {"encoder": ("src",), "decoder": ()}, 0, 0, packed, int(model.mask_epoch))


@pytest.fixture(scope="module")
def sets() -> list[Adapters]:
    return [trained(seed) for seed in (1, 2)]


def test_what_survives_ranks_languages_by_the_rank_that_they_need(sets) -> None:
    subspaces = measure(sets)
    members = subspaces.groups(lambda cell: cell.key)
    for number in range(len(sets)):
        shares = {key: subspaces.surviving(cells)[number] for key, cells in members.items()}
        assert sorted(shares, key=shares.__getitem__) == ["one", "two", "four", "eight"]
        assert shares["eight"] > 1.2 * shares["four"]
        assert shares["four"] > 1.2 * shares["two"]
        demands = [subspaces.demand(members[key])[number] for key in ("one", "two", "four", "eight")]
        assert demands == sorted(demands)
        assert demands[0] < 0 < demands[-1]
    first, second = (np.array([subspaces.surviving(cells)[n] for cells in members.values()]) for n in (0, 1))
    assert spearman(first, second) == 1


def test_what_survives_tells_the_position_that_matters(sets) -> None:
    subspaces = measure(sets)
    fc1, q = (subspaces.surviving(cells) for cells in subspaces.groups(lambda cell: cell.site.position).values())
    assert (fc1 > 2 * q).all()


def test_effective_ranks_are_those_of_the_changes(sets) -> None:
    for adapters in sets:
        for position, wanted in (("fc1", list(CHANGES.values())), ("q", [1, 1, 1, 1])):
            found = effective_ranks(adapters, Site("encoder", 0, position))
            assert found == pytest.approx(wanted, rel=0.25)


def test_only_what_competed_differs_by_need_and_the_rest_is_equal_by_rule(sets) -> None:
    subspaces = measure(sets)
    assert subspaces.is_equal_by_rule(lambda cell: cell.site[:2])
    assert not subspaces.is_equal_by_rule(lambda cell: cell.key)
    assert not subspaces.is_equal_by_rule(lambda cell: cell.site.position)


@pytest.mark.parametrize("equal", ["key", "site"])
def test_equal_by_rule_is_told_from_nearly_equal(equal) -> None:
    """Each group keeps a whole number of entries nearest to a tenth; one entry more in one of them is no rule."""
    adapters = make(0.0).adapters
    subspaces = measure([adapters])
    groups = list(subspaces.groups(lambda cell: getattr(cell, equal)).values())
    living = subspaces.living.copy()
    for cells in groups:
        left = round(0.1 * subspaces.prunable[cells].sum())
        for cell in cells:
            living[0, cell] = min(left, subspaces.prunable[cell])
            left -= living[0, cell]
    ruled = replace(subspaces, living=living)
    assert ruled.is_equal_by_rule(lambda cell: getattr(cell, equal))
    more = living.copy()
    more[0, next(cell for cell in groups[-1] if living[0, cell] < subspaces.prunable[cell])] += 2
    assert not replace(subspaces, living=more).is_equal_by_rule(lambda cell: getattr(cell, equal))


def plain_effective_rank(weight: Tensor) -> float:
    """Roy & Vetterli's definition, one term after the other."""
    values = np.linalg.svd(weight.double().numpy(), compute_uv=False)
    if not values.sum():
        return 0.0
    entropy = 0.0
    for share in values / values.sum():
        entropy -= share * np.log(share) if share > 0 else 0.0
    return float(np.exp(entropy))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_figure_equals_a_plain_loop(dtype, monkeypatch) -> None:
    monkeypatch.setattr("langspec_lora.adapters.subspaces._BATCH", 100)  # so that languages of a rank are divided
    adapters = make(0.8, dtype).adapters
    site = Site("decoder", 1, "fc1")
    adapters.packed[site].b[2] = 0  # a language of rank 1 that is zero, and a language that lost one of its rows
    adapters.packed[site].mask[3] = 0
    adapters.packed[site].b[3] = 0
    subspaces = measure([adapters])
    layers = {site: PackedLayout(LANGUAGES.ranks) for site in adapters.packed}
    share_of: Mapping[tuple, float] = {}
    for number, cell in enumerate(subspaces.cells):
        key = LANGUAGES.names.index(cell.key)
        rows = layers[cell.site].slice(key)
        a, b, mask = (matrix[rows] for matrix in adapters.packed[cell.site])
        lives = [[bool(entry) for entry in row] for row in mask.tolist()]
        assert subspaces.living[0, number] == sum(map(sum, lives))
        assert subspaces.rows[0, number] == sum(map(any, lives))
        assert subspaces.prunable[number] == LANGUAGES.ranks[key] * b.size(1)
        assert subspaces.ranks[number] == LANGUAGES.ranks[key]
        expected = plain_effective_rank(b.double().T @ a.double())
        assert subspaces.effective[0, number] == pytest.approx(expected, rel=1e-6, abs=1e-9)
        share_of[cell.key, cell.site[:2]] = sum(map(sum, lives)) / mask.numel()
    assert not subspaces.effective.all()
    for key, cells in subspaces.groups(lambda cell: cell.key).items():
        differences = []
        for layer in (("encoder", 0), ("decoder", 1)):
            whole = next(packed.mask for site, packed in adapters.packed.items() if site[:2] == layer)
            differences.append(share_of[key, layer] - int(whole.sum()) / whole.numel())
        assert subspaces.demand(cells)[0] == pytest.approx(sum(differences) / 2)


def test_the_largest_rank_is_that_of_the_matrix() -> None:
    torch.manual_seed(1)
    languages = LanguageTable(("en",), ("high",), (6,))
    matrices = PackedMatrices(torch.randn(6, 4), torch.randn(6, 3), torch.ones(6, 3, dtype=torch.uint8))
    adapters = Adapters(languages, {"encoder": ("src",), "decoder": ()}, 0, 0, {Site("encoder", 0, "q"): matrices}, 0)
    assert (measure([adapters]).largest, measure([adapters]).ranks) == ([3], [6])
    expected = plain_effective_rank(matrices.b.T @ matrices.a)
    assert effective_ranks(adapters, Site("encoder", 0, "q")) == pytest.approx([expected], rel=1e-6)


def test_keys_that_did_not_train_are_left_out_of_every_figure() -> None:
    adapters = make(0.5).adapters
    all_of, some = measure([adapters]), measure([adapters], {("src", "en"), ("tgt", "en")})
    kept = [number for number, cell in enumerate(all_of.cells) if cell.key != "en"]
    assert [cell.key for cell in some.cells] == [all_of.cells[number].key for number in kept]
    for name, axis in product(("living", "rows", "effective"), (1,)):
        assert np.array_equal(getattr(some, name), getattr(all_of, name).take(kept, axis))
    assert some.surviving()[0] == all_of.living[0, kept].sum() / all_of.prunable[kept].sum()
