"""What an ablation found, as rows of plain data: for the terminal, the files and the pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from langspec_lora.ablation.cosines import cosines
from langspec_lora.ablation.effects import Effects, Estimate, similarity
from langspec_lora.ablation.options import FC, LANGUAGE, LAYER, POSITION, SWAP
from langspec_lora.ablation.plan import AS_SOURCE, AS_TARGET, ATTENTION, NOTHING
from langspec_lora.sites import Site

BOTH = "both"
"""The roles of source and target together."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Findings:
    """What was found; each list is empty if it was not asked for.

    Losses are in bits per target token. An interval is ``[low, high]``, or None.

    Attributes:
        about: checkpoint, data, split and settings.
        loss: the loss of the base, the full model, and their difference.
        directions: each direction with its sentences, tokens and losses.
        parts: what is lost without the adapters of a language, a layer, a position, or those of a kind of layer.
        cells: what is lost without one language's adapter in one layer, or at one position.
        kinds: what feed-forward and attention adapters gain alone.
        swaps: what is lost with another language's adapter instead.
        similarities: how alike two languages' adapters are.
        notes: what to know about the figures.
    """

    about: Row
    loss: Row
    directions: list[Row]
    parts: list[Row] = field(default_factory=list)
    cells: list[Row] = field(default_factory=list)
    kinds: list[Row] = field(default_factory=list)
    swaps: list[Row] = field(default_factory=list)
    similarities: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find(effects: Effects, about: Row, products: Mapping[str, Mapping[Site, np.ndarray]]) -> Findings:
    """Collects what was found.

    Args:
        effects: the losses.
        about: checkpoint, data, split and settings.
        products: inner products of the updates, by role and site; see
            :func:`~langspec_lora.ablation.cosines.inner_products`.
    """
    plan = effects.plan
    base, full = effects.loss(plan.everything), effects.loss(NOTHING)
    gain = effects.change((plan.everything, direction) for direction in plan.directions)
    loss = {**_named("base", base), **_named("full", full), **_named("gain", gain)}
    found = Findings(about, loss, _directions(effects), notes=_notes(effects, gain))
    if LANGUAGE in plan.by:
        found.parts.extend(_owners(effects))
    for kind in (LAYER, POSITION):
        if kind in plan.by:
            found.parts.extend(_groups(effects, kind))
            found.cells.extend(_cells(effects, kind))
    if FC in plan.by:
        found.kinds.extend(_kinds(effects))
    if SWAP in plan.by:
        found.swaps.extend(_swaps(effects))
        found.similarities.extend(_similarities(effects, products, found.swaps))
    return found


def role_sets(effects: Effects) -> dict[str, tuple[str, ...]]:
    """The roles, each alone, then source and target together where both exist."""
    sets: dict[str, tuple[str, ...]] = {role: (role,) for role in effects.plan.roles}
    if AS_SOURCE in sets and AS_TARGET in sets:
        sets[BOTH] = (AS_SOURCE, AS_TARGET)
    return sets


def _directions(effects: Effects) -> list[Row]:
    return [
        {
            "direction": str(direction),
            "sentences": len(effects.tokens[direction]),
            "tokens": int(effects.tokens[direction].sum()),
            "base": effects.bits(effects.plan.everything, direction),
            "full": effects.bits(NOTHING, direction),
        }
        for direction in effects.plan.directions
    ]


def _owners(effects: Effects) -> list[Row]:
    """Each owner's adapter left out, by role and in all its roles."""
    plan, rows = effects.plan, []
    for name, level in plan.levels.items():
        for word, roles in role_sets(effects).items():
            directions = [direction for role in roles for direction in plan.acting[role, name]]
            if directions:
                change = effects.of_owner(plan.everything, name, roles)
                rows.append(
                    {
                        "by": LANGUAGE,
                        "name": name,
                        "level": level,
                        "as": word,
                        "directions": len(directions),
                        **_named("change", change),
                        "share": None,
                    }
                )
    return rows


def _groups(effects: Effects, kind: str) -> list[Row]:
    """Each layer, or each position, left out as a whole."""
    plan, rows = effects.plan, []
    for (stack, part), parts in plan.groups[kind].items():
        roles = [role for role in plan.roles if plan.of_role(parts, role)]
        share = effects.share(parts, NOTHING)
        rows.append(
            {
                "by": kind,
                "name": f"{stack} {part}",
                "level": None,
                "as": " + ".join(roles),
                "directions": len(plan.directions),
                **_named("change", effects.change((parts, direction) for direction in plan.directions)),
                "share": share.value,
            }
        )
    return rows


