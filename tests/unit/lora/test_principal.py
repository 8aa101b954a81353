"""The principal start of A, held against numpy's singular value decomposition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from langspec_lora.lora import draw_a, set_principal
from langspec_lora.lora.principal import principal_directions

SHAPES = {"square": (12, 12), "tall": (30, 12), "wide": (12, 30)}


def weight_of(shape: tuple[int, int]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("part", [None, slice(2, 9)], ids=["whole", "slice"])
def test_each_adapter_gets_the_first_right_singular_vectors_of_what_it_reads(shape, part) -> None:
    weight, ranks = weight_of(shape), (2, 5, 1)
    read = weight.numpy() if part is None else weight.numpy()[:, part]
    vectors = np.linalg.svd(read.astype(np.float64))[2]
    width = read.shape[1]
    a = torch.full((sum(ranks), width), 7.0)
    set_principal(a, weight, ranks, part)
    for rank, own in zip(ranks, a.split(ranks), strict=True):
        unit = own.double().numpy() * np.sqrt(3 * rank / width)
        np.testing.assert_allclose(np.abs((unit * vectors[:rank]).sum(1)), 1, rtol=1e-5)  # up to the sign
        np.testing.assert_allclose(unit @ unit.T, np.eye(rank), atol=1e-5)
    assert torch.allclose(a[0] * np.sqrt(2), a[2] * np.sqrt(5))  # the first row of both languages, sign and all


def test_it_is_as_large_as_the_default_start_in_expectation() -> None:
    drawn, principal = torch.empty(6, 4000), torch.empty(6, 4000)
    draw_a(drawn, "rank", torch.Generator().manual_seed(1))
    set_principal(principal, weight_of((8, 4000)), (6,))
    assert float(principal.norm()) == pytest.approx(float(drawn.norm()), rel=0.02)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_rows_beyond_the_rank_of_the_weight_stay_as_they_were_drawn(shape) -> None:
    weight = weight_of((shape[0], 3)) @ weight_of((3, shape[1]))
    assert len(principal_directions(weight, 9)) == 3
    a = torch.full((5, shape[1]), 7.0)
    set_principal(a, weight, (5,))
    assert (a[3:] == 7).all()
    assert not (a[:3] == 7).any()
    set_principal(a, torch.zeros(shape), (5,))  # no direction at all
    assert (a[3:] == 7).all()


def test_directions_depend_on_nothing_random_and_not_on_the_sign_of_the_weight() -> None:
    weight = weight_of((9, 14))
    state = torch.get_rng_state()
    own = principal_directions(weight, 4)
    assert torch.equal(state, torch.get_rng_state())
    torch.testing.assert_close(principal_directions(-weight, 4), own)
    torch.testing.assert_close(principal_directions(weight.flip(0), 4), own)
