"""What happens while training beside the update itself: the moments at which a hook is called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class TrainingHook:
    """Something that goes along with a training; a subclass overrides the moments that it needs.

    The task calls its hooks in order at the beginning of something, and in the reverse order at its end.
    """

    def begin_epoch(self, epoch: int) -> None:
        """Before the first update of an epoch, or of the rest of one where a run is resumed within it.

        Args:
            epoch: fairseq's epoch, counted from 1. Only now is the model loaded.
        """

    def begin_batch(self) -> None:
        """Before the forward pass of a batch."""

    def end_batch(self, sample: Mapping[str, Any]) -> None:
        """After the backward pass of a batch that has left its gradient.

        Args:
            sample: the batch as fairseq collates it.
        """

    def begin_update(self, optimizer: Any) -> None:
        """Before a step of the optimizer, when all batches of the update are done.

        Args:
            optimizer: fairseq's, as the trainer holds it.
        """

    def end_update(self) -> None:
        """After a step of the optimizer."""
