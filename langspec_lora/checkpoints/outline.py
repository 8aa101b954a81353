"""The outline of a checkpoint: names, shapes and arguments, read without running anything and without its tensors."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langspec_lora.checkpoints.safe_pickle import TensorStub, read_pickle
from langspec_lora.errors import UserError


@dataclass(frozen=True)
class Outline:
    """The outline of a fairseq checkpoint.

    Attributes:
        path: the file.
        shapes: shape of every entry of the model's state, by its name.
        model_args: the arguments that the model was built from; None if the file holds no legacy arguments.
        epoch: the training epoch in which the file was saved; None if it does not say.
        history: what fairseq saved about the optimizer besides its moments: the class names of optimizer and criterion,
            the state of the schedule, and ``options`` (betas, …); None if the file holds no optimizer.
        processes: how many processes trained; None if the file does not say.
    """

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    model_args: Namespace | None
    epoch: int | None
    history: Mapping[str, Any] | None = None
    processes: int | None = None

    def stack_sizes(self, stack: str) -> dict[str, int]:
        """The sizes of a stack, as its weights show them, by the ending of fairseq's argument.

        Args:
            stack: ``encoder`` or ``decoder``.

        Returns:
            ``layers``, and if known ``embed_dim`` and ``ffn_embed_dim``.
        """
        layers = {int(match[1]) for name in self.shapes if (match := re.match(rf"{stack}\.layers\.(\d+)\.", name))}
        sizes = {"layers": len(layers)}
        fc1 = self.shapes.get(f"{stack}.layers.{min(layers, default=0)}.fc1.weight", ())
        if len(fc1) == 2:
            sizes |= {"embed_dim": fc1[1], "ffn_embed_dim": fc1[0]}
        return sizes


def read_outline(path: str | Path) -> Outline:
    """Reads the outline of a checkpoint.

    Args:
        path: a file written by ``torch.save``, in its current or its old (before torch 1.6) format.

    Returns:
        Names and shapes of the model's state and the arguments it was built from.

    Raises:
        UserError: the file is missing, damaged or not a fairseq checkpoint, or names functions no checkpoint needs.
    """
    path = Path(path)
    state = read_pickle(path)
    if not isinstance(state, dict) or not isinstance(state.get("model"), dict):
        raise UserError(
            f"checkpoint {path} is not from fairseq: it holds no model; give a file written by fairseq-train"
        )
    shapes = {name: value.shape for name, value in state["model"].items() if isinstance(value, TensorStub)}
    return Outline(path, shapes, _model_args(state), _epoch(state), _history(state), _processes(state))


def _model_args(state: dict) -> Namespace | None:
    if isinstance(state.get("args"), Namespace):
        return state["args"]
    settings = state.get("cfg")
    model = settings.get("model") if isinstance(settings, dict) else None
    return model if isinstance(model, Namespace) else None


def _epoch(state: dict) -> int | None:
    extra = state.get("extra_state")
    iterator = extra.get("train_iterator") if isinstance(extra, dict) else None
    epoch = iterator.get("epoch") if isinstance(iterator, dict) else None
    return epoch if isinstance(epoch, int) else None


def _history(state: dict) -> Mapping[str, Any] | None:
    history, optimizer = state.get("optimizer_history"), state.get("last_optimizer_state")
    last = history[-1] if isinstance(history, list) and history else None
    if not isinstance(last, dict) or not isinstance(optimizer, dict):
        return None
    groups = optimizer.get("param_groups")
    first = groups[0] if isinstance(groups, list) and groups else None
    return {**last, "options": first if isinstance(first, dict) else {}}


def _processes(state: dict) -> int | None:
    settings = state.get("cfg")
    distributed = settings.get("distributed_training") if isinstance(settings, dict) else None
    count = distributed.get("distributed_world_size") if isinstance(distributed, dict) else None
    return count if isinstance(count, int) and count > 0 else None
