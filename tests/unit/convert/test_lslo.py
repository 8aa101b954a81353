"""Adapters of the released implementation, as plain tensors; whole checkpoints are in integration."""

from __future__ import annotations

from argparse import Namespace

import pytest
import torch

from langspec_lora.adapters.packed import Adapters
from langspec_lora.convert.lslo import released_adapters
from langspec_lora.errors import UserError
from langspec_lora.languages import PAPER_RESOURCES

LANGUAGES = {"en": (0, 2), "nl": (4, 3), "wo": (11, 4)}
"""Ids and ranks."""

WIDTH_IN, WIDTH_OUT = 5, 6
SITES = [("encoder", 0, "q"), ("encoder", 1, "fc2"), ("decoder", 1, "crossv")]
SIDES = {"encoder": ("src", "tgt"), "decoder": ("tgt", "tgt")}


def entry(site: tuple[str, int, str], language: str, part: str) -> str:
    number = LANGUAGES[language][0]
    return f"{site[0]}.layers.{site[1]}.{site[2]}_lora.lang_spec_lora.{number}.lora_{part}"


def state(changes: dict[str, torch.Tensor | None] | None = None) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    entries = {"encoder.embed_tokens.weight": torch.randn(3, 5)}
    for site in SITES:
        for language, (_, rank) in LANGUAGES.items():
            entries[entry(site, language, "a")] = torch.randn(WIDTH_IN, rank)
            entries[entry(site, language, "b")] = torch.randn(rank, WIDTH_OUT)
    entries |= changes or {}
    return {name: value for name, value in entries.items() if value is not None}


def arguments(**changes) -> Namespace:
    given = {"langs": "en,nl,wo", "encoder_layers": 2, "decoder_layers": 2, "dim": 4, "start_idx": 1}
    given |= {"encoder_activation_direction": "src_tgt", "decoder_activation_direction": None}
    return Namespace(**{**given, "high_rank": 2, "med_rank": 3, "low_rank": 4, **changes})


def adapters(entries: dict, args: Namespace | None = None, epoch: int = 7) -> Adapters:
    return released_adapters(entries, args or arguments(), None, PAPER_RESOURCES, epoch, "checkpoint a.pt")


def refusal(entries: dict, args: Namespace | None = None) -> str:
    with pytest.raises(UserError) as refused:
        adapters(entries, args)
    assert str(refused.value).isprintable()
    return str(refused.value)


def test_adapters_are_packed_language_by_language() -> None:
    entries = state()
    found = adapters(entries)
    assert (found.languages.names, found.languages.levels) == (("en", "nl", "wo"), ("high", "med", "low"))
    assert found.languages.ranks == (2, 3, 4)
    assert (found.sides, found.dim, found.start, found.mask_epoch) == (SIDES, 4, 1, 0)
    assert list(found.packed) == SITES
    for site, packed in found.packed.items():
        assert torch.equal(packed.a, torch.cat([entries[entry(site, name, "a")].t() for name in LANGUAGES]))
        assert torch.equal(packed.b, torch.cat([entries[entry(site, name, "b")] for name in LANGUAGES]))
        assert torch.equal(packed.mask, torch.ones(9, WIDTH_OUT, dtype=torch.uint8))
        assert packed.mask.dtype == torch.uint8


