"""What several processes that evaluate together tell each other, and how they divide the work."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch

from langspec_lora.errors import UserError
from langspec_lora.evaluation.share import Share


@pytest.mark.parametrize(("count", "weights"), [(1, [1, 1]), (3, [1] * 12), (3, [5, 1, 1, 1, 1, 1]), (4, [1, 2])])
def test_the_parts_of_all_processes_are_the_whole_in_its_order(count, weights) -> None:
    items = list(range(len(weights)))
    parts = [Share(rank, count).part(items, weights) for rank in range(count)]
    assert [item for part in parts for item in part] == items
    heaviest = max(sum(weights[item] for item in part) for part in parts)
    assert heaviest <= sum(weights) / count + max(weights)


def test_two_processes_take_parts_as_even_as_neighbours_can_be() -> None:
    draw = random.Random(0)
    for _ in range(50):
        weights = [draw.randint(1, 9) for _ in range(draw.randint(1, 8))]
        parts = [Share(rank, 2).part(weights, weights) for rank in range(2)]
        assert parts[0] + parts[1] == weights
        best = min(max(sum(weights[:cut]), sum(weights[cut:])) for cut in range(len(weights) + 1))
        assert max(map(sum, parts)) == best


def test_values_of_any_size_pass_from_process_to_process() -> None:
    store = torch.distributed.HashStore()
    shares = [Share(rank, 3, store) for rank in range(3)]
    content = random.Random(0).randbytes(3 * 2**20 + 5)
    with ThreadPoolExecutor(3) as pool:
        for value in (content, b"", None, "again"):
            read = pool.map(lambda share, value=value: share.in_first(lambda: (value, share.rank)), shares)
            assert list(read) == [(value, 0)] * 3
            gathered = pool.map(lambda share: share.in_each(lambda: (share.rank, content)), shares)
            assert list(gathered) == [[(rank, content) for rank in range(3)]] * 3


class Watched(torch.distributed.HashStore):
    """A store that notes how large its entries are, and how long one waits for them."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes, self.patience = [], timedelta(0)

    def set(self, key: str, value: str) -> None:
        self.sizes.append(len(value))
        super().set(key, value)

    def set_timeout(self, timeout: timedelta) -> None:
        self.patience = timeout
        super().set_timeout(timeout)


def test_no_entry_of_the_store_is_larger_than_it_takes_and_none_is_a_crumb() -> None:
    store = Watched()
    assert Share(0, 1, store).in_first(lambda: bytes(20 * 2**20)) == bytes(20 * 2**20)
    assert max(store.sizes) <= 8 * 2**20  # the limit of torch's TCPStore
    assert len(store.sizes) < 100


def test_a_single_process_keeps_its_values_to_itself(monkeypatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with Share.together() as share:
        assert share == Share() == Share(0, 1, None)
        assert share.in_first(lambda: 5) == 5
        assert share.in_each(lambda: 5) == [5]
        assert share.part("ab", [1, 2]) == ["a", "b"]


def test_processes_that_torchrun_started_meet_and_the_first_ends_last(monkeypatch) -> None:
    store, asked, events = Watched(), [], []

    def rendezvous(address: str, timeout: timedelta):
        """Stands in for torch's, which gives (store, rank, number of processes) by the environment."""
        asked.append((address, timeout))
        yield store, len(asked) - 1, 2

    monkeypatch.setattr(torch.distributed, "rendezvous", rendezvous)
    for name, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)

    def take_part() -> None:
        with Share.together() as share:
            assert share.count == 2
            assert share.in_each(lambda: share.rank) == [0, 1]
            if share.rank:
                time.sleep(0.2)
                events.append("the second has done its work")
        if share.rank == 0:
            events.append("the first has left")

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(take_part) for _ in range(2)]:
            future.result(timeout=60)
    assert events == ["the second has done its work", "the first has left"]
    assert {address for address, _ in asked} == {"env://"}
    assert min(store.patience, *(timeout for _, timeout in asked)) > timedelta(days=1)


@pytest.mark.parametrize(("local_rank", "device"), [("3", 1), (None, 0)])
def test_each_process_takes_the_gpu_that_is_its_own(monkeypatch, local_rank, device) -> None:
    taken = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(torch.distributed, "rendezvous", lambda *_, **__: iter([(torch.distributed.HashStore(), 1, 2)]))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    if local_rank is None:
        monkeypatch.delenv("LOCAL_RANK", raising=False)
    else:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    with Share.together():
        assert taken == [device]


def test_a_failure_of_the_first_process_ends_the_others() -> None:
    store = torch.distributed.HashStore()
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(Share(rank, 2, store).in_first, lambda: 1 / 0) for rank in range(2)]
        problems = [future.exception() for future in futures]
    assert [type(problem) for problem in problems] == [ZeroDivisionError, SystemExit]
    assert problems[1].code == 1


def test_a_failure_in_any_process_is_said_once_and_ends_all() -> None:
    store = torch.distributed.HashStore()
    shares = [Share(rank, 3, store) for rank in range(3)]

    def refuse_in_all_but_the_first(share: Share) -> int:
        if share.rank:
            raise UserError(f"too long in {share.rank}")
        return share.rank

    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(share.in_each, lambda share=share: 10 + share.rank) for share in shares]
        assert [future.result() for future in futures] == [[10, 11, 12]] * 3
        futures = [
            pool.submit(share.in_each, lambda share=share: refuse_in_all_but_the_first(share)) for share in shares
        ]
        problems = [future.exception() for future in futures]
    assert [type(problem) for problem in problems] == [UserError, SystemExit, SystemExit]
    assert str(problems[0]) == "too long in 1"
