"""Warns of flags that have no effect because of what a checkpoint holds."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterable, Sequence

from langspec_lora.adapters.entries import BASE, MIXTURE_LOGITS
from langspec_lora.checkpoints.arguments import stored_languages
from langspec_lora.checkpoints.outline import Outline, read_outline
from langspec_lora.config import AdapterConfig
from langspec_lora.flags import SOFT
from langspec_lora.naming import some_of
from langspec_lora.sites import INITS


def unused_with_checkpoint(args: Namespace, config: AdapterConfig | None, outline: Outline, resumes: bool) -> list[str]:
    """Names the flags of a training that its first checkpoint leaves without effect.

    Args:
        args: the arguments of the training command.
        config: the adapters that the model will have, or None.
        outline: the checkpoint that the training starts from.
        resumes: whether the training continues the checkpoint's run.
    """
    found = _unused_model_flag(args, outline) if resumes else []
    held = stored_languages(outline)
    init = getattr(outline.model_args, "lora_init", None)
    if held and config and init in INITS and config.init != init and set(config.languages.names) <= set(held.names):
        found.append(f"--lora-init {config.init}: no effect, since checkpoint {outline.path} already has all adapters")
    return found


def unused_base_flag(base_checkpoint: str | None, paths: Iterable[str]) -> list[str]:
    """Names ``--base-checkpoint`` if every checkpoint contains its base.

    Args:
        base_checkpoint: the flag's value.
        paths: the checkpoints.
    """
    if not base_checkpoint or any(BASE in read_outline(path).shapes for path in paths):
        return []
    return [f"--base-checkpoint {base_checkpoint}: no effect, since {some_of(paths)} contains the base"]


def _unused_model_flag(args: Namespace, outline: Outline) -> list[str]:
    given, stored = args.finetune_from_model, getattr(outline.model_args, "finetune_from_model", None)
    if not given or str(outline.path) == given:
        return []
    if isinstance(stored, str) and stored:
        if os.path.realpath(given) == os.path.realpath(stored):
            return []
        if BASE in outline.shapes and not os.path.isfile(stored):  # noqa: PTH113  it was moved; fingerprints are compared
            return []
        origin = f"was started from {stored}"
    else:
        origin = "was not started from a model"
    return [
        f"--finetune-from-model {given}: no effect, since training continues from {outline.path}, which {origin}; give "
        "another --save-dir to start a new run"
    ]


def unused_directions_flag(directions: str, paths: Sequence[str]) -> list[str]:
    """Names ``--directions`` if no checkpoint has learned directions.

    Args:
        directions: its value.
        paths: the checkpoints.
    """
    if directions == SOFT:
        return []
    outlines = [read_outline(path) for path in paths]
    if any(MIXTURE_LOGITS in outline.shapes for outline in outlines):
        return []
    return [f"--directions {directions}: no effect, since no layer of the model has learned its direction"]
