"""The interface of training hooks, which act around epochs, batches and updates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class TrainingHook:
    """Base class of training hooks; a subclass overrides the methods that it needs.

    The task calls the ``begin_`` methods of its hooks in order, and the ``end_`` methods in reverse order.
    """

    def begin_epoch(self, epoch: int) -> None:
        """Called before the first update of an epoch, also if a run resumes within the epoch; the model is loaded.

        Args:
            epoch: fairseq's epoch, counted from 1.
        """

    def begin_batch(self, optimizer: Any) -> None:
        """Called before the forward pass of a batch.

        Args:
            optimizer: the trainer's fairseq optimizer.
        """

    def end_batch(self, sample: Mapping[str, Any]) -> None:
        """Called after the backward pass of a batch that has added its gradient.

        Args:
            sample: the batch as fairseq collates it.
        """

    def begin_update(self, optimizer: Any) -> None:
        """Called before an optimizer step, after all batches of the update.

        Args:
            optimizer: the trainer's fairseq optimizer.
        """

    def end_update(self) -> None:
        """Called after an optimizer step."""

    def metrics(self) -> Mapping[str, float]:
        """A few numbers for fairseq's log, by name; called after each update, so nothing is computed here."""
        return {}

    def detailed_metrics(self) -> Mapping[str, Mapping[str, float]]:
        """Numbers for each language or layer, at the end of an epoch: by their name, then by that of the language."""
        return {}

    def end_epoch(self, epoch: int) -> None:
        """Called after the last update of an epoch, before its checkpoint is saved; again if it is saved twice.

        Args:
            epoch: fairseq's epoch, counted from 1.
        """
