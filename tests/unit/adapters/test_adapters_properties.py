"""Operations on adapters of random languages, ranks and sites: inverses, orders, and rows that stay what they were."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from langspec_lora.adapters.averaging import average
from langspec_lora.adapters.counts import count_adapters
from langspec_lora.adapters.edit import add_languages, join, remove_languages, select_languages
from langspec_lora.adapters.entries import MANIFEST, MASK_EPOCH, language_manifest, read_manifest
from langspec_lora.adapters.packed import Adapters, PackedMatrices, adapter_entries
from langspec_lora.errors import UserError
from langspec_lora.languages import LEVELS, LanguageTable
from langspec_lora.sites import POSITIONS, Site
from tests.properties import LANGUAGE_ROWS, examples

SITES = [Site(stack, layer, position) for stack in POSITIONS for layer in (0, 1) for position in POSITIONS[stack]]
NAMES = [f"l{number}" for number in range(12)]


@st.composite
def tables(draw, names=tuple(NAMES)) -> LanguageTable:
    chosen = draw(st.lists(st.sampled_from(names), min_size=1, max_size=5, unique=True))
    levels = tuple(draw(st.sampled_from(LEVELS)) for _ in chosen)
    return LanguageTable(tuple(chosen), levels, tuple(draw(st.integers(1, 4)) for _ in chosen))


PLACES = st.dictionaries(
    st.sampled_from(SITES), st.tuples(st.integers(4, 6), st.integers(4, 6)), min_size=1, max_size=3
)


def adapters_of(table: LanguageTable, widths: dict[Site, tuple[int, int]], seed: int) -> Adapters:
    generator = torch.Generator().manual_seed(seed)
    rows, packed = sum(table.ranks), {}
    for site, (wide, out) in widths.items():
        mask = (torch.rand(rows, out, generator=generator) < 0.7).to(torch.uint8)
        b = torch.randn(rows, out, generator=generator) * mask
        packed[site] = PackedMatrices(torch.randn(rows, wide, generator=generator), b, mask)
    sides = dict.fromkeys(POSITIONS, ("src", "tgt"))
    return Adapters(table, sides, 0, 0, packed, seed % 5)


def by_language(adapters: Adapters) -> dict[tuple[str, Site], list]:
    """Every language's rows at every site, cut out by hand, with its rank and level."""
    found, table = {}, adapters.languages
    for site, matrices in adapters.packed.items():
        start = 0
        for name, level, rank in zip(table.names, table.levels, table.ranks, strict=True):
            rows = [part[start : start + rank].tolist() for part in matrices]
            found[name, site] = [level, rank, *rows]
            start += rank
        assert all(len(part) == start for part in matrices)
    return found


@examples(60)
@given(tables(), PLACES, st.data())
def test_removing_languages_leaves_the_others_as_they_were(table, places, data) -> None:
    adapters = adapters_of(table, places, 3)
    gone = data.draw(st.lists(st.sampled_from(table.names), max_size=len(table) - 1, unique=True))
    before, after = by_language(adapters), by_language(remove_languages(adapters, gone))
    assert after == {key: rows for key, rows in before.items() if key[0] not in gone}


@examples(60)
@given(tables(tuple(NAMES[:6])), tables(tuple(NAMES[6:])), PLACES)
def test_joining_and_removing_are_inverses_and_the_order_of_joining_is_that_of_the_languages(one, two, places) -> None:
    a, b = adapters_of(one, places, 1), adapters_of(two, places, 2)
    both, reverse = join(a, b), join(b, a)
    assert by_language(both) == by_language(reverse) == {**by_language(a), **by_language(b)}
    assert both.languages.names == (*one.names, *two.names)
    assert by_language(remove_languages(both, two.names)) == by_language(a)
    assert by_language(remove_languages(both, one.names)) == by_language(b)
    assert by_language(select_languages(both, reverse.languages.names)) == by_language(reverse)
    for site, matrices in select_languages(both, reverse.languages.names).packed.items():
        assert all(torch.equal(*pair) for pair in zip(matrices, reverse.packed[site], strict=True))


@examples(50)
@given(tables(), tables(), PLACES, st.sampled_from((None, "A", "B")))
def test_a_language_of_both_is_that_of_the_preferred_one(one, two, places, prefer) -> None:
    a, b = adapters_of(one, places, 1), adapters_of(two, places, 2)
    if prefer is None and set(one.names) & set(two.names):
        with pytest.raises(UserError, match="both have adapters for"):
            join(a, b)
        return
    ours, theirs = by_language(a), by_language(b)
    expected = {**theirs, **ours} if prefer == "A" else {**ours, **theirs}
    assert by_language(join(a, b, prefer)) == expected


