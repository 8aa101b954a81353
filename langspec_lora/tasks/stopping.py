"""A task whose training stops on SIGTERM or SIGUSR1: it saves, ends, and is continued by the same command.

The processes of a training stop after the same update. Each adds whether it has received a signal to the logging
outputs of its batches, which fairseq sums over all processes at every update, and in validation at every batch.
"""

from __future__ import annotations

import logging
import signal
import weakref
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq.data import FairseqDataset
from fairseq.data.iterators import EpochBatchIterator
from fairseq.distributed import utils as distributed
from fairseq.file_io import PathManager
from fairseq.logging import metrics
from fairseq.logging.meters import StopwatchMeter, TimeMeter
from fairseq.tasks.translation_multi_simple_epoch import TranslationMultiSimpleEpochTask
from fairseq.trainer import Trainer

from langspec_lora.checkpoints.starting_point import processes_at_start
from langspec_lora.data.resume_position import first_update_is_done, keep_position, unfinished_update
from langspec_lora.errors import exit_on_user_error
from langspec_lora.files import unwritable
from langspec_lora.tasks import early_stopping
from langspec_lora.tasks.save_folder import SaveFolder
from langspec_lora.tasks.signals import STOPPING, NotedSignals, pass_signals_on

logger = logging.getLogger(__name__)

_VOTES = {number: f"stop_on_{number.name}" for number in STOPPING}
"""By signal, the key of the logging outputs that says in how many batches a process had received it."""


class StoppableTask(TranslationMultiSimpleEpochTask):
    """Adds stopping on signals, and exact resuming, to fairseq's task; see this module."""

    save_folder: SaveFolder | None = None
    _signals: NotedSignals | None = None
    _trainer: weakref.ref[Trainer] | None = None
    _iterator: EpochBatchIterator | None = None
    _agreed: signal.Signals | None = None
    _validates = False

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Adds fairseq's flags of the task."""
        TranslationMultiSimpleEpochTask.add_args(parser)
        pass_signals_on()  # the first of our code that runs in the process that starts the others

    def get_batch_iterator(self, dataset: FairseqDataset, *args: Any, **kwargs: Any) -> Any:
        """See fairseq's task; over the training data, the iterator keeps its position exactly."""
        iterator = super().get_batch_iterator(dataset, *args, **kwargs)
        if dataset is self.datasets.get(getattr(self.args, "train_subset", None)):
            keep_position(
                iterator, partial(processes_at_start, self.args), self._update_freq, self.state_beside_position
            )
            self._iterator = iterator
        return iterator

    def train_step(self, *args: Any, **kwargs: Any) -> Any:
        """See fairseq's task; adds this process's vote to the logging output."""
        self._validates = False
        return self._with_vote(*super().train_step(*args, **kwargs))

    def valid_step(self, *args: Any, **kwargs: Any) -> Any:
        """See fairseq's task; adds this process's vote to the logging output."""
        self._validates = True
        return self._with_vote(*super().valid_step(*args, **kwargs))

    def reduce_metrics(self, logging_outputs: Sequence[dict[str, Any]], criterion: Any) -> None:
        """See fairseq's task; counts the votes. A validation is left at once, because it can last for minutes."""
        for number, key in _VOTES.items():
            if any(output.get(key, 0) for output in logging_outputs):
                self._agreed = self._agreed or number
        plain = [
            {key: value for key, value in output.items() if key not in _VOTES.values()} for output in logging_outputs
        ]
        super().reduce_metrics(plain, criterion)
        if self._validates:
            self._stop_if_agreed()

    def state_beside_position(self) -> dict[str, Any]:
        """What checkpoints hold of this task, besides the position in the training data."""
        return early_stopping.counted()

    def begin_tracking(self, trainer: Trainer, state: Mapping[str, Any], keeps_meters: bool) -> None:
        """Called once, before the first update.

        Args:
            trainer: has just loaded the checkpoint to start from, if any.
            state: what :meth:`state_beside_position` gave for that checkpoint, and the position; empty if the training
                does not continue one.
            keeps_meters: whether fairseq's means continue too.
        """

    def stop_if_received(self) -> None:
        """Saves and ends the program, if a process has received a signal, within work that gives no logging outputs.

        All processes call it equally often.
        """
        if self._signals is None:
            return
        received = torch.tensor([int(self._signals.received is number) for number in _VOTES])
        if torch.distributed.is_initialized() and distributed.get_data_parallel_world_size() > 1:
            trainer = self._trainer() if self._trainer is not None else None
            received = received.to(trainer.device if trainer is not None else "cpu")
            received = distributed.all_reduce(received, distributed.get_data_parallel_group(), "max").cpu()
        for number, votes in zip(_VOTES, received.tolist(), strict=True):
            if votes:
                self._agreed = self._agreed or number
        self._stop_if_agreed()

    def begin_stoppable_training(self, trainer: Trainer) -> None:
        """From now on, signals stop the training.

        Args:
            trainer: has just loaded the checkpoint to start from, if any.
        """
        if trainer.cfg.optimization.use_bmuf and trainer.data_parallel_world_size > 1:
            return  # its processes share no logging outputs in most updates
        self._signals = NotedSignals()
        weakref.finalize(self, self._signals.end)
        self._trainer = weakref.ref(trainer)
        # fairseq asks for this time after each update, before it validates or saves, to compare with --stop-time-hours.
        trainer.cumulative_training_time = partial(_training_time, weakref.ref(self), weakref.ref(trainer))
        if self._iterator is not None and first_update_is_done(self._iterator):
            trainer.train_step = partial(_skip_update, weakref.ref(trainer))

    def _with_vote(
        self, loss: Any, sample_size: Any, logging_output: dict[str, Any]
    ) -> tuple[Any, Any, dict[str, Any]]:
        if self._signals is None:
            return loss, sample_size, logging_output
        votes = {key: int(self._signals.received is number) for number, key in _VOTES.items()}
        return loss, sample_size, {**logging_output, **votes}

    def _update_freq(self, epoch: int) -> int:
        return self.args.update_freq[min(epoch, len(self.args.update_freq)) - 1]

    def _stop_if_agreed(self) -> None:
        """Saves and ends the program, if a process has received a signal.

        Raises:
            SystemExit: with the exit code of a program that the signal ended.
        """
        if self._agreed is None or self._trainer is None or self._iterator is None:
            return
        number, self._agreed = self._agreed, None  # saving asks for the training time too
        with exit_on_user_error():
            outcome = _save(self._trainer(), self._iterator)
        if torch.distributed.is_initialized():
            torch.distributed.barrier()  # torchrun ends all processes when the first of them ends
        if outcome:
            logger.info("%s received: %s", number.name, outcome)
        raise SystemExit(128 + number)


