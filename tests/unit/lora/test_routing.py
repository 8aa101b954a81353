"""Which rows each sentence uses, against lists written out by hand."""

from __future__ import annotations

import pytest
import torch

from langspec_lora.keys import KeyLayout
from langspec_lora.lora import LanguageRouting, Languages
from langspec_lora.lora import routing as routing_module

RANKS = (2, 1, 3)
ROWS = ([0, 1], [2], [3, 4, 5])


def gathering(monkeypatch: pytest.MonkeyPatch, ranks: tuple[int, ...] = RANKS) -> LanguageRouting:
    monkeypatch.setattr(routing_module, "DENSE_ROWS", 0)
    return LanguageRouting(KeyLayout.by_language(ranks))


def set_ids(routing: LanguageRouting, source: list[int], target: list[int] | None = None) -> None:
    routing.set_batch(torch.tensor(source).unsqueeze(1), torch.tensor(target or source).unsqueeze(1))


def used(rows: torch.Tensor, foreign: torch.Tensor | None) -> list[list[int]]:
    """The rows of each sentence that are its own."""
    keep = torch.ones_like(rows, dtype=torch.bool) if foreign is None else ~foreign
    return [row[own].tolist() for row, own in zip(rows, keep, strict=True)]


def test_a_layout_counts_its_rows() -> None:
    layout = KeyLayout.by_language(RANKS).packed["src"]
    assert layout.rows == 6
    assert layout.offsets == (0, 2, 3)
    assert [list(range(6))[layout.slice(language)] for language in range(3)] == list(ROWS)


def test_gathered_rows_are_those_of_each_sentence_and_the_rest_is_foreign(monkeypatch) -> None:
    routing = gathering(monkeypatch)
    set_ids(routing, [2, 0, 1], [1, 1, 2])
    source, target = routing.select("src", 3), routing.select("tgt", 3)
    assert used(source.rows, source.foreign) == [ROWS[2], ROWS[0], ROWS[1]]
    assert used(target.rows, target.foreign) == [ROWS[1], ROWS[1], ROWS[2]]
    # What a language of lower rank lacks is its first row again, not another's.
    assert source.rows.tolist() == [[3, 4, 5], [0, 1, 0], [2, 2, 2]]


def test_languages_of_one_rank_have_no_foreign_rows(monkeypatch) -> None:
    routing = gathering(monkeypatch, (2, 2, 2))
    set_ids(routing, [2, 0])
    selection = routing.select("src", 2)
    assert selection.rows.tolist() == [[4, 5], [0, 1]]
    assert selection.foreign is None


@pytest.mark.parametrize(("ranks", "dense"), [((60, 68), True), ((60, 69), False)])
def test_up_to_128_rows_all_are_projected_onto_and_those_of_others_are_foreign(ranks, dense) -> None:
    routing = LanguageRouting(KeyLayout.by_language(ranks))
    set_ids(routing, [1, 0])
    selection = routing.select("src", 2)
    assert (selection.rows is None) == dense
    if dense:
        assert [(~own).nonzero().view(-1).tolist() for own in selection.foreign] == [
            list(range(60, 128)),
            list(range(60)),
        ]


@pytest.mark.parametrize("dense", [0, 10**6])
def test_one_language_for_all_sentences_gathers_its_rows_once(monkeypatch, dense) -> None:
    monkeypatch.setattr(routing_module, "DENSE_ROWS", dense)
    routing = LanguageRouting(KeyLayout.by_language(RANKS))
    set_ids(routing, [1], [2])
    for batch in (1, 7):
        selection = routing.select("src", batch)
        assert used(selection.rows, selection.foreign) == [ROWS[1]]
    selection = routing.select("tgt", 7)
    assert used(selection.rows, selection.foreign) == [ROWS[2]]


def test_a_tensor_of_sentences_follows_a_batch_of_beams(monkeypatch) -> None:
    routing = gathering(monkeypatch)
    set_ids(routing, [2, 2, 2, 0, 0, 0])
    for batch, expected in ((2, [ROWS[2], ROWS[0]]), (6, [ROWS[2]] * 3 + [ROWS[0]] * 3)):
        selection = routing.select("src", batch)
        assert used(selection.rows, selection.foreign) == expected
    for batch in (4, 7, 12):
        with pytest.raises(RuntimeError, match=f"{batch} sentences were given, but the routing was set for 6"):
            routing.select("src", batch)


def test_a_selection_is_made_once_for_a_batch_and_anew_for_the_next(monkeypatch) -> None:
    routing = gathering(monkeypatch)
    set_ids(routing, [2, 0])
    first = routing.select("src", 2)
    assert routing.select("src", 2) is first
    routing.set(routing.current)
    assert routing.select("src", 2) is first
    set_ids(routing, [1, 0])
    second = routing.select("src", 2)
    assert used(second.rows, second.foreign) == [ROWS[1], ROWS[0]]


def test_without_languages_nothing_is_selected(monkeypatch) -> None:
    routing = gathering(monkeypatch)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="carries no language ids; use the task"):
            routing.select("src", 1)
        set_ids(routing, [0])
        routing.select("src", 1)
        routing.set(None)


def test_ids_of_the_batch_are_translated_to_the_model_s_own(monkeypatch) -> None:
    routing = gathering(monkeypatch)
    assert routing.model_ids == [0, 1, 2]
    routing.translate_ids([1, None, 2, 0])
    assert routing.model_ids == [1, 3, 2, 0]
    set_ids(routing, [0, 2], [3, 3])
    assert used(*vars(routing.select("src", 2)).values()) == [ROWS[1], ROWS[2]]
    assert used(*vars(routing.select("tgt", 2)).values()) == [ROWS[0], ROWS[0]]
    for ids in ([1, 0], [1]):
        set_ids(routing, ids)
        with pytest.raises(IndexError):
            routing.select("src", len(ids))


def test_languages_are_set_for_the_length_of_a_block_even_where_it_fails(monkeypatch) -> None:
    routing = gathering(monkeypatch)
    set_ids(routing, [2, 0])
    outside, inside = routing.current, Languages(torch.tensor([1]), torch.tensor([1]))
    with routing.using(inside):
        assert routing.current is inside
        assert used(*vars(routing.select("src", 2)).values()) == [ROWS[1]]
    assert routing.current is outside
    with pytest.raises(ZeroDivisionError), routing.using(inside):
        _ = 1 / 0
    assert routing.current is outside
    assert used(*vars(routing.select("src", 2)).values()) == [ROWS[2], ROWS[0]]


def test_tables_follow_the_model_to_its_device_and_are_not_saved() -> None:
    routing = LanguageRouting(KeyLayout.by_language(RANKS))
    assert not routing.state_dict()
    moved = routing.to("meta")
    assert all(table.is_meta for table in moved.buffers())
    moved.translate_ids([2, 1, 0])
    assert moved.model_id.is_meta
