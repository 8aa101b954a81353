"""Adding, removing, joining and averaging the languages of adapters; all other numbers stay the same bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor

from langspec_lora.adapters.packed import Adapters, PackedMatrices
from langspec_lora.adapters.placement import Placement, check_same_placement
from langspec_lora.errors import UserError, collect_errors
from langspec_lora.keys import PackedLayout, keys_of, with_directions
from langspec_lora.languages import LanguageTable, check_ranks
from langspec_lora.lora import draw_a, set_principal
from langspec_lora.naming import some_of
from langspec_lora.sites import DIRECTION, PRINCIPAL, SHARED, Site


def add_languages(
    adapters: Adapters,
    new: LanguageTable,
    init: str,
    seed: int,
    directions: Iterable[tuple[str, str]] = (),
    base: Mapping[str, Tensor] | None = None,
) -> Adapters:
    """Adds new adapters: A drawn, B zero, nothing pruned, so that they have no effect until they are trained.

    Languages that join a group that is there, or share an adapter with all, get no new one.

    Args:
        adapters: the adapters to add to.
        new: the languages to add, after the existing ones; with their groups, if adapters belong to groups.
        init: how A is drawn, see :func:`~langspec_lora.lora.draw_a`.
        seed: seed of the random numbers.
        directions: the directions to add, if adapters belong to directions.
        base: entries of the base model; needed for the principal start.

    Raises:
        UserError: a language or direction has an adapter already, a rank is too large, the seed is invalid, or groups
            or directions are missing.
    """
    check_new_languages(adapters, new.names)
    table = adapters.languages
    joined = _join_tables(replace(table, direction_ranks={}), replace(new, direction_ranks={}, shared_rank=0))
    if DIRECTION in adapters.used_sides:
        joined = _with_new_directions(table, joined, new, list(directions))
    elif directions:
        raise UserError("--lang-pairs is for adapters that belong to directions, and these do not; leave it out")
    check_ranks(joined, max(width for a, b, _ in adapters.packed.values() for width in (a.size(1), b.size(1))))
    check_seed(seed)
    generator = torch.Generator().manual_seed(seed)

    def draw(site: Site, a: Tensor) -> None:
        draw_a(a, init, generator)
        if init == PRINCIPAL and base is not None:
            set_principal(a, base[f"{site.path}.weight"], (len(a),), adapters.features)

    return _rearranged(adapters, joined, [adapters], draw)


def _with_new_directions(
    table: LanguageTable, joined: LanguageTable, new: LanguageTable, directions: Sequence[tuple[str, str]]
) -> LanguageTable:
    lacking = [name for name in new.names if not any(name in pair for pair in directions)]
    if lacking:
        raise UserError(
            f"each direction has its own adapter; name those of {some_of(lacking)} as --lang-pairs, such as "
            f"{table.names[0]}-{lacking[0]}"
        )
    there = [pair for source, target in directions if (pair := f"{source}-{target}") in table.direction_ranks]
    if there:
        raise UserError(f"--lang-pairs names {some_of(there)}, which has an adapter already; name only new directions")
    for name in {name for pair in directions for name in pair}:
        joined.id(name)
    added = with_directions(joined, directions).direction_ranks
    return replace(joined, direction_ranks={**table.direction_ranks, **added})


def check_new_languages(adapters: Adapters, names: Sequence[str]) -> None:
    """Makes sure that languages to add are new.

    Raises:
        UserError: a language has adapters already.
    """
    there = [name for name in names if name in adapters.languages.names]
    if there:
        raise UserError(
            f"--langs names {there[0]}, which already has adapters, like {some_of(adapters.languages.names)}; "
            "name only new languages"
        )


def check_seed(seed: int) -> None:
    """Makes sure that torch takes a seed.

    Raises:
        UserError: it does not.
    """
    if not 0 <= seed < 2**63:
        raise UserError(f"--seed {seed}: expected a number from 0 to {2**63 - 1}")


def remove_languages(adapters: Adapters, names: Sequence[str]) -> Adapters:
    """Removes languages.

    Raises:
        UserError: a language has no adapters, or no language would remain.
    """
    with collect_errors() as errors:
        for name in names:
            with errors.check():
                adapters.languages.id(name)
    remaining = [name for name in adapters.languages.names if name not in names]
    if not remaining:
        raise UserError(f"--langs {some_of(names, ',')} names all languages; keep at least one")
    return select_languages(adapters, remaining)


def select_languages(adapters: Adapters, names: Sequence[str]) -> Adapters:
    """The adapters of some languages, in the order given.

    Raises:
        UserError: a language has no adapters.
    """
    return _rearranged(adapters, adapters.languages.select(names), [adapters])


def _rearranged(
    adapters: Adapters,
    languages: LanguageTable,
    sets: Sequence[Adapters],
    draw: Callable[[Site, Tensor], None] | None = None,
) -> Adapters:
    """Adapters of other keys: those of the first set that has them, or else new ones.

    Args:
        adapters: what stays the same.
        languages: the languages and keys to have.
        sets: adapters at the same sites.
        draw: draws the A of a new adapter; None if there are no new ones.
    """
    held = [{side: _rows_by_name(own.languages, side) for side in adapters.used_sides} for own in sets]
    packed = {}
    for site, (a, b, _) in adapters.packed.items():
        side, parts = adapters.side(site), []
        keys = keys_of(languages, side)
        for name, rank in zip(keys.names, keys.ranks, strict=True):
            found = next(
                ((own, rows[side][name]) for own, rows in zip(sets, held, strict=True) if name in rows[side]), None
            )
            if found is not None:
                own, rows_of_key = found
                parts.append([tensor[rows_of_key] for tensor in own.packed[site]])
                continue
            assert draw is not None
            drawn = torch.empty(rank, a.size(1))
            draw(site, drawn)
            parts.append(
                [drawn.to(a.dtype), b.new_zeros(rank, b.size(1)), torch.ones(rank, b.size(1), dtype=torch.uint8)]
            )
        packed[site] = PackedMatrices(*map(torch.cat, zip(*parts, strict=True)))
    return replace(adapters, languages=languages, packed=packed)


def _rows_by_name(languages: LanguageTable, side: str) -> dict[str, slice]:
    keys = keys_of(languages, side)
    layout = PackedLayout(keys.ranks)
    return {name: layout.slice(number) for number, name in enumerate(keys.names)}


def join(first: Adapters, second: Adapters, prefer: str | None = None) -> Adapters:
    """Joins the languages of two sets of adapters on the same base.

    Args:
        first: one set; its languages come first.
        second: the other.
        prefer: ``A`` or ``B``: whose adapter a language (or group, or direction) in both sets gets; None if none may be
            in both.

    Raises:
        UserError: their sites differ, a key is in both and ``prefer`` is None, or an adapter would serve languages that
            it was not trained for.
    """
    check_alike(first, second)
    _check_sharing(first, second)
    both = [
        name
        for name in dict.fromkeys(name for side in first.used_sides for name in keys_of(first.languages, side).names)
        if any(name in keys_of(second.languages, side).names for side in first.used_sides)
    ]
    if both and prefer is None:
        raise UserError(f"A and B both have adapters for {some_of(both)}; choose with --prefer A or --prefer B")
    winner, loser = (second, first) if prefer == "B" else (first, second)
    others = [name for name in loser.languages.names if name not in winner.languages.names]
    if not others and not loser.languages.direction_ranks.keys() - winner.languages.direction_ranks.keys():
        return winner
    tables = [winner.languages, *([loser.languages.select(others)] if others else [])]
    table = _join_tables(*(tables[::-1] if prefer == "B" else tables))
    directions = {**first.languages.direction_ranks, **second.languages.direction_ranks}
    directions |= winner.languages.direction_ranks
    joined = _rearranged(first, replace(table, direction_ranks=directions), [winner, loser])
    return replace(joined, mask_epoch=max(first.mask_epoch, second.mask_epoch))


def _check_sharing(first: Adapters, second: Adapters) -> None:
    """Refuses adapters that several languages share if they would serve languages that they were not trained for."""
    for layer, logits in first.mixture.items():
        if not torch.equal(logits, second.mixture[layer]):
            raise UserError(
                f"the {layer[0]}'s layer {layer[1]} mixes source and target otherwise in A than in B; fix the "
                "directions of both first ('langspec-lora fix-directions')"
            )
    if SHARED in first.used_sides:
        raise UserError(
            "A and B each have an adapter that all languages share, and no joined one exists; use one of them"
        )
    one, other = (_members(own.languages) for own in (first, second))
    if bool(one) != bool(other):
        raise UserError("the adapters of one set belong to languages and those of the other to groups; use one of them")
    for group in one.keys() & other.keys():
        if one[group] != other[group]:
            raise UserError(
                f"group {group} is {some_of(sorted(one[group]))} in A and {some_of(sorted(other[group]))} in B, so its "
                "adapters serve different languages; use one of the two"
            )


def _members(languages: LanguageTable) -> dict[str, set[str]]:
    members: dict[str, set[str]] = {}
    for name, group in zip(languages.names, languages.groups, strict=False):
        members.setdefault(group, set()).add(name)
    return members


def _join_tables(first: LanguageTable, *others: LanguageTable) -> LanguageTable:
    """The languages of several tables that have none in common; ranks of a group in several are those of the first."""
    tables = (first, *others)
    if len({bool(table.groups) for table in tables}) > 1:
        raise UserError("some languages have groups and others have none; give the groups of all as --lang-groups")
    group_ranks: dict[str, int] = {}
    for table in reversed(tables):
        group_ranks = {**table.group_ranks, **{g: r for g, r in group_ranks.items() if g not in table.group_ranks}}
    names, levels, ranks, groups = (
        tuple(chain.from_iterable(getattr(table, what) for table in tables))
        for what in ("names", "levels", "ranks", "groups")
    )
    directions = {direction: rank for table in tables for direction, rank in table.direction_ranks.items()}
    shared = next((table.shared_rank for table in tables if table.shared_rank), 0)
    return LanguageTable(names, levels, ranks, groups, group_ranks, directions, shared)


def check_alike(
    first: Adapters,
    second: Adapters,
    one: str = "A",
    other: str = "B",
    remedy: str = "only adapters with the same sites on the same base can be joined",
) -> None:
    """Checks that two sets of adapters have the same sites, sides and shapes.

    Args:
        first: one set.
        second: the other.
        one: name of the first, for messages.
        other: name of the second.
        remedy: what the user can do if their sites differ, for messages.

    Raises:
        UserError: they differ.
    """
    check_same_placement(Placement.of_adapters(first), Placement.of_adapters(second), one, other, remedy)
    for site, packed in first.packed.items():
        for part, here, there in zip("AB", packed, second.packed[site], strict=False):
            if (here.dtype, here.shape[1:]) != (there.dtype, there.shape[1:]):
                raise UserError(
                    f"at {site}, {part} has {here.dtype} and width {here.size(1)} in {one}, but {there.dtype} and "
                    f"width {there.size(1)} in {other}; only adapters of one base and precision can be joined"
                )