@examples(40)
@given(tables(tuple(NAMES[:6])), tables(tuple(NAMES[6:])), PLACES, st.integers(0, 2**63 - 1))
def test_a_new_language_computes_nothing_and_changes_nothing(old, new, places, seed) -> None:
    adapters = adapters_of(old, places, 4)
    more = add_languages(adapters, new, "rank", seed)
    assert by_language(remove_languages(more, new.names)) == by_language(adapters)
    for name in new.names:
        for site in places:
            a, b = more.adapter(site, name)
            assert not (b.T @ a).any()
            assert a.any()
            assert more.packed[site].mask[more.rows(site, name)].eq(1).all()
    again = add_languages(adapters, new, "rank", seed)
    assert by_language(again) == by_language(more)


@examples(40)
@given(tables(), PLACES, st.integers(1, 4))
def test_an_average_is_that_of_a_plain_loop_in_any_order(table, places, count) -> None:
    sets = [adapters_of(table, places, seed) for seed in range(count)]
    names = [str(number) for number in range(count)]
    found, reverse = average(sets, names), average(sets[::-1], names)
    for site, (a, b, mask) in found.packed.items():
        for row in range(len(a)):
            for column in range(a.size(1)):
                mean = sum(float(one.packed[site].a[row, column]) for one in sets) / count
                assert abs(float(a[row, column]) - mean) <= 1e-6
            for column in range(b.size(1)):
                alive = all(int(one.packed[site].mask[row, column]) for one in sets)
                mean = sum(float(one.packed[site].b[row, column]) for one in sets) / count
                assert abs(float(b[row, column]) - (mean if alive else 0)) <= 1e-6
                assert int(mask[row, column]) == alive
        assert all(torch.allclose(*pair) for pair in zip((a, b, mask), reverse.packed[site], strict=True))
    assert found.mask_epoch == max(one.mask_epoch for one in sets)


@examples(40)
@given(tables(), PLACES)
def test_counts_are_those_of_a_plain_loop(table, places) -> None:
    adapters = adapters_of(table, places, 7)
    rows, cells = by_language(adapters), count_adapters(adapters)
    assert sorted((cell.key, cell.site) for cell in cells) == sorted(rows)
    for cell in cells:
        _, rank, a, b, mask = rows[cell.key, cell.site]
        flat = [value for row in (*a, *b) for value in row]
        alive = [value for row in mask for value in row]
        assert cell.count.parameters == len(flat) == rank * sum(places[cell.site])
        assert cell.count.nonzero == sum(value != 0 for value in flat)
        assert (cell.count.prunable, cell.count.living) == (len(alive), sum(alive))


@examples(40)
@given(tables(), PLACES)
def test_entries_of_a_checkpoint_are_the_adapters(table, places) -> None:
    adapters = adapters_of(table, places, 6)
    entries = adapter_entries(adapters)
    assert read_manifest(entries[MANIFEST]) == table
    for site, matrices in adapters.packed.items():
        for part, value in zip(("A", "B", "mask"), matrices, strict=True):
            assert entries[f"{site.path}.lora_{part}"] is value or torch.equal(
                entries[f"{site.path}.lora_{part}"], value
            )
    assert entries[MASK_EPOCH].tolist() == [adapters.mask_epoch]
    assert len(entries) == 2 + 3 * len(places)


@examples(50)
@given(LANGUAGE_ROWS)
def test_a_manifest_holds_any_names(rows) -> None:
    table = LanguageTable(*map(tuple, zip(*rows, strict=True)))
    assert read_manifest(language_manifest(table)) == table


@examples(30)
@given(tables(), PLACES, st.data())
def test_selecting_is_independent_of_what_was_selected_before(table, places, data) -> None:
    adapters = replace(adapters_of(table, places, 8), dim=0)
    some = data.draw(st.permutations(table.names))
    fewer = some[: data.draw(st.integers(1, len(some)))]
    direct, twice = select_languages(adapters, fewer), select_languages(select_languages(adapters, some), fewer)
    assert direct.languages == twice.languages
    for site in places:
        assert all(torch.equal(*pair) for pair in zip(direct.packed[site], twice.packed[site], strict=True))
