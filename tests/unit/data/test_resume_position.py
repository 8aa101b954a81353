"""A training that resumes within an epoch sees each batch once, on any number of processes, or is refused."""

from __future__ import annotations

from itertools import chain

import pytest
import torch
from fairseq.data.iterators import EpochBatchIterator
from torch.utils.data import Dataset

from langspec_lora.data.resume_position import keep_position

BATCHES = 24


class Numbers(Dataset):
    def __len__(self) -> int:
        return BATCHES

    def __getitem__(self, index: int) -> int:
        return index


def iterators(processes: int, batches: int = BATCHES, stored: int | None = None, **options) -> list[EpochBatchIterator]:
    """The iterator of each process over batches of one number each."""
    made = []
    for shard in range(processes):
        sampler = [[number] for number in range(batches)]
        iterator = EpochBatchIterator(
            Numbers(), torch.tensor, sampler, seed=1, num_shards=processes, shard_id=shard, **options
        )
        keep_position(iterator, lambda: stored, lambda epoch: 1)
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
