"""Adapters of groups, directions and all languages, and learned directions: what is left out and what is replaced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from langspec_lora.ablation.findings import Findings, find
from langspec_lora.ablation.run import measured, prepare
from tests import toy
from tests.ablations import ByHand, checkpoint, options

PAIRS = ("en-fr", "en-wo", "fr-en", "wo-en")
GROUP_OF = (0, 0, 0, 1, 1)
GROUPS = "west: [en, fr, nl]\neast: [wo, sd]\nranks: {east: 5}\n"
EN, FR, _, WO, _ = range(5)


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


class Case:
    """A model of another kind, what the command finds of it, and the same by hand."""

    def __init__(
        self, data: Path, folder: Path, *flags: str, key_of: Callable, ranks: dict[str, tuple], by=("language", "swap")
    ) -> None:
        every = toy.plugin_flags(data, *flags)
        path = checkpoint(folder / "ck.pt", every)
        more = {"langs": None, "lang_pairs": ",".join(PAIRS), "by": by}
        effects, products = measured(prepare(options(path, data, **more)))
        plan = effects.plan
        self.found: Findings = find(effects, {"adapters": plan.config.key, "levels": plan.levels}, products)
        weights = torch.load(path, weights_only=False)["model"].get("adapters.routing.mixture.logits")
        self.weights = None if weights is None else weights
        self.hand = ByHand(path, data, every, key_of=key_of, ranks_of=lambda side: ranks[side])

    def row(self, rows: list[dict], **wanted: object) -> dict:
        (only,) = (row for row in rows if all(row.get(name) == value for name, value in wanted.items()))
        return only

    def change(self, pairs, left_out=lambda site, side, key: False, key_of=None) -> float:
        return mean(self.hand.bits(pair, left_out, key_of) - self.hand.full(pair) for pair in pairs)


def close(value: float, expected: float) -> None:
    assert value == pytest.approx(expected, abs=3e-6)


def test_groups(toy_data, tmp_path) -> None:
    (tmp_path / "groups.yaml").write_text(GROUPS)
    flags = ("--adapter-key", "group", "--lang-groups", str(tmp_path / "groups.yaml"))

    def key_of(side: str, source: int, target: int) -> int:
        return GROUP_OF[source if side == "src" else target]

    case = Case(toy_data, tmp_path, *flags, key_of=key_of, ranks={"src": (7, 5), "tgt": (7, 5)})
    west = case.row(case.found.parts, by="language", name="west", **{"as": "source"})
    assert west["directions"] == 3
    pairs = ("en-fr", "en-wo", "fr-en")
    close(west["change"], case.change(pairs, lambda site, side, key: (side, key) == ("src", 0)))
    swap = case.row(case.found.swaps, name="west", by="east", **{"as": "source"})
    close(swap["change"], case.change(pairs, key_of=lambda side, s, t: 1 if side == "src" else GROUP_OF[t]))


def test_directions(toy_data, tmp_path) -> None:
    flags = ("--adapter-key", "direction", "--lang-pairs", ",".join(PAIRS))

    def key_of(side: str, source: int, target: int) -> int:
        return PAIRS.index(f"{toy.LANGUAGES[source]}-{toy.LANGUAGES[target]}")

    case = Case(toy_data, tmp_path, *flags, key_of=key_of, ranks={"direction": (2, 4, 2, 4)})
    own = case.row(case.found.parts, by="language", name="en-wo")
    close(own["change"], case.change(("en-wo",), lambda site, side, key: True))
    swap = case.row(case.found.swaps, name="en-wo", by="fr-en")
    close(swap["change"], case.change(("en-wo",), key_of=lambda side, s, t: 2))
    assert len(case.found.swaps) == 12


def test_one_adapter_for_all_is_replaced_by_none_and_that_is_said(toy_data, tmp_path) -> None:
    flags = ("--adapter-key", "shared", "--shared-rank", "6")
    case = Case(toy_data, tmp_path, *flags, key_of=lambda side, s, t: 0, ranks={"shared": (6,)})
    (own,) = (row for row in case.found.parts if row["by"] == "language")
    assert own["name"] == "all languages"
    close(own["change"], case.change(PAIRS, lambda site, side, key: True))
    assert case.found.swaps == case.found.similarities == []
    assert "nothing is replaced: a single adapter acts in all these directions" in case.found.notes


def test_learned_directions(toy_data, tmp_path) -> None:
    """Each layer has an adapter of the source and one of the target, by weights that are its own."""
    flags = ("--weight-learning", "True", "--encoder-lora-layer", "0", "--decoder-lora-layer", "none")
    weights: list[float] = [0.5, 0.5]

    def key_of(side: str, source: int, target: int) -> list[tuple[int, float]]:
        return [(source, weights[0]), (target + 5, weights[1])]

    case = Case(
        toy_data,
        tmp_path,
        *flags,
        key_of=key_of,
        ranks={"learned": (2, 2, 3, 4, 4) * 2},
        by=("language", "layer", "swap"),
    )
    weights[:] = torch.softmax(case.weights[0], 0).tolist()
    assert abs(weights[0] - 0.5) > 0.01
    for role, pairs, places in (("source", ("en-fr", "en-wo"), {EN}), ("target", ("fr-en", "wo-en"), {EN + 5})):
        own = case.row(case.found.parts, by="language", name="en", **{"as": role})
        close(own["change"], case.change(pairs, lambda site, side, key, places=places: key in places))
    swap = case.row(case.found.swaps, name="en", by="wo", **{"as": "target"})
    pairs = ("fr-en", "wo-en")
    close(swap["change"], case.change(pairs, key_of=lambda side, s, t: [(s, weights[0]), (WO + 5, weights[1])]))
    layer = case.row(case.found.parts, by="layer", name="encoder 0")
    close(layer["change"], case.change(PAIRS, lambda site, side, key: True))
    assert layer["as"] == "source + target"
    matrices = {site: adapters for site, _, _, adapters in case.hand.adapters.values()}
    for role, first in (("source", 0), ("target", 5)):
        pair = case.row(case.found.similarities, one="en", other="wo", **{"as": role})
        for site, adapters in matrices.items():
            en, wo = ((b.T @ a).detach().flatten() for a, b in (adapters[first + EN], adapters[first + WO]))
            close(pair["cosines"][str(site)], float(torch.cosine_similarity(en, wo, dim=0)))
