"""The position in the training data at which a resumed training continues."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from fairseq.data.iterators import EpochBatchIterator

from langspec_lora.errors import UserError, exit_on_user_error
from langspec_lora.naming import some_of

logger = logging.getLogger(__name__)

_PROCESSES, _BATCHES = "num_shards", "num_batches"  # in the iterator's state, besides fairseq's own entries
_UNFINISHED = "update_unfinished"
"""In the state of a training that was stopped after an update, but before the validation and saving that follow it."""

_DONE = "first_update_is_done"  # an attribute of the iterator


def keep_position(
    iterator: EpochBatchIterator,
    processes: Callable[[], int | None],
    update_freq: Callable[[int], int],
    more: Callable[[], Mapping[str, Any]] = dict,
) -> None:
    """Makes an iterator save and restore its position so that no batch is seen twice or left out.

    fairseq counts the batches of one process and resumes after as many, whatever the number of processes is then
    (``EpochBatchIterator.load_state_dict``).

    Args:
        iterator: over the training data; changed in place. Its ``load_state_dict`` then ends the program with one line
            where the position cannot be kept.
        processes: says how many processes wrote the checkpoint, if its position does not; None if it is not known.
        update_freq: the number of batches that a process reads for an update, by epoch.
        more: returns further entries of the state.
    """
    if "load_state_dict" in vars(iterator):
        return  # fairseq returned the same iterator again (--sampling-method RoundRobin)
    load, save = iterator.load_state_dict, iterator.state_dict

    def state_dict() -> dict[str, Any]:
        return {**save(), **more(), _PROCESSES: iterator.num_shards, _BATCHES: len(iterator.frozen_batches)}

    def load_state_dict(state: dict[str, Any]) -> None:
        with exit_on_user_error():
            state = _for_processes({_PROCESSES: state.get(_PROCESSES) or processes(), **state}, iterator)
        if state.get(_UNFINISHED):
            state = _before_last_update(state, update_freq(state["epoch"]), len(iterator))
            setattr(iterator, _DONE, state[_UNFINISHED])
        load(state)

    iterator.state_dict, iterator.load_state_dict = state_dict, load_state_dict


def unfinished_update(iterator: EpochBatchIterator) -> dict[str, Any]:
    """The state of an iterator for a checkpoint written between an update and the validation and saving that follow.

    When it is loaded, the iterator returns the batches of that update once more, and :func:`first_update_is_done` says
    so. fairseq's loop then does what was left out: it does that only after it has read batches.

    Args:
        iterator: over the training data, as :func:`keep_position` has left it.
    """
    position = {"epoch": iterator.epoch, "iterations_in_epoch": iterator.iterations_in_epoch}  # also if the epoch ends
    return {**iterator.state_dict(), **position, _UNFINISHED: True}


def first_update_is_done(iterator: EpochBatchIterator) -> bool:
    """Whether the checkpoint already contains the update of the first batches that the iterator returns."""
    return getattr(iterator, _DONE, False)


def _before_last_update(state: dict[str, Any], update_freq: int, batches: int) -> dict[str, Any]:
    """The position before the batches of the last update; ``batches`` is how many a process reads in the epoch."""
    position = state["iterations_in_epoch"]
    before = position - update_freq
    if position >= batches:  # the last update of an epoch may have fewer batches
        before = (batches - 1) // update_freq * update_freq
    if before < 0:
        logger.warning(
            "the validation and saving after the last update are left out, because --update-freq %d reads more batches "
            "than the epoch had seen",
            update_freq,
        )
        return {**state, _UNFINISHED: False}
    return {**state, "iterations_in_epoch": before}


def _for_processes(state: dict[str, Any], iterator: EpochBatchIterator) -> dict[str, Any]:
    """The same position for the present number of processes.

    Raises:
        UserError: there is none.
    """
    position, now = state.get("iterations_in_epoch", 0), iterator.num_shards
    if not position:
        return state
    then = state[_PROCESSES] or now
    done, batches = position * then, len(iterator.frozen_batches)
    place = f"the checkpoint was saved after {done} batch{'es' * (done > 1)} of epoch {state['epoch']}"
    if (done >= batches and not state.get(_UNFINISHED)) or state.get(_BATCHES, batches) != batches:
        was = f"had {state[_BATCHES]}" if _BATCHES in state else "had more"
        raise UserError(
            f"{place}, which {was} and has {batches} now; resume with the data, --max-tokens and --batch-size of the "
            "interrupted training, or from a checkpoint at the end of an epoch"
        )
    if state.get(_UNFINISHED) and done >= batches:
        return {**state, "iterations_in_epoch": len(iterator)}
    if now != then and (done % now or iterator.grouped_shuffling):
        possible = [str(number) for number in range(1, done + 1) if done % number == 0 and number <= 4096]
        if iterator.grouped_shuffling:  # the order of the batches depends on the number of processes
            possible = [str(then)]
        raise UserError(
            f"{place} by {then} process{'es' * (then > 1)}, a position that {now} cannot continue from; resume with "
            f"{' or '.join(filter(None, [some_of(possible[:-1]), possible[-1]]))}, or from a checkpoint at the end "
            "of an epoch"
        )
    return {**state, "iterations_in_epoch": done // now}
