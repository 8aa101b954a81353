"""The mean of adapters, held against a loop over their entries."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from langspec_lora.adapters.averaging import average
from langspec_lora.adapters.packed import Adapters
from langspec_lora.errors import UserError
from langspec_lora.languages import LanguageTable
from tests.unit.adapters.test_adapter_folder import make

NAMES = ("first", "second", "third")


def sets() -> list[Adapters]:
    """Adapters of three epochs, each with entries of its own pruned."""
    first = make(0.3).adapters
    torch.manual_seed(8)
    later = []
    for epoch in (9, 8):
        matrices = {}
        for site, (a, b, mask) in first.packed.items():
            lives = (torch.rand(b.shape) >= 0.3).to(mask.dtype)
            matrices[site] = first.packed[site]._replace(a=a + epoch, b=torch.randn(b.shape) * lives, mask=lives)
        later.append(replace(first, packed=matrices, mask_epoch=epoch))
    return [first, *later]


def test_every_entry_is_the_mean_and_pruned_where_one_is() -> None:
    held = sets()
    mean = average(held, NAMES)
    assert (mean.languages, mean.sides, mean.mask_epoch) == (held[0].languages, held[0].sides, 9)
    assert list(mean.packed) == list(held[0].packed)
    for site, (a, b, mask) in mean.packed.items():
        assert a.dtype == torch.float32
        for row in range(b.size(0)):
            for column in range(b.size(1)):
                lives = all(int(one.packed[site].mask[row, column]) for one in held)
                value = sum(float(one.packed[site].b[row, column]) for one in held) / 3 if lives else 0.0
                assert int(mask[row, column]) == lives
                assert float(b[row, column]) == pytest.approx(value, abs=1e-6)
        assert torch.allclose(a, sum(one.packed[site].a for one in held) / 3)


def test_an_entry_of_a_that_is_pruned_in_one_is_pruned_in_the_mean() -> None:
    held = sets()
    for number, one in enumerate(held):
        for site in one.packed:
            one.packed[site].a[number, number + 1] = 0
    mean = average(held, NAMES)
    for site in mean.packed:
        zeros = (mean.packed[site].a == 0).nonzero().tolist()
        assert zeros == [[number, number + 1] for number in range(3)]


@pytest.mark.parametrize(
    "languages",
    [LanguageTable(("en", "fr", "wo"), ("high", "med", "low"), (2, 1, 4)), None],
)
def test_adapters_of_other_languages_or_ranks_are_refused_by_name(languages) -> None:
    held = sets()
    languages = languages or replace(held[0].languages, ranks=(1, 2, 4))
    held[2] = replace(held[2], languages=languages)
    with pytest.raises(
        UserError, match=r"third has adapters for en, .* of ranks .*, and first for en, ଓଡ଼ିଆ, wo of ranks"
    ):
        average(held, NAMES)


def test_adapters_of_another_slice_are_refused_wherever_they_stand() -> None:
    for number in (1, 2):
        held = sets()
        held[number] = replace(held[number], start=3)
        with pytest.raises(UserError, match=NAMES[number]):
            average(held, NAMES)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mean_of_half_precision_is_rounded_once(dtype) -> None:
    held = [one.adapters for one in (make(0, dtype), make(0, dtype), make(0, dtype))]
    site = next(iter(held[0].packed))
    shifted = {site: held[1].packed[site]._replace(a=held[1].packed[site].a + 0.3, b=held[1].packed[site].b * 1.7)}
    held[1] = replace(held[1], packed={**held[1].packed, **shifted})
    mean = average(held, NAMES).packed[site]
    for part in ("a", "b"):
        values = [getattr(one.packed[site], part).double() for one in held]
        assert torch.equal(getattr(mean, part), ((values[0] + values[1] + values[2]) / 3).to(dtype))


def test_masks_stay_whole_numbers_and_what_is_pruned_is_plus_zero() -> None:
    held = sets()
    site = next(iter(held[0].packed))
    minus = held[0].packed[site]._replace(b=-held[0].packed[site].b.abs())
    mean = average([replace(held[0], packed={**held[0].packed, site: minus}), *held[1:]], NAMES).packed[site]
    assert mean.mask.dtype == torch.uint8
    pruned = mean.b[mean.mask == 0]
    assert not pruned.any()
    assert not torch.signbit(pruned).any()


def test_one_checkpoint_is_its_own_mean() -> None:
    only = make(0.5).adapters
    mean = average([only], ["only"])
    assert mean.mask_epoch == only.mask_epoch
    for site, packed in mean.packed.items():
        assert all(map(torch.equal, packed, only.packed[site]))


def test_languages_and_ranks_of_both_are_named() -> None:
    held = sets()
    held[1] = replace(held[1], languages=LanguageTable(("wo", "fr"), ("low", "high"), (3, 4)))
    with pytest.raises(UserError) as refusal:
        average(held, NAMES)
    assert str(refusal.value) == (
        "second has adapters for wo, fr of ranks 3/4, and first for en, ଓଡ଼ିଆ, wo of ranks 2/1/4; average checkpoints of "
        "one training"
    )
    levels = replace(held[0].languages, levels=("low", "low", "low"))  # which decide nothing of the values
    average([held[0], replace(held[2], languages=levels)], NAMES[:2])
