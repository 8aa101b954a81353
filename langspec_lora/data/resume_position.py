"""The position in the training data at which a resumed training continues."""

from __future__ import annotations

from typing import Any

from fairseq.data.iterators import EpochBatchIterator

from langspec_lora.errors import UserError, exit_on_user_error


def name_lost_positions(iterator: EpochBatchIterator) -> None:
    """Makes an iterator report a lost position in one line, where fairseq's ``load_state_dict`` raises a RuntimeError.

    A position is lost if a training stopped within an epoch and the epoch now has fewer batches.

    Args:
        iterator: over the training data; changed in place. Its ``load_state_dict`` then ends the program in this case.
    """
    if "load_state_dict" in vars(iterator):
        return  # fairseq returned the same iterator again (--sampling-method RoundRobin)
    load = iterator.load_state_dict

    def load_state_dict(state: dict[str, Any]) -> None:
        with exit_on_user_error():
            try:
                load(state)
            except RuntimeError as error:
                if "dataloader mismatch" not in str(error):
                    raise
                raise UserError(
                    f"the checkpoint is at batch {state['iterations_in_epoch']} of epoch {state['epoch']}, but the "
                    f"epoch has only {len(iterator)} now; resume with the data, --max-tokens, --batch-size and "
                    "number of processes of the interrupted training, or from a checkpoint at the end of an epoch"
                ) from error

    iterator.load_state_dict = load_state_dict