def _cells(effects: Effects, kind: str) -> list[Row]:
    """Each owner's adapter left out in each layer, or at each position."""
    plan = effects.plan
    rows = []
    for name, level in plan.levels.items():
        for (stack, part), parts in plan.groups[kind].items():
            change = effects.of_owner(parts, name)
            if change.value is not None:
                rows.append(
                    {"by": kind, "name": name, "level": level, "stack": stack, kind: part, **_named("change", change)}
                )
    return rows


def _kinds(effects: Effects) -> list[Row]:
    plan, rows = effects.plan, []
    for kind, other in ((FC, ATTENTION), (ATTENTION, FC)):
        own, rest = plan.kinds[kind], plan.kinds[other]
        rows.append(
            {
                "kind": kind,
                "sites": len({site for site, _ in own}),
                "alone": effects.loss(rest).value,
                **_named("gained_alone", effects.share(plan.everything, rest)),
                "left_out": effects.loss(own).value,
                **_named("lost_without", effects.share(own, NOTHING)),
            }
        )
    return rows


def _swaps(effects: Effects) -> list[Row]:
    """Each owner's adapter replaced by each other's."""
    plan, rows = effects.plan, []
    for word, roles in role_sets(effects).items():
        names = _replaceable(effects, roles)
        for name in names:
            without = effects.of_owner(plan.everything, name, roles)
            for other in names:
                if other != name:
                    change = effects.of_swap(name, other, roles)
                    rows.append(
                        {
                            "as": word,
                            "name": name,
                            "by": other,
                            "directions": sum(len(plan.acting[role, name]) for role in roles),
                            **_named("change", change),
                            "change_without": without.value,
                        }
                    )
    return rows


def _similarities(
    effects: Effects, products: Mapping[str, Mapping[Site, np.ndarray]], swaps: Sequence[Row]
) -> list[Row]:
    """Each two owners once: how well their adapters replace each other, and the cosine of their updates."""
    plan, rows = effects.plan, []
    lost = {(row["as"], row["name"], row["by"]): (row["change"], row["change_without"]) for row in swaps}
    for word, roles in role_sets(effects).items():
        names = _replaceable(effects, roles)
        of_site: dict[Site, list[np.ndarray]] = {}
        for role in roles:
            places = [plan.owners[role].index(name) for name in names]
            for site, product in products[role].items():
                of_site.setdefault(site, []).append(product[np.ix_(places, places)])
        everywhere = cosines([product for found in of_site.values() for product in found])
        each = {str(site): cosines(found) for site, found in of_site.items()}
        for first, one in enumerate(names):
            for second in range(first + 1, len(names)):
                other = names[second]
                rows.append(
                    {
                        "as": word,
                        "one": one,
                        "other": other,
                        "similarity": similarity(lost[word, one, other], lost[word, other, one]),
                        "cosine": _number(everywhere[first, second]),
                        "cosines": {site: _number(found[first, second]) for site, found in each.items()},
                    }
                )
    return rows


def _replaceable(effects: Effects, roles: Sequence[str]) -> list[str]:
    """The owners that act in all these roles, if there are several."""
    owners = effects.plan.owners
    names = [name for name in owners[roles[0]] if all(name in owners[role] for role in roles)]
    return names if len(names) > 1 else []


def _notes(effects: Effects, gain: Estimate) -> list[str]:
    plan, notes = effects.plan, []
    assert gain.value is not None
    if gain.value <= 0:
        notes.append(
            "the adapters gain nothing on this text, so that no share of the gain is defined; is it the text of the "
            "training's languages, and the right checkpoint?"
        )
    if SWAP in plan.by and not any(_replaceable(effects, roles) for roles in role_sets(effects).values()):
        notes.append("nothing is replaced: a single adapter acts in all these directions")
    fewer = [row["direction"] for row in _directions(effects) if row["sentences"] == 1]
    counts = {len(found) for found in effects.tokens.values()}
    if len(counts) > 1:
        notes.append(
            f"there are no intervals: the directions have {min(counts)} to {max(counts)} sentences; give fewer as "
            "--sentences"
        )
    elif fewer:
        notes.append("there are no intervals: each direction has one sentence; give more as --sentences")
    return notes


def _named(name: str, estimate: Estimate) -> Row:
    interval = None if estimate.low is None else [estimate.low, estimate.high]
    return {name: estimate.value, f"{name}_interval": interval}


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
