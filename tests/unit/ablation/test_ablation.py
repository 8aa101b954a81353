"""The losses of an ablation against fairseq's criterion, with the adapters changed by hand in a copy of the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from langspec_lora.ablation.findings import find
from langspec_lora.ablation.losses import spread, without
from langspec_lora.ablation.run import measured, prepare
from langspec_lora.data.directions import Direction
from langspec_lora.sites import Site
from tests import toy
from tests.ablations import CHOSEN, ByHand, checkpoint, options

PAIRS = ("en-fr", "en-wo", "fr-en", "fr-wo", "wo-en", "wo-fr")
EN, FR, _, WO, _ = range(5)


@pytest.fixture(scope="module")
def path(toy_data, tmp_path_factory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("ablation") / "ck.pt", toy.plugin_flags(toy_data))


@pytest.fixture(scope="module")
def found(path, toy_data):
    effects, products = measured(prepare(options(path, toy_data)))
    return effects, find(effects, {"adapters": "language", "levels": effects.plan.levels}, products)


@pytest.fixture(scope="module")
def by_hand(path, toy_data) -> ByHand:
    return ByHand(path, toy_data, toy.plugin_flags(toy_data))


def close(value: float, expected: float) -> None:
    assert value == pytest.approx(expected, abs=2e-6)


def mean(values: Iterator[float]) -> float:
    values = list(values)
    return sum(values) / len(values)


def row(rows: list[dict], **wanted: object) -> dict:
    (only,) = (row for row in rows if all(row.get(name) == value for name, value in wanted.items()))
    return only


def test_sentences_are_the_middles_of_equal_sections() -> None:
    assert tuple(spread(12, 3)) == CHOSEN
    assert tuple(spread(5, 9)) == (0, 1, 2, 3, 4)
    assert len(set(spread(1012, 1000))) == 1000


def test_sentences_keep_their_order_so_that_intervals_draw_the_same_ones_in_all_directions(found) -> None:
    effects, _ = found
    lengths = [len(toy.sentences("valid")[number]) + 1 for number in CHOSEN]  # with the end
    assert lengths not in (sorted(lengths), sorted(lengths, reverse=True))
    for direction in effects.plan.directions:
        assert effects.tokens[direction].tolist() == lengths


def test_loss_with_and_without_all_adapters_is_fairseq_s(found, by_hand) -> None:
    _, findings = found
    for pair in PAIRS:
        own = row(findings.directions, direction=pair)
        close(own["full"], by_hand.full(pair))
        close(own["base"], by_hand.bits(pair, lambda site, side, key: True))
        assert abs(own["full"] - own["base"]) > 0.01
    close(findings.loss["full"], mean(by_hand.full(pair) for pair in PAIRS))
    close(findings.loss["gain"], findings.loss["base"] - findings.loss["full"])


@pytest.mark.parametrize(("name", "key"), [("fr", FR), ("wo", WO)])
def test_a_language_left_out_is_its_b_zeroed_by_hand(found, by_hand, name, key) -> None:
    _, findings = found
    for role, pairs in (
        ("source", [pair for pair in PAIRS if pair.startswith(name)]),
        ("target", [pair for pair in PAIRS if pair.endswith(name)]),
    ):
        expected = mean(
            by_hand.bits(pair, lambda site, side, owner: owner == key) - by_hand.full(pair) for pair in pairs
        )
        own = row(findings.parts, by="language", name=name, **{"as": role})
        close(own["change"], expected)
        assert own["directions"] == 2


def test_layers_and_positions_left_out_are_zeroed_by_hand(found, by_hand) -> None:
    _, findings = found
    for kind, name, left_out in (
        ("layer", "encoder 1", lambda site, side, key: (site.stack, site.layer) == ("encoder", 1)),
        ("position", "encoder v", lambda site, side, key: (site.stack, site.position) == ("encoder", "v")),
        ("position", "decoder crossk", lambda site, side, key: site.position == "crossk"),
    ):
        expected = mean(by_hand.bits(pair, left_out) - by_hand.full(pair) for pair in PAIRS)
        own = row(findings.parts, by=kind, name=name)
        close(own["change"], expected)
        close(own["share"], expected / findings.loss["gain"])


def test_a_cell_leaves_out_one_language_at_one_place_only(found, by_hand) -> None:
    """At the position, one encoder layer reads the source's adapter and the other the target's."""
    _, findings = found
    for wanted, left_out in (
        ({"layer": "0", "stack": "decoder"}, lambda site, side, key: key == WO and site[:2] == ("decoder", 0)),
        (
            {"position": "fc1", "stack": "encoder"},
            lambda site, side, key: key == WO and (site.stack, site.position) == ("encoder", "fc1"),
        ),
    ):
        acts = [pair for pair in PAIRS if pair.endswith("wo") or ("wo" in pair and wanted["stack"] == "encoder")]
        expected = mean(by_hand.bits(pair, left_out) - by_hand.full(pair) for pair in acts)
        close(row(findings.cells, name="wo", **wanted)["change"], expected)


def test_shares_of_feed_forward_and_attention_adapters(found, by_hand) -> None:
    _, findings = found
    full, base = findings.loss["full"], findings.loss["base"]
    for kind, other in ((True, False), (False, True)):
        own = row(findings.kinds, kind="fc" if kind else "attention")

        def loss(left_out: bool) -> float:
            return mean(
                by_hand.bits(pair, lambda site, side, key: site.position.startswith("fc") == left_out) for pair in PAIRS
            )

        close(own["gained_alone"], (base - loss(other)) / (base - full))
        close(own["lost_without"], (loss(kind) - full) / (base - full))


def test_adapters_of_feed_forward_layers_alone_gain_everything(toy_data, tmp_path) -> None:
    def zero(state: dict) -> None:
        for name, value in state["model"].items():
            if name.endswith("lora_B") and ".fc" not in name:
                value.zero_()

    path = checkpoint(tmp_path / "fc.pt", toy.plugin_flags(toy_data), zero)
    effects, _ = measured(prepare(options(path, toy_data, by=("fc",))))
    kinds = find(effects, {}, {}).kinds
    fc, attention = row(kinds, kind="fc"), row(kinds, kind="attention")
    assert (fc["gained_alone"], fc["lost_without"]) == (1, 1)
    assert (attention["gained_alone"], attention["lost_without"]) == (0, 0)


def exchanged(state: dict) -> None:
    """Exchanges the rows of en and fr, of rank 2 each, which come first."""
    for name, value in state["model"].items():
        if name.endswith(("lora_A", "lora_B")):
            value[:4] = value[[2, 3, 0, 1]].clone()


def test_replacing_is_a_checkpoint_with_the_rows_exchanged_by_hand(found, toy_data, tmp_path) -> None:
    effects, _ = found
    other = checkpoint(tmp_path / "exchanged.pt", toy.plugin_flags(toy_data), exchanged)
    theirs, _ = measured(prepare(options(other, toy_data, by=("fc",))))
    for role, replaced, name in (
        ("source", "en-wo", "en"),
        ("source", "fr-wo", "fr"),
        ("target", "wo-en", "en"),
        ("target", "wo-fr", "fr"),
    ):
        direction = Direction.parse(replaced)
        by = "fr" if name == "en" else "en"
        close(effects.bits((role, by), direction), theirs.bits(frozenset(), direction))
        assert abs(effects.bits((role, by), direction) - effects.bits(frozenset(), direction)) > 1e-3


def test_replacing_by_an_adapter_of_another_rank(found, by_hand) -> None:
    """All numbers of one language, against a copy in which a key stands for another."""
    _, findings = found

    def key_of(side: str, source: int, target: int) -> int:
        key = source if side == "src" else target
        return WO if key == EN else key

    pairs = [pair for pair in PAIRS if "en" in pair]
    without_en = mean(by_hand.bits(pair, lambda site, side, key: key == EN) - by_hand.full(pair) for pair in pairs)
    expected = mean(by_hand.bits(pair, key_of=key_of) - by_hand.full(pair) for pair in pairs)
    own = row(findings.swaps, name="en", by="wo", **{"as": "both"})
    close(own["change"], expected)
    close(own["change_without"], without_en)
    back = row(findings.swaps, name="wo", by="en", **{"as": "both"})
    pair = row(findings.similarities, one="en", other="wo", **{"as": "both"})
    lost = own["change_without"] + back["change_without"]
    close(pair["similarity"], 1 - (own["change"] + back["change"]) / lost)


def test_cosines_are_those_of_the_updates_themselves(found, path) -> None:
    _, findings = found
    state = torch.load(path, weights_only=False)["model"]
    rows = {"en": slice(0, 2), "fr": slice(2, 4), "wo": slice(7, 11)}
    updates: dict[str, list[torch.Tensor]] = {name: [] for name in rows}
    for entry in (name for name in state if name.endswith("lora_A")):
        for name, part in rows.items():
            a, b = state[entry][part], state[f"{entry[:-1]}B"][part]
            updates[name].append((b.T @ a).flatten())
    whole = {name: torch.cat(parts).double() for name, parts in updates.items()}
    for one, other in (("en", "fr"), ("en", "wo"), ("fr", "wo")):
        own = row(findings.similarities, one=one, other=other, **{"as": "both"})
        close(own["cosine"], float(torch.cosine_similarity(whole[one], whole[other], dim=0)))
        assert len(own["cosines"]) == len(updates["en"])
        first = float(torch.cosine_similarity(updates[one][0], updates[other][0], dim=0))
        assert min(abs(value - first) for value in own["cosines"].values()) < 1e-6


def test_the_model_is_as_it_was_afterwards_even_if_it_was_interrupted(toy_data) -> None:
    _, model = toy.build(toy.plugin_flags(toy_data, "--weight-learning", "True"))
    toy.randomise_adapters(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    site = Site("decoder", 1, "fc2")
    b = model.adapters.linears[site].lora_B
    for role, half in (("source", slice(0, 15)), ("target", slice(15, 30))):
        with suppress(KeyboardInterrupt), without(model.adapters, frozenset([(site, role)])):
            assert not b[half].any()
            assert int((b == 0).all(1).sum()) == 15
            raise KeyboardInterrupt
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_nothing_but_the_chosen_is_measured_and_no_pass_twice(path, toy_data) -> None:
    plan = prepare(options(path, toy_data, by=("layer",), langs=None, lang_pairs="en-fr,fr-en")).plan
    assert len(plan.left_out) == len(set(plan.left_out)) == 2 + 4  # each layer has one side
    assert plan.swaps == ()
    assert plan.passes == 12
    plan = prepare(options(path, toy_data, langs=None, by=("swap",))).plan
    assert plan.passes == 20 * (2 + 2) + 2 * 5 * 16
