"""What a process takes from torchrun, and which one speaks."""

from __future__ import annotations

import time

import pytest
import torch

from langspec_lora.errors import UserError
from langspec_lora.evaluation import torchrun


@pytest.fixture(autouse=True)
def alone(monkeypatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


def test_a_process_knows_which_it_is_of_how_many(monkeypatch) -> None:
    assert (torchrun.rank(), torchrun.count()) == (0, 1)
    monkeypatch.setenv("RANK", "2")
    assert (torchrun.rank(), torchrun.count()) == (0, 1)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert (torchrun.rank(), torchrun.count()) == (2, 4)


@pytest.mark.parametrize(("count", "local_rank", "taken"), [("4", "3", [1]), ("4", None, [0]), (None, "1", [])])
def test_each_process_of_torchrun_takes_the_gpu_that_is_its_own(monkeypatch, count, local_rank, taken) -> None:
    found = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", found.append)
    for name, value in {"WORLD_SIZE": count, "LOCAL_RANK": local_rank}.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    torchrun.take_gpu()
    assert found == taken


def test_without_gpus_none_is_taken(monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: pytest.fail(f"{device} was taken"))
    torchrun.take_gpu()


@pytest.mark.parametrize("mistake", [UserError("no such file"), SystemExit("damaged")])
@pytest.mark.parametrize(("rank", "waits"), [("0", 0), ("1", 1)])
def test_a_process_lets_the_first_one_say_a_mistake_before_it_does(monkeypatch, mistake, rank, waits) -> None:
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    with pytest.raises(type(mistake)) as raised, torchrun.one_message():
        raise mistake
    assert raised.value is mistake
    assert len(slept) == waits
    assert all(seconds > 5 for seconds in slept)  # torch 2.0 looks at its processes so often


def test_what_is_no_mistake_waits_for_nobody(monkeypatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("waited"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with torchrun.one_message():
        pass
    with pytest.raises(ZeroDivisionError), torchrun.one_message():
        raise ZeroDivisionError
