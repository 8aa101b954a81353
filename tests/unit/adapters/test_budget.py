"""Ranks for a budget: the largest that fit, and the published numbers of parameters."""

from __future__ import annotations

from argparse import Namespace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langspec_lora.adapters.budget import Variant, count_parameters, fit_ranks, proportional_ranks
from langspec_lora.cli.main import main
from langspec_lora.errors import UserError
from langspec_lora.flags import AdapterFlags
from langspec_lora.sizes import M2M100
from tests.properties import examples

TWELVE = "en,fr,it,de,nl,zh,ja,ko,oc,or,sd,wo"


def arguments(**flags) -> Namespace:
    sizes = M2M100["langspec_m2m100_lora_base"].arguments()
    return Namespace(**{**vars(AdapterFlags()), **sizes, "langs": TWELVE, "lang_pairs": "en-fr,fr-wo", **flags})


@pytest.mark.parametrize(
    ("ranks", "parameters"),
    [((2, 2, 8), 15_335_424), ((8, 8, 8), 30_670_848), ((16, 16, 16), 61_341_696), ((64, 64, 64), 245_366_784)],
)
def test_the_papers_parameters(ranks, parameters) -> None:
    own = dict(zip(("high_rank", "med_rank", "low_rank"), ranks, strict=True))
    assert count_parameters(arguments(dim=1024, **own)) == parameters
    shared = {"adapter_key": "shared", "shared_rank": None}
    assert count_parameters(arguments(dim=1024, **own, **shared)) == parameters


def test_directions_have_the_larger_of_both_ranks() -> None:
    unit = 319_488  # of one language and one unit of rank
    assert count_parameters(arguments(dim=1024, adapter_key="direction")) == (2 + 8) * unit


@examples(25)
@given(st.lists(st.integers(1, 5), min_size=3, max_size=3), st.integers(3_833_856, 10**8))
def test_no_larger_ranks_of_the_same_proportions_fit(proportions, budget) -> None:
    names = ("high_rank", "med_rank", "low_rank")
    own = arguments(dim=1024, **dict(zip(names, proportions, strict=True)))
    (fit,) = fit_ranks(own, [Variant("of languages", {})], budget)
    unit = 4 * 319_488  # of a level, by METHOD's count
    assert fit.parameters == unit * sum(fit.ranks.values()) <= budget
    # Every scale at which a rank grows, one after the other.
    scales = sorted({count / part for part in proportions for count in range(1, 90)})
    sizes = [[max(1, int(scale * part + 1e-9)) for part in proportions] for scale in scales]
    fitting = [ranks for ranks in sizes if unit * sum(ranks) <= budget]
    assert sum(fit.ranks.values()) == max([sum(ranks) for ranks in fitting], default=3)


def test_a_shared_adapter_takes_all_of_the_budget() -> None:
    (fit,) = fit_ranks(arguments(dim=1024), [Variant("shared", {"adapter_key": "shared"})], 15_335_424 + 319_487)
    assert dict(fit.ranks) == {"shared_rank": 48}


def test_a_budget_below_rank_1_is_refused_but_not_where_other_adapters_fit(capsys) -> None:
    with pytest.raises(UserError, match=r"^--budget 300,000 is below rank 1: the smallest adapters .* have 319,488 "):
        fit_ranks(arguments(dim=1024), [Variant("shared", {"adapter_key": "shared"})], 300_000)
    assert main(["ranks", "--budget", "0.4M", "--langs", "en,fr", "--dim", "1024"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["of", "languages", "638,976", "—", "rank", "1", "exceeds", "the", "budget"]
    assert lines[1].split()[-4:] == ["--adapter-key", "shared", "--shared-rank", "1"]


def test_the_flags_that_are_printed_make_the_parameters_that_are_printed(capsys, tmp_path) -> None:
    groups = tmp_path / "groups.yaml"
    groups.write_text("west: [en, fr]\neast: [wo]\n")
    command = ["ranks", "--budget", "20M", "--langs", "en,fr,wo", "--lang-pairs", "en-wo,wo-fr"]
    assert main([*command, "--lang-groups", str(groups)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    for line in lines:
        words = line.split("%")[1].split()
        flags = {word[2:].replace("-", "_"): value for word, value in zip(words[::2], words[1::2], strict=True)}
        flags = {name: int(value) if name.endswith("_rank") else value for name, value in flags.items()}
        own = arguments(langs="en,fr,wo", lang_pairs="en-wo,wo-fr", **flags)
        assert f" {count_parameters(own):,} " in line
        assert 0.8 * 20e6 < count_parameters(own) <= 20e6


@pytest.mark.parametrize("text", ["0", "x", "-3", "15 M", "1e6", "0.1"])
def test_a_budget_that_is_no_number_of_parameters_is_refused(text, capsys) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["ranks", f"--budget={text}", "--langs", "en,fr"])
    assert "expected a number of parameters, such as 15M" in str(refused.value)


def test_the_size_of_a_checkpoint_is_taken(toy_data, tmp_path, capsys) -> None:
    from tests import toy
    from tests.bad_input import write_checkpoint

    path = write_checkpoint(tmp_path / "model.pt", toy.plugin_flags(toy_data), lambda state: None)
    assert main(["ranks", "--budget", "100k", "--base", str(path), "--langs", "en,fr,wo"]) == 0
    first = capsys.readouterr().out.splitlines()[0].split()
    unit = 896  # see test_parameters_are_counted_by_language
    assert int(first[2].replace(",", "")) % unit == 0


def test_proportions_are_kept_in_whole_numbers() -> None:
    fits = [
        dict(fit_ranks(arguments(dim=1024), [Variant("", {})], budget * 4 * 319_488)[0].ranks).values()
        for budget in range(3, 40)
    ]
    for high, med, low in fits:
        assert high == med
        assert (high, low) in set(product(range(1, 9), range(1, 30)))
        assert 4 * high <= low < 4 * (high + 1) or high == 1


@examples(60)
@given(st.lists(st.floats(0.01, 50), min_size=1, max_size=9), st.integers(0, 300), st.integers(1, 40))
def test_ranks_in_proportion_use_the_budget_up(parts, more, most) -> None:
    names = dict(enumerate(parts))
    units = len(parts) + more
    ranks = proportional_ranks(names, lambda own: 7 * sum(own.values()), 7 * units + 6, most)
    assert sum(ranks.values()) == min(units, most * len(parts))
    assert set(ranks.values()) <= set(range(1, most + 1))
    free = [name for name in names if 1 < ranks[name] < most]
    for one, other in product(free, free):  # none is more than a unit away from its proportion to another
        assert (ranks[one] - 1) / names[one] <= (ranks[other] + 1) / names[other] + 1e-6


def test_what_uses_nothing_gets_rank_1_and_ties_share_what_is_left() -> None:
    def cost(own) -> int:
        return sum(own.values())

    assert proportional_ranks({"a": 3.0, "b": 0.0}, cost, 10, 99) == {"a": 9, "b": 1}
    assert sorted(proportional_ranks({"a": 0.0, "b": 0.0, "c": 0.0}, cost, 8, 99).values()) == [2, 3, 3]
    with pytest.raises(UserError, match=r"^--budget 2 is below rank 1: the smallest adapters .* have 3 parameters; "):
        proportional_ranks({"a": 1.0, "b": 1.0, "c": 1.0}, cost, 2, 99)