def stop_on_signals() -> None:
    """Makes ``fairseq-train`` stop on signals for the rest of the process, where its task is stoppable.

    fairseq gives a task neither its trainer nor its place in the loop over updates; loading the checkpoint is the one
    step before that loop that gets both and that can be replaced.
    """
    if not isinstance(checkpoint_utils.load_checkpoint, _LoadCheckpoint):
        checkpoint_utils.load_checkpoint = _LoadCheckpoint(checkpoint_utils.load_checkpoint)


class _LoadCheckpoint:
    """fairseq's ``load_checkpoint``, after which signals stop the training."""

    def __init__(self, stock: Callable[..., Any]) -> None:
        self._stock = stock

    def __call__(self, cfg: Any, trainer: Trainer, **kwargs: Any) -> Any:
        state, iterator = self._stock(cfg, trainer, **kwargs)
        if isinstance(trainer.task, StoppableTask):
            continues = bool(state and trainer.get_num_updates())  # and does not start from another training's end
            if continues and not (cfg.reset_lr_scheduler or cfg.reset_dataloader):
                _step_schedule_of_last_epoch(trainer, state)
            if continues and not cfg.reset_meters:
                early_stopping.restore(state["train_iterator"])
                _restore_log_interval(state)
            else:
                early_stopping.restore({})
            position = state["train_iterator"] if continues else {}
            trainer.task.begin_tracking(trainer, position, not cfg.reset_meters)
            trainer.task.begin_stoppable_training(trainer)
        return state, iterator


def _step_schedule_of_last_epoch(trainer: Trainer, state: dict[str, Any]) -> None:
    """Tells the learning-rate schedule the validation loss of an epoch that a checkpoint ends.

    fairseq does that after it has saved the checkpoint, so a resumed ``reduce_lr_on_plateau`` would not know of it.
    """
    position = state["train_iterator"]
    if position.get("iterations_in_epoch") == 0 and state.get("val_loss") is not None:
        trainer.lr_step(position["epoch"] - 1, state["val_loss"])


def _restore_log_interval(state: dict[str, Any]) -> None:
    """Restores the losses since the last logged update, which a checkpoint at the end of an epoch holds.

    fairseq drops them with those of the epoch, so the first line that a resumed training logs would be the mean of
    fewer updates than ``--log-interval``.
    """
    since_logged = state.get("metrics", {}).get("train_inner")
    if since_logged and state["train_iterator"].get("iterations_in_epoch") == 0:
        metrics.load_state_dict({"train_inner": since_logged})
        for meter in metrics.get_meters("train_inner").values():
            if isinstance(meter, (TimeMeter, StopwatchMeter)):  # the time between two processes is nobody's
                meter.reset()


def _training_time(task: Callable[[], Any], trainer: Callable[[], Any]) -> float:
    task()._stop_if_agreed()
    return type(trainer()).cumulative_training_time(trainer())


def _skip_update(trainer: Callable[[], Any], samples: Any, raise_oom: bool = False) -> None:
    """Takes the place of the first update after loading, which the checkpoint contains already.

    fairseq then validates and saves as it does after any update; None says that there is nothing to log.
    """
    del trainer().train_step


def _save(trainer: Trainer, iterator: EpochBatchIterator) -> str | None:
    """Saves ``checkpoint_last.pt``.

    Args:
        trainer: the trainer.
        iterator: over the training data.

    Returns:
        What has been done, in the process that did it; None in the others.

    Raises:
        UserError: the checkpoint cannot be written.
    """
    flags, master = trainer.cfg.checkpoint, trainer.data_parallel_rank == 0
    unsaved = [f"--{name.replace('_', '-')}" for name in ("no_save", "no_last_checkpoints") if flags[name]]
    if unsaved:
        return f"the training has ended and nothing was saved, because {unsaved[0]} was given" if master else None
    trainer.consolidate_optimizer()
    if not trainer.should_save_checkpoint_on_current_rank and not trainer.always_call_state_dict_during_save_checkpoint:
        return None
    path = Path(flags.save_dir) / f"checkpoint_last{trainer.checkpoint_suffix}.pt"
    state: dict[str, Any] = {"train_iterator": unfinished_update(iterator), "val_loss": None}
    if hasattr(checkpoint_utils.save_checkpoint, "best"):
        state["best"] = checkpoint_utils.save_checkpoint.best
    try:
        trainer.save_checkpoint(str(path), state)
        if flags.write_checkpoints_asynchronously:
            PathManager.async_close()
    except (OSError, RuntimeError) as error:  # torch hides the system's error
        raise unwritable(path, error if isinstance(error, OSError) else OSError(None, str(error))) from error
    place = f"epoch {iterator.epoch} @ {trainer.get_num_updates()} updates"
    return f"saved {path} ({place}); run the same command to continue" if master else None
