"""Checks that a training is long enough for its pruning, by ``--max-epoch`` and ``--max-update``."""

from __future__ import annotations

import math
from collections.abc import Sequence

from langspec_lora.pruning.schedule import PruningSchedule


def pruning_within(schedule: PruningSchedule, epochs: float, limit: str) -> list[str]:
    """Warns if a training ends before its pruning does.

    Args:
        schedule: the share of pruned entries by epoch.
        epochs: length of the training; infinite if nothing limits it.
        limit: the flag that limits the training, with its value, for the message.
    """
    if not schedule.target:
        return ["--target-pruning-ratio 0: nothing will be pruned"]
    end = schedule.start + schedule.length
    if epochs >= end:
        return []
    last, reached = int(epochs), schedule.ratio(int(epochs))
    if not reached:
        return [
            f"nothing will be pruned: pruning starts after epoch {schedule.start} (--pruning-t1), but this training "
            f"ends with epoch {last} ({limit})"
        ]
    return [
        f"pruning will reach {reached:.3f} instead of --target-pruning-ratio {schedule.target:g}: its last epoch is "
        f"{end} (--pruning-t1 plus --pruning-t2), but this training ends with epoch {last} ({limit})"
    ]


def epochs_within(updates: int, batches: int, update_freq: Sequence[int]) -> int:
    """The epoch in which a limit on updates ends a training.

    Args:
        updates: ``--max-update``.
        batches: batches per epoch of one process.
        update_freq: batches per update in epoch 1, 2, …; the last value applies to all later epochs.
    """
    epoch = 0
    while updates > 0:
        frequency = update_freq[min(epoch, len(update_freq) - 1)]
        updates -= max(1, math.ceil(batches / frequency))
        epoch += 1
    return epoch
