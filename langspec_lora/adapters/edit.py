"""Adding, removing, joining and averaging the languages of adapters; all other numbers stay the same bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from langspec_lora.adapters.packed import Adapters, PackedMatrices
from langspec_lora.adapters.placement import Placement, check_same_placement
from langspec_lora.errors import UserError, collect_errors
from langspec_lora.languages import LanguageTable, check_ranks
from langspec_lora.lora import draw_a
from langspec_lora.naming import some_of


def add_languages(adapters: Adapters, new: LanguageTable, init: str, seed: int) -> Adapters:
    """Adds new adapters: A drawn, B zero, nothing pruned, so that they have no effect until they are trained.

    Args:
        adapters: the adapters to add to.
        new: the languages to add, after the existing ones.
        init: how A is drawn, see :func:`~langspec_lora.lora.draw_a`.
        seed: seed of the random numbers.

    Raises:
        UserError: a language has adapters already, its rank is too large, or the seed is invalid.
    """
    check_new_languages(adapters, new.names)
    check_ranks(new, max(width for a, b, _ in adapters.packed.values() for width in (a.size(1), b.size(1))))
    check_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    packed = {}
    for site, (a, b, mask) in adapters.packed.items():
        drawn = [torch.empty(rank, a.size(1)) for rank in new.ranks]
        for new_a in drawn:
            draw_a(new_a, init, generator)
        rows = sum(new.ranks)
        packed[site] = PackedMatrices(
            torch.cat([a, *(new_a.to(a.dtype) for new_a in drawn)]),
            torch.cat([b, b.new_zeros(rows, b.size(1))]),
            torch.cat([mask, mask.new_ones(rows, mask.size(1))]),
        )
    return replace(adapters, languages=_join_tables(adapters.languages, new), packed=packed)


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
    rows = [adapters.rows(name) for name in names]

    def select(packed: Tensor) -> Tensor:
        return torch.cat([packed[part] for part in rows])

    packed = {site: PackedMatrices(*map(select, matrices)) for site, matrices in adapters.packed.items()}
    table = adapters.languages
    ids = [table.id(name) for name in names]
    languages = LanguageTable(
        tuple(names), tuple(table.levels[number] for number in ids), tuple(table.ranks[number] for number in ids)
    )
    return replace(adapters, languages=languages, packed=packed)


def join(first: Adapters, second: Adapters, prefer: str | None = None) -> Adapters:
    """Joins the languages of two sets of adapters on the same base.

    Args:
        first: one set; its languages come first.
        second: the other.
        prefer: ``A`` or ``B``: whose adapter a language in both sets gets; None if no language may be in both.

    Raises:
        UserError: their sites differ, or a language is in both and ``prefer`` is None.
    """
    check_alike(first, second)
    both = [name for name in first.languages.names if name in second.languages.names]
    if both and prefer is None:
        raise UserError(f"A and B both have adapters for {some_of(both)}; choose with --prefer A or --prefer B")
    left_out = set(both)
    parts = [first, second]
    loser = 1 if prefer == "A" else 0
    kept = [name for name in parts[loser].languages.names if name not in left_out]
    if not kept:
        return parts[1 - loser]
    parts[loser] = select_languages(parts[loser], kept)
    packed = {
        site: PackedMatrices(*(torch.cat(both) for both in zip(packed, parts[1].packed[site], strict=True)))
        for site, packed in parts[0].packed.items()
    }
    return replace(
        first,
        languages=_join_tables(parts[0].languages, parts[1].languages),
        packed=packed,
        mask_epoch=max(first.mask_epoch, second.mask_epoch),
    )


def _join_tables(first: LanguageTable, second: LanguageTable) -> LanguageTable:
    return LanguageTable(first.names + second.names, first.levels + second.levels, first.ranks + second.ranks)


def check_alike(first: Adapters, second: Adapters, one: str = "A", other: str = "B") -> None:
    """Checks that two sets of adapters have the same sites, sides and shapes.

    Args:
        first: one set.
        second: the other.
        one: name of the first, for messages.
        other: name of the second.

    Raises:
        UserError: they differ.
    """
    remedy = "only adapters with the same sites on the same base can be joined"
    check_same_placement(Placement.of_adapters(first), Placement.of_adapters(second), one, other, remedy)
    for site, packed in first.packed.items():
        for part, here, there in zip("AB", packed, second.packed[site], strict=False):
            if (here.dtype, here.shape[1:]) != (there.dtype, there.shape[1:]):
                raise UserError(
                    f"at {site}, {part} has {here.dtype} and width {here.size(1)} in {one}, but {there.dtype} and "
                    f"width {there.size(1)} in {other}; only adapters of one base and precision can be joined"
                )
