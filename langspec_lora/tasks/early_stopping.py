"""What ``--patience`` has counted, kept in the checkpoints: fairseq forgets it, so a resumed training waits anew."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

KEY = "early_stopping"
"""In the state of the iterator over the training data, the part of a checkpoint to which a task can add entries."""

_COUNTED = ("best", "num_runs")  # attributes of fairseq's function: the best loss, and the validations since it


def counted() -> dict[str, dict[str, Any]]:
    """The entry for the iterator's state; empty if fairseq has counted nothing."""
    function = _function()
    found = {name: getattr(function, name) for name in _COUNTED if hasattr(function, name)}
    return {KEY: found} if found else {}


def restore(state: Mapping[str, Any]) -> None:
    """Continues the count of a checkpoint.

    Args:
        state: the iterator's state in the checkpoint; without a count, fairseq starts one.
    """
    function = _function()
    for name in _COUNTED:
        if hasattr(function, name):
            delattr(function, name)
    for name, value in state.get(KEY, {}).items():
        setattr(function, name, value)


def _function() -> Any:
    """fairseq's function, which belongs to its program and not to its library."""
    return getattr(sys.modules.get("fairseq_cli.train"), "should_stop_early", None)
