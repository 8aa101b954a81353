"""Trainings in several processes on CPUs, started without torchrun: a server imports torch and fairseq once and forks.

pytest's own process cannot fork them, because autograd does not survive a fork once it has run.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import tempfile
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # so that the server imports it; optimizers do
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.distributed import utils as distributed_utils
from fairseq.models import distributed_fairseq_model
from fairseq.trainer import Trainer
from fairseq_cli import train as fairseq_train
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from langspec_lora.tasks import translation
from tests import toy

GLOO = ("--distributed-backend", "gloo")


@dataclass(repr=False)  # a failed test would print every number
class Seen:
    """What one process saw of a training.

    Attributes:
        losses: the training loss of each update, as fairseq logs it.
        norms: the gradient norm of each update.
        epochs: the adapters and masks at the beginning, and at the start and the end of each epoch, by name.
        dummies: the number of batches that only kept the process in step with others.
        directions: for each batch, its directions, by the ids of their languages.
        code: the exit code or the message with which the training ended before its end.
        error: the traceback, if the training failed.
    """

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    epochs: list[dict[str, Tensor]] = field(default_factory=list)
    dummies: int = 0
    directions: list[tuple[tuple[int, int], ...]] = field(default_factory=list)
    code: int | str | None = None
    error: str = ""


@dataclass(frozen=True)
class Stop:
    """A SIGTERM to one process.

    Attributes:
        rank: which.
        batch: at which of its batches, from 1.
    """

    rank: int
    batch: int


def adapters(model: torch.nn.Module) -> dict[str, Tensor]:
    """Copies of all A, B and masks of a model."""
    return {name: value.clone() for name, value in model.state_dict().items() if ".lora_" in name}


def _train(rank: int, processes: int, meeting: Path, cfg: Any, out: Path, stop: Stop | None) -> None:
    """One process: fairseq's own program, watched from outside."""
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    seen = Seen()
    _watch(seen, stop.batch if stop is not None and stop.rank == rank else None)
    try:
        distributed = cfg.distributed_training
        distributed.distributed_world_size, distributed.distributed_rank = processes, rank
        distributed.distributed_no_spawn = True
        if processes == 1:
            fairseq_train.main(cfg)
        else:
            distributed.distributed_init_method = f"file://{meeting}"
            distributed_utils.distributed_main(0, fairseq_train.main, cfg, {})
    except SystemExit as end:
        seen.code = end.code
    except BaseException:
        seen.error = traceback.format_exc()
    torch.save(vars(seen), out)


def _watch(seen: Seen, stopped_at: int | None) -> None:
    """Records what the trainer and the task do; both stay fairseq's and the plugin's own."""
    train_step, begin_epoch = Trainer.train_step, translation.LanguageSpecificTranslationTask.begin_epoch
    clip_norm = Trainer.clip_grad_norm
    task_step, lr_step = translation.LanguageSpecificTranslationTask.train_step, Trainer.lr_step

    def trainer_step(self: Trainer, samples: Any, *args: Any, **kwargs: Any) -> Any:
        result = train_step(self, samples, *args, **kwargs)
        if result is not None:  # the update is not one that a resumed training has done already
            seen.losses.append(float(result["loss"]))
        return result

    def clip(self: Trainer, *args: Any) -> Tensor:
        norm = clip_norm(self, *args)
        seen.norms.append(float(norm))
        return norm

    def step(self: Any, sample: Any, *args: Any, **kwargs: Any) -> Any:
        seen.dummies += bool(kwargs.get("ignore_grad"))
        seen.directions.append(sample["directions"])
        if len(seen.directions) == stopped_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return task_step(self, sample, *args, **kwargs)

    def begin(self: Any, epoch: int, module: torch.nn.Module) -> None:
        begin_epoch(self, epoch, module)
        seen.epochs.append(adapters(module))

    def end(self: Trainer, epoch: int, loss: Any = None) -> Any:
        seen.epochs.append(adapters(self.get_model()))
        return lr_step(self, epoch, loss)

    Trainer.train_step, Trainer.lr_step, Trainer.clip_grad_norm = trainer_step, end, clip
    translation.LanguageSpecificTranslationTask.begin_epoch = begin
    translation.LanguageSpecificTranslationTask.train_step = step
    distributed_fairseq_model.DistributedDataParallel = _ddp_on_cpu


def _ddp_on_cpu(module: torch.nn.Module, **options: Any) -> DistributedDataParallel:
    """What fairseq builds for ``pytorch_ddp``, which names a GPU even with ``--cpu``."""
    return DistributedDataParallel(module, **{**options, "device_ids": None, "output_device": None})


def train_together(folder: Path, trainings: Mapping[str, tuple[int, Sequence[str]]]) -> dict[str, list[Seen]]:
    """Trains in several processes.

    Args:
        folder: an empty folder.
        trainings: for each name the number of processes and the flags of ``fairseq-train``. One training runs after
            the other.

    Returns:
        What each process of each training saw.
    """
    found = {}
    for name, (count, flags) in trainings.items():
        every = [*flags, "--save-dir", str(folder / name), "--disable-validation"]
        found[name] = run_together(folder, [every] * count)
        assert {seen.code for seen in found[name]} == {None}
    return found


def run_together(folder: Path, flags: Sequence[Sequence[str]], stop: Stop | None = None) -> list[Seen]:
    """Trains once, with the flags of each process.

    Args:
        folder: an existing folder.
        flags: of ``fairseq-train``, for each process.
        stop: a signal that one of them gets.

    Returns:
        What each process saw.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.processes"])
    every = {tuple(words): convert_namespace_to_omegaconf(toy.parse([*words, *GLOO])) for words in flags}
    meeting = folder / "meeting"  # checkpoints record its path
    meeting.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        outs = [Path(place) / f"{rank}.pt" for rank in range(len(flags))]
        workers = [
            context.Process(target=_train, args=(rank, len(flags), meeting, every[tuple(flags[rank])], out, stop))
            for rank, out in enumerate(outs)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(120)
        stuck = [worker for worker in workers if worker.is_alive()]
        for worker in stuck:
            worker.kill()
        assert not stuck, f"{len(stuck)} of {len(flags)} processes did not end"
        found = [Seen(**torch.load(out, weights_only=False)) for out in outs]
    for rank, seen in enumerate(found):
        assert not seen.error, f"process {rank}: {seen.error}"
    return found
