"""The mean of adapters, held against a loop over their entries."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from langspec_lora.checkpoints.adapters import Adapters
from langspec_lora.checkpoints.averaging import average
from langspec_lora.errors import UserError
from langspec_lora.languages import LanguageTable
from tests.unit.test_adapter_file import make

NAMES = ("first", "second", "third")


def sets() -> list[Adapters]:
    """Adapters of three epochs, each with entries of its own pruned."""
    first = make(0.3).adapters
    torch.manual_seed(8)
    later = []
    for epoch in (9, 8):
        pairs = {}
        for place, (a, b, mask) in first.pairs.items():
            lives = (torch.rand(b.shape) >= 0.3).to(mask.dtype)
            pairs[place] = first.pairs[place]._replace(a=a + epoch, b=torch.randn(b.shape) * lives, mask=lives)
        later.append(replace(first, pairs=pairs, mask_epoch=epoch))
    return [first, *later]


def test_every_entry_is_the_mean_and_pruned_where_one_is() -> None:
    held = sets()
    mean = average(held, NAMES)
    assert (mean.languages, mean.directions, mean.mask_epoch) == (held[0].languages, held[0].directions, 9)
    assert list(mean.pairs) == list(held[0].pairs)
    for place, (a, b, mask) in mean.pairs.items():
        assert a.dtype == torch.float32
        for row in range(b.size(0)):
            for column in range(b.size(1)):
                lives = all(int(one.pairs[place].mask[row, column]) for one in held)
                value = sum(float(one.pairs[place].b[row, column]) for one in held) / 3 if lives else 0.0
                assert int(mask[row, column]) == lives
                assert float(b[row, column]) == pytest.approx(value, abs=1e-6)
        assert torch.allclose(a, sum(one.pairs[place].a for one in held) / 3)


@pytest.mark.parametrize(
    "languages",
    [LanguageTable(("en", "fr", "wo"), ("high", "med", "low"), (2, 1, 4)), None],
)
def test_adapters_of_other_languages_or_ranks_are_refused_by_name(languages) -> None:
    held = sets()
    languages = languages or replace(held[0].languages, ranks=(1, 2, 4))
    held[2] = replace(held[2], languages=languages)
    with pytest.raises(UserError, match=r"third has pairs for en, .* of ranks .*, and first for en, ଓଡ଼ିଆ, wo of ranks"):
        average(held, NAMES)


def test_adapters_of_another_slice_are_refused_wherever_they_stand() -> None:
    for number in (1, 2):
        held = sets()
        held[number] = replace(held[number], start=3)
        with pytest.raises(UserError, match=NAMES[number]):
            average(held, NAMES)
