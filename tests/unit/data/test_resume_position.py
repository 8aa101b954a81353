"""A training that resumes within an epoch sees each batch once, on any number of processes, or is refused."""

from __future__ import annotations

from itertools import chain

import pytest
import torch
from fairseq.data.iterators import EpochBatchIterator, GroupedIterator
from torch.utils.data import Dataset

from langspec_lora.data.resume_position import first_update_is_done, keep_position, unfinished_update

BATCHES = 24


class Numbers(Dataset):
    def __len__(self) -> int:
        return BATCHES

    def __getitem__(self, index: int) -> int:
        return index


def iterators(
    processes: int, batches: int = BATCHES, stored: int | None = None, update_freq: int = 1, **options
) -> list[EpochBatchIterator]:
    """The iterator of each process over batches of one number each."""
    made = []
    for shard in range(processes):
        sampler = [[number] for number in range(batches)]
        iterator = EpochBatchIterator(
            Numbers(), torch.tensor, sampler, seed=1, num_shards=processes, shard_id=shard, **options
        )
        keep_position(iterator, lambda: stored, lambda epoch: update_freq)
        made.append(iterator)
    return made


def read(iterator: EpochBatchIterator, count: int | None = None) -> list[int]:
    """The numbers of the next batches of a process."""
    batches = iterator.next_epoch_itr()
    numbers = []
    while batches.has_next() and (count is None or len(numbers) < count):
        numbers.append(next(batches).tolist())
    return [number for batch in numbers for number in batch]


def resumed(processes: int, state: dict, **options) -> list[EpochBatchIterator]:
    made = iterators(processes, **options)
    for iterator in made:
        iterator.load_state_dict(dict(state))
    return made


def test_each_batch_is_read_once_by_one_then_two_then_four_then_one_process() -> None:
    undisturbed = read(iterators(1)[0])
    seen, state = [], None
    for processes, count in ((1, 4), (2, 2), (4, 2), (1, None)):
        made = iterators(processes) if state is None else resumed(processes, state)
        seen.append([read(iterator, count) for iterator in made])
        states = [iterator.state_dict() for iterator in made]
        assert all(one == states[0] for one in states)
        state = states[0]
    parts = [list(chain(*zip(*part, strict=True))) for part in seen]  # processes take batches in turn
    assert list(chain(*parts)) == undisturbed
    assert sorted(undisturbed) == list(range(BATCHES))


def test_a_position_that_cannot_be_shared_is_refused_with_the_numbers_that_can() -> None:
    (one,) = iterators(1)
    read(one, 6)
    with pytest.raises(SystemExit, match="after 6 batches of epoch 1 by 1 process, a position that 4 cannot continue"):
        resumed(4, one.state_dict())
    with pytest.raises(SystemExit, match="resume with 1, 2, 3 or 6, or from"):
        resumed(4, one.state_dict())


def test_groups_shuffled_for_a_number_of_processes_are_resumed_with_that_number_only() -> None:
    made = iterators(2, grouped_shuffling=True)
    states = [read(iterator, 4) and iterator.state_dict() for iterator in made]
    with pytest.raises(SystemExit, match="resume with 2, or from"):
        resumed(4, states[0], grouped_shuffling=True)
    rest = [read(iterator) for iterator in resumed(2, states[0], grouped_shuffling=True)]
    assert all(len(part) == BATCHES // 2 - 4 for part in rest)


@pytest.mark.parametrize("batches", [BATCHES - 1, BATCHES + 8])
def test_a_position_among_other_batches_is_refused(batches: int) -> None:
    (one,) = iterators(1)
    read(one, 6)
    with pytest.raises(SystemExit, match=f"which had {BATCHES} and has {batches} now; resume with the data, --max-tok"):
        resumed(1, one.state_dict(), batches=batches)


def without_ours(state: dict) -> dict:
    return {key: value for key, value in state.items() if key not in ("num_shards", "num_batches")}


def test_a_position_of_fairseq_alone_is_that_of_as_many_processes_as_the_checkpoint_says() -> None:
    made = iterators(2)
    for iterator in made:
        read(iterator, 4)
    state = without_ours(made[0].state_dict())
    assert read(resumed(1, state, stored=2)[0]) == read(iterators(1)[0])[8:]
    assert read(resumed(1, state)[0]) == read(iterators(1)[0])[4:]  # nothing says that there were two


def test_the_end_of_an_epoch_is_resumed_by_any_number() -> None:
    made = iterators(2)
    for iterator in made:
        read(iterator)
    state = made[0].state_dict()
    assert (state["epoch"], state["iterations_in_epoch"]) == (2, 0)
    assert sorted(chain(*(read(iterator) for iterator in resumed(5, state)))) == list(range(BATCHES))


def updates(iterator: EpochBatchIterator, update_freq: int, count: int | None = None) -> list[list[int]]:
    """The numbers in the batches of each of the next updates of a process, which fairseq groups."""
    groups = GroupedIterator(iterator.next_epoch_itr(), update_freq)
    seen = []
    while groups.has_next() and len(seen) != count:
        seen.append([number for batch in next(groups) for number in batch.tolist()])
    assert count is not None or iterator.end_of_epoch()
    return seen


@pytest.mark.parametrize("update_freq", [1, 4, 5])
@pytest.mark.parametrize("after", [1, 2, "all"])
def test_update_whose_validation_was_left_out_is_returned_once_more(update_freq, after) -> None:
    undisturbed = updates(iterators(1)[0], update_freq)
    done = len(undisturbed) if after == "all" else after
    (first,) = iterators(1, update_freq=update_freq)
    updates(first, update_freq, done)
    state = unfinished_update(first)
    assert (state["epoch"], state["iterations_in_epoch"]) == (1, sum(map(len, undisturbed[:done])))
    (second,) = iterators(1, update_freq=update_freq)
    second.load_state_dict(state)
    assert first_update_is_done(second)
    assert second.next_epoch_idx == 1
    assert updates(second, update_freq) == undisturbed[done - 1 :]
    assert second.next_epoch_idx == 2


@pytest.mark.parametrize(("before", "now"), [(1, 2), (2, 1), (3, 2), (2, 3)])
def test_it_is_returned_to_another_number_of_processes_too(before, now) -> None:
    """Two updates of six batches, which are the same batches with any of these numbers of processes."""
    made = iterators(before, update_freq=6 // before)
    for iterator in made:
        updates(iterator, 6 // before, 2)
    again = resumed(now, unfinished_update(made[0]), update_freq=6 // now)
    undisturbed = read(iterators(1)[0])
    read_again = [number for iterator in again for number in updates(iterator, 6 // now, 1)[0]]
    assert sorted(read_again) == sorted(undisturbed[6:12])


def test_last_update_of_an_epoch_is_returned_to_another_number_of_processes() -> None:
    made = iterators(2, batches=23, update_freq=4)
    for iterator in made:
        assert len(updates(iterator, 4)) == 3
    for iterator in resumed(5, unfinished_update(made[0]), batches=23, update_freq=2):
        assert len(updates(iterator, 2)) == 1
        assert iterator.next_epoch_idx == 2


def test_validation_is_left_out_with_a_warning_if_an_update_has_more_batches_than_were_read(caplog) -> None:
    (first,) = iterators(1)
    read(first, 3)
    (second,) = iterators(1, update_freq=4)
    second.load_state_dict(unfinished_update(first))
    assert not first_update_is_done(second)
    assert "the validation and saving after the last update are left out" in caplog.text
    assert len(read(second)) == BATCHES - 3