@pytest.mark.parametrize("flag", ["pruning", "global_pruning"])
def test_zeros_of_a_training_that_pruned_are_pruned_where_a_language_has_trained(flag) -> None:
    """en was never a source language: its B of encoder layer 0 is as it started."""
    zeros = {entry(SITES[0], "en", "b"): torch.zeros(2, WIDTH_OUT)}
    lost = {entry(SITES[1], "en", "b"): torch.zeros(2, WIDTH_OUT)}  # all its entries there, but not elsewhere
    part = torch.tensor([[0.0, -1.0, 1.0, 0.0, 2.0, -2.0]] * 4)
    entries = state({**zeros, **lost, entry(SITES[0], "wo", "b"): part})
    found = adapters(entries, arguments(**{flag: True}))
    assert found.mask_epoch == 7
    masks = [found.packed[site].mask for site in SITES]
    assert masks[0][:2].all()
    assert not masks[1][:2].any()
    assert masks[0][5:].tolist() == [[0, 1, 1, 0, 1, 1]] * 4
    assert masks[0][2:5].all()
    assert masks[1][2:].all()
    assert masks[2].all()
    assert {mask.dtype for mask in masks} == {torch.uint8}
    untouched = adapters(entries, arguments(**{flag: False}))
    assert all(packed.mask.all() for packed in untouched.packed.values())
    assert untouched.mask_epoch == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_mask_in_the_file_is_the_mask(dtype, capsys) -> None:
    """At one site of one language; B is the product, of its own type."""
    b, mask = torch.randn(3, WIDTH_OUT).to(dtype), torch.tensor([[1.0, 0.0, 1.0, 1.0, 0.0, 1.0]] * 3)
    b[0, 0] = 0  # which lives all the same
    site = SITES[1]
    parts = {entry(site, "nl", "b"): None, entry(site, "nl", "b_orig"): b, entry(site, "nl", "b_mask"): mask}
    everything = {name: value.to(dtype) for name, value in state().items()}
    entries = {name: value for name, value in {**everything, **parts}.items() if value is not None}
    found = adapters(entries)
    assert "langspec-lora: checkpoint a.pt was saved before a validation; its masks" in capsys.readouterr().err
    assert found.mask_epoch == 7
    packed = found.packed[site]
    assert packed.mask[2:5].tolist() == mask.tolist()
    assert packed.mask.dtype == torch.uint8
    assert packed.b.dtype == dtype
    assert torch.equal(packed.b[2:5], torch.where(mask == 1, b, torch.zeros_like(b)))
    assert packed.mask[:2].all()
    assert packed.mask[5:].all()


def test_without_masks_nothing_is_said(capsys) -> None:
    adapters(state())
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("names", [("dim",), ("start_idx",), ("dim", "start_idx")])
@pytest.mark.parametrize("how", ["missing", "empty"])
def test_a_slice_that_nothing_says_is_the_whole_layer(names, how) -> None:
    args = arguments(**dict.fromkeys(names))
    if how == "missing":
        for name in names:
            delattr(args, name)
    found = adapters(state(), args)
    assert (found.dim, found.start) == (0 if "dim" in names else 4, 0 if "start_idx" in names else 1)


ODD = ("decoder", 1, "crossv")
WHERE = "the adapter of nl (id 4) at decoder.1.crossv"
SIZES = "expected D × rank and rank × D"
ELSEWHERE = "expected rank 3 and widths 5 and 6, as elsewhere"


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"a": None}, "consists of lora_b; expected lora_a and lora_b, or lora_a, lora_b_orig and lora_b_mask"),
        ({"b": None}, "consists of lora_a; expected"),
        ({"a": None, "b": None}, "consists of nothing; expected"),
        ({"b": None, "b_orig": torch.ones(3, 6)}, "consists of lora_a, lora_b_orig; expected"),
        ({"b": None, "b_mask": torch.ones(3, 6)}, "consists of lora_a, lora_b_mask; expected"),
        ({"a": None, "b": None, "b_orig": torch.ones(3, 6), "b_mask": torch.ones(3, 6)}, "lora_b_mask, lora_b_orig; "),
        (
            {"b": None, "b_orig": torch.ones(3, 6), "b_mask": torch.ones(3, 1)},
            "not a mask of zeros and ones in the shape",
        ),
        ({"b": None, "b_orig": torch.ones(3, 6), "b_mask": torch.ones(3, 6) * 2}, "not a mask of zeros and ones"),
        ({"b": None, "b_orig": torch.ones(3, 6), "b_mask": -torch.ones(3, 6)}, "not a mask of zeros and ones"),
        ({"a": torch.ones(3)}, SIZES),
        ({"a": torch.ones(5, 3, 1)}, SIZES),
        ({"b": torch.ones(3)}, SIZES),
        ({"b": torch.ones(3, 6, 1)}, SIZES),
        ({"b": torch.ones(2, 6)}, "has shapes (5, 3) and (2, 6); expected D × rank and rank × D"),
        ({"a": torch.ones(5, 0), "b": torch.ones(0, 6)}, SIZES),
        ({"a": torch.ones(5, 2), "b": torch.ones(2, 6)}, f"has shapes (5, 2) and (2, 6); {ELSEWHERE}"),
        ({"a": torch.ones(7, 3)}, f"has shapes (7, 3) and (3, 6); {ELSEWHERE}"),
        ({"b": torch.ones(3, 8)}, f"has shapes (5, 3) and (3, 8); {ELSEWHERE}"),
    ],
)
def test_adapters_of_other_parts_or_sizes_are_named(parts, words) -> None:
    message = refusal(state({entry(ODD, "nl", part): value for part, value in parts.items()}))
    assert message.startswith("checkpoint a.pt: ")
    assert (WHERE if ELSEWHERE not in words else WHERE.replace(" (id 4)", "")) in message
    assert words in message


