"""Languages that join, leave and come together, as plain data; see ``test_languages_join.py`` for the commands."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from langspec_lora.adapters.edit import add_languages, check_alike, join, remove_languages, select_languages
from langspec_lora.adapters.packed import Adapters, PackedMatrices
from langspec_lora.errors import UserError
from langspec_lora.languages import LanguageTable
from langspec_lora.lora import draw_a
from langspec_lora.sites import Site
from tests.unit.adapters.test_adapter_folder import LANGUAGES, make

ROWS = {"en": [0, 1], "ଓଡ଼ିଆ": [2], "wo": [3, 4, 5, 6]}  # ranks 2, 1, 4
NEW = LanguageTable(("fr", "xh"), ("high", "low"), (2, 3))
FC1 = Site("decoder", 1, "fc1")


def taken(adapters: Adapters, rows: list[int]) -> dict[Site, list[torch.Tensor]]:
    return {site: [value[rows] for value in packed] for site, packed in adapters.packed.items()}


def same(adapters: Adapters, expected: dict[Site, list[torch.Tensor]]) -> bool:
    assert adapters.packed.keys() == expected.keys()
    return all(
        one.dtype == other.dtype and torch.equal(one, other)
        for site, packed in adapters.packed.items()
        for one, other in zip(packed, expected[site], strict=True)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_added_adapters_come_last_and_have_no_effect(dtype) -> None:
    old = make(0.5, dtype).adapters
    grown = add_languages(old, NEW, "rank", seed=3)
    assert grown.languages == LanguageTable(
        ("en", "ଓଡ଼ିଆ", "wo", "fr", "xh"), ("high", "med", "low", "high", "low"), (2, 1, 4, 2, 3)
    )
    assert same(replace(grown, packed={site: PackedMatrices(*(value[:7] for value in packed))
                                      for site, packed in grown.packed.items()}), taken(old, [*range(7)]))  # fmt: skip
    generator = torch.Generator().manual_seed(3)
    for site, (a, b, mask) in grown.packed.items():
        assert (a.dtype, b.dtype, mask.dtype) == (dtype, dtype, torch.uint8)
        drawn = torch.empty(2, a.size(1)), torch.empty(3, a.size(1))
        for own in drawn:
            draw_a(own, "rank", generator)
        assert torch.equal(a[7:], torch.cat(drawn).to(dtype)), site
        assert b[7:].shape == mask[7:].shape == (5, b.size(1))
        assert not b[7:].any()
        assert (mask[7:] == 1).all()
    assert (grown.mask_epoch, grown.sides) == (old.mask_epoch, old.sides)


def test_languages_that_cannot_join_are_named() -> None:
    adapters = make(0).adapters
    there = LanguageTable(("fr", "wo", "en"), ("high", "low", "low"), (2, 3, 3))
    with pytest.raises(
        UserError, match=r"^--langs names wo, which already has adapters, like en, ଓଡ଼ିଆ, wo; name only new"
    ):
        add_languages(adapters, there, "rank", 1)
    add_languages(adapters, replace(NEW, ranks=(2, 23)), "rank", 1)  # the widest layer has 23 features
    with pytest.raises(UserError, match="rank 24 of xh exceeds 23"):
        add_languages(adapters, replace(NEW, ranks=(2, 24)), "rank", 1)
    for seed in (-1, 2**63):
        with pytest.raises(UserError, match=f"^--seed {seed}: expected a number from 0 to {2**63 - 1}"):
            add_languages(adapters, NEW, "rank", seed)
    for seed in (0, 2**63 - 1):
        add_languages(adapters, NEW, "rank", seed)


def test_rank_may_be_as_great_as_the_input_is_wide() -> None:
    adapters = make(0).adapters
    narrow = replace(adapters, packed={FC1: PackedMatrices(*(value[:, :5] for value in adapters.packed[FC1]))})
    narrow = replace(narrow, packed={FC1: narrow.packed[FC1]._replace(a=adapters.packed[FC1].a)})
    add_languages(narrow, replace(NEW, ranks=(2, 10)), "rank", 1)
    with pytest.raises(UserError, match="rank 11 of xh exceeds 10"):
        add_languages(narrow, replace(NEW, ranks=(2, 11)), "rank", 1)


def test_languages_are_selected_in_the_order_given() -> None:
    old = make(0.5).adapters
    held = select_languages(old, ["wo", "en"])
    assert held.languages == LanguageTable(("wo", "en"), ("low", "high"), (4, 2))
    assert same(held, taken(old, [*ROWS["wo"], *ROWS["en"]]))
    assert held.mask_epoch == old.mask_epoch


def test_languages_leave_and_one_stays() -> None:
    old = make(0.5).adapters
    held = remove_languages(old, ["en", "wo"])
    assert held.languages == LanguageTable(("ଓଡ଼ିଆ",), ("med",), (1,))
    assert same(held, taken(old, ROWS["ଓଡ଼ିଆ"]))
    with pytest.raises(UserError, match="unknown language 'fr'"):
        remove_languages(old, ["en", "fr"])
    with pytest.raises(UserError, match=r"^--langs wo,ଓଡ଼ିଆ,en names all languages; keep at least one"):
        remove_languages(old, ["wo", "ଓଡ଼ିଆ", "en"])


def another(names: tuple[str, ...], ranks: tuple[int, ...]) -> Adapters:
    """Adapters of other languages at the same sites."""
    torch.manual_seed(11)
    rows = sum(ranks)
    matrices = {
        site: PackedMatrices(torch.randn(rows, a.size(1)), torch.randn(rows, b.size(1)), torch.ones_like(mask[:rows]))
        for site, (a, b, mask) in make(0.5).adapters.packed.items()
    }
    table = LanguageTable(names, ("low",) * len(names), ranks)
    return replace(make(0.5).adapters, languages=table, packed=matrices, mask_epoch=9)


def joined(first: dict, second: dict) -> dict:
    return {site: [torch.cat(both) for both in zip(first[site], second[site], strict=True)] for site in first}


def test_sets_of_different_languages_come_together() -> None:
    first, second = make(0.5).adapters, another(("fr", "xh"), (1, 2))
    held = join(first, second)
    assert held.languages.names == (*LANGUAGES.names, "fr", "xh")
    assert held.languages.ranks == (2, 1, 4, 1, 2)
    assert held.languages.levels == ("high", "med", "low", "low", "low")
    assert same(held, joined(taken(first, [*range(7)]), taken(second, [*range(3)])))
    assert held.mask_epoch == 9
    assert join(second, first).mask_epoch == 9


@pytest.mark.parametrize(
    ("prefer", "names", "first_rows", "second_rows"),
    [
        ("A", ("en", "ଓଡ଼ିଆ", "wo", "fr"), [*range(7)], [0]),
        ("B", ("ଓଡ଼ିଆ", "wo", "fr", "en"), [*ROWS["ଓଡ଼ିଆ"], *ROWS["wo"]], [0, 1, 2]),
    ],
)
def test_language_of_both_sets_is_taken_from_the_preferred(prefer, names, first_rows, second_rows) -> None:
    first, second = make(0.5).adapters, another(("fr", "en"), (1, 2))
    held = join(first, second, prefer)
    assert held.languages.names == names
    assert same(held, joined(taken(first, first_rows), taken(second, second_rows)))
    with pytest.raises(UserError, match=r"^A and B both have adapters for en; choose with --prefer A or --prefer B"):
        join(first, second)


def test_set_whose_languages_are_all_in_the_preferred_one_is_left_out() -> None:
    first, second = make(0.5).adapters, another(("wo", "en"), (1, 2))
    assert join(first, second, "A") is first
    turned = join(second, first, "B")
    assert turned is first
    assert join(first, replace(second, languages=LANGUAGES), "B").languages == LANGUAGES


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a, b, mask: (a[:, :9], b, mask), "at decoder.1.fc1, A has torch.float32 and width 10 in one, but "
         "torch.float32 and width 9 in two; only adapters of one base and precision can be joined"),
        (lambda a, b, mask: (a, b[:, :9], mask), "at decoder.1.fc1, B has torch.float32 and width 23 in one, but "
         "torch.float32 and width 9 in two;"),
        (lambda a, b, mask: (a.half(), b, mask), "at decoder.1.fc1, A has torch.float32 and width 10 in one, but "
         "torch.float16 and width 10 in two;"),
        (lambda a, b, mask: (a, b.half(), mask), "at decoder.1.fc1, B has torch.float32 and width 23 in one, but "
         "torch.float16 and width 23 in two;"),
    ],
)  # fmt: skip
def test_adapters_of_another_width_or_precision_cannot_be_joined(change, words) -> None:
    first = make(0.5).adapters
    second = replace(first, packed={**first.packed, FC1: PackedMatrices(*change(*first.packed[FC1]))})
    check_alike(first, select_languages(first, ["wo"]))
    with pytest.raises(UserError) as refusal:
        check_alike(first, second, "one", "two")
    assert str(refusal.value).startswith(words)


def test_adapters_that_stand_elsewhere_do_not_come_together() -> None:
    first = make(0.5).adapters
    with pytest.raises(
        UserError,
        match=r"^A has --dim 0, but B has 4; only adapters with the same sites on the same base can be joined",
    ):
        join(first, replace(another(("fr",), (1,)), dim=4))
