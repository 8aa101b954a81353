"""The place in the training data at which a resumed training goes on."""

from __future__ import annotations

from typing import Any

from fairseq.data.iterators import EpochBatchIterator

from langspec_lora.errors import UserError, exit_on_user_error


def name_lost_positions(iterator: EpochBatchIterator) -> None:
    """Has an iterator say in a sentence what fairseq's ``load_state_dict`` raises for a position that is not there.

    That is so where a training stopped within an epoch and the epoch has fewer batches now.

    Args:
        iterator: over the training data; changed in place. ``load_state_dict`` then ends the program in that case.
    """
    if "load_state_dict" in vars(iterator):
        return  # fairseq hands out the same iterator again (--sampling-method RoundRobin)
    load = iterator.load_state_dict

    def load_state_dict(state: dict[str, Any]) -> None:
        with exit_on_user_error():
            try:
                load(state)
            except RuntimeError as error:
                if "dataloader mismatch" not in str(error):
                    raise
                raise UserError(
                    f"the checkpoint stands at batch {state['iterations_in_epoch']} of epoch {state['epoch']}, but the "
                    f"epoch has only {len(iterator)} now; resume with the data, --max-tokens, --batch-size and "
                    "number of processes of the run before, or from a checkpoint at the end of an epoch"
                ) from error

    iterator.load_state_dict = load_state_dict
