"""Progress bars as the seam for curves: fairseq hands them its means at each logged update, epoch and validation.

What fairseq's log would not hold, such as the losses of two hundred languages, goes to the recorders only: TensorBoard,
Weights & Biases, Aim, Azure ML.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from fairseq.logging import progress_bar as bars

_RECORDERS = ("tensorboard_logdir", "wandb_project", "aim_repo", "azureml_logging")
_MORE = ("wandb_run_name", "aim_run_hash", "aim_param_checkpoint_dir")


class Recorded(Protocol):
    """What a training adds to the means that fairseq logs."""

    def within_epoch(self, stats: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
        """Called at each logged update; gives a few numbers for the log, and many for the recorders."""

    def after_epoch(self, stats: Mapping[str, Any], epoch: int) -> tuple[dict[str, float], dict[str, float]]:
        """Called at the end of an epoch's training; see :meth:`within_epoch`."""

    def after_validation(
        self, stats: Mapping[str, Any], subset: str, epoch: int
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Called after each validation; see :meth:`within_epoch`."""


_trainings: list[weakref.ref[Recorded]] = []
"""At most one: that of this process."""


def record(training: Recorded) -> None:
    """From now on, the progress bars of this process ask a training for more, as long as it lives."""
    _trainings[:] = [weakref.ref(training)]
    if not isinstance(bars.progress_bar, _ProgressBars):
        bars.progress_bar = _ProgressBars(bars.progress_bar)


class _ProgressBars:
    """fairseq's ``progress_bar``, whose bars ask the training for more."""

    def __init__(self, stock: Callable[..., Any]) -> None:
        self._stock = stock
        functools.update_wrapper(self, stock)

    def __call__(self, iterator: Any, *args: Any, **kwargs: Any) -> Any:
        bar = self._stock(iterator, *args, **kwargs)
        training = _trainings[0]() if _trainings else None
        if training is None or args:  # fairseq_cli.train names all arguments
            return bar
        recorders = {name: kwargs[name] for name in _RECORDERS if kwargs.get(name)}
        if bars.SummaryWriter is None:  # fairseq has said so
            recorders.pop("tensorboard_logdir", None)
        if bars.wandb is None:
            recorders.pop("wandb_project", None)
        silent = None
        if recorders:
            more = {name: kwargs[name] for name in _MORE if kwargs.get(name)}
            silent = self._stock([], log_format="none", **recorders, **more)
        return RecordingBar(bar, silent, training, kwargs.get("epoch") or 0, validates=bool(kwargs.get("prefix")))


class RecordingBar(bars.BaseProgressBar):
    """A progress bar that logs more than it is told.

    Args:
        bar: fairseq's.
        silent: another that only the recorders hear, or None if there are none.
        training: what is logged besides.
        epoch: fairseq's epoch.
        validates: whether the bar is one of a validation.
    """

    def __init__(self, bar: Any, silent: Any, training: Recorded, epoch: int, validates: bool) -> None:
        self._bar, self._silent, self._training = bar, silent, training
        self._epoch, self._validates = epoch, validates

    def __iter__(self) -> Iterator[Any]:
        return iter(self._bar)

    def __len__(self) -> int:
        return len(self._bar)

    def log(self, stats: Any, tag: str | None = None, step: int | None = None) -> None:
        """See fairseq's bars."""
        few, many = ({}, {}) if self._validates else self._training.within_epoch(stats)
        self._bar.log(type(stats)({**stats, **few}), tag=tag, step=step)
        self._record("log", many, tag, step)

    def print(self, stats: Any, tag: str | None = None, step: int | None = None) -> None:
        """See fairseq's bars."""
        if self._validates:
            few, many = self._training.after_validation(stats, tag or "", self._epoch)
        else:
            few, many = self._training.after_epoch(stats, self._epoch)
        self._bar.print(type(stats)({**stats, **few}), tag=tag, step=step)
        self._record("print", many, tag, step)

    def update_config(self, config: Any) -> None:
        """See fairseq's bars."""
        self._bar.update_config(config)

    def _record(self, method: str, many: Mapping[str, float], tag: str | None, step: int | None) -> None:
        if self._silent is not None and many:
            getattr(self._silent, method)(dict(many), tag=tag, step=step)
