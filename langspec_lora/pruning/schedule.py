"""The share of entries that is pruned in each epoch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PruningSchedule:
    """The cubic schedule of gradual pruning (Zhu & Gupta, 2017), as Cao et al. (EMNLP 2024) use it.

    Attributes:
        start: t1, the epoch at which pruning starts.
        length: t2, the number of epochs from the start until the target is reached; at least 1.
        target: P, the final share of pruned entries, in [0, 1).
    """

    start: int
    length: int
    target: float

    def ratio(self, epoch: int) -> float:
        """The share of entries that are pruned in an epoch.

        Args:
            epoch: fairseq's epoch, counted from 1.

        Returns:
            0 before t1; P - P·(1 - (epoch - t1) / t2)³ from t1 to t1 + t2; P after.
        """
        progress = min(max((epoch - self.start) / self.length, 0.0), 1.0)
        return self.target - self.target * (1 - progress) ** 3