@pytest.mark.parametrize(("part", "size"), [("a", (7, 4)), ("b", (4, 8))])
def test_of_several_widths_the_first_language_s_is_expected(part, size) -> None:
    message = refusal(state({entry(ODD, "wo", part): torch.ones(size)}))
    assert "the adapter of wo at decoder.1.crossv has shapes" in message
    assert "expected rank 4 and widths 5 and 6, as elsewhere" in message


def test_positions_that_a_stack_has_not_are_named() -> None:
    entries = state({entry(("encoder", 0, "crossq"), "en", "a"): torch.ones(5, 2)})
    assert "checkpoint a.pt adapts crossq of the encoder, which has no such position" in refusal(entries)


def test_a_model_without_such_adapters_is_named() -> None:
    assert "checkpoint a.pt holds no adapters of the released implementation" in refusal({"encoder.x": torch.ones(1)})


def further(*sites: tuple[str, int, str]) -> dict[str, torch.Tensor]:
    """Adapters at further sites."""
    entries = {}
    for site in sites:
        for name, (_, rank) in LANGUAGES.items():
            entries |= {entry(site, name, "a"): torch.ones(5, rank), entry(site, name, "b"): torch.ones(rank, 6)}
    return entries


@pytest.mark.parametrize(
    ("sites", "words"),
    [
        ([("encoder", 2, "q")], "adapts encoder.2.q, but its arguments say 2 encoder layers"),
        ([("encoder", 2, "q"), ("decoder", 3, "q")], "adapts decoder.3.q, but its arguments say 1 decoder layers"),
    ],
)
def test_adapters_of_layers_beyond_the_arguments_are_named(sites, words) -> None:
    layers = {"decoder_layers": 1} if len(sites) > 1 else {}
    entries = {name: value for name, value in state().items() if not layers or "decoder" not in name}
    assert words in refusal({**entries, **further(*sites)}, arguments(**layers))


@pytest.mark.parametrize("how", ["missing", "empty"])
def test_arguments_that_are_not_whole_are_named(how) -> None:
    args = arguments(encoder_activation_direction=None, encoder_layers=None)
    if how == "missing":
        del args.encoder_layers
    assert "checkpoint a.pt holds incomplete training arguments" in refusal(state(), args)


def test_other_directions_and_slices_are_named() -> None:
    assert "'both' is not a side" in refusal(state(), arguments(encoder_activation_direction="src_both"))
    assert "its argument start_idx is 'x'; expected a whole number" in refusal(state(), arguments(start_idx="x"))


def test_languages_and_ranks_are_checked() -> None:
    assert "whose adapter has rank 4" in refusal(state(), arguments(low_rank=8))
    assert "the adapter of fr (id 1) at encoder.0.q consists of nothing" in refusal(state(), arguments(langs="en,fr"))
