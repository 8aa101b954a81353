"""Flags against the checkpoint that a training starts from: what it makes idle is named."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterable

from langspec_lora.adapters.entries import BASE
from langspec_lora.checkpoints.arguments import stored_languages
from langspec_lora.checkpoints.outline import Outline, read_outline
from langspec_lora.config import AdapterConfig
from langspec_lora.flags import INITS


def idle_at_start(args: Namespace, config: AdapterConfig | None, outline: Outline, resumes: bool) -> list[str]:
    """Names the flags that the checkpoint of the start makes idle.

    Args:
        args: the arguments of the training command.
        config: which adapters the model will have, or None.
        outline: the checkpoint.
        resumes: whether training goes on from it.

    Returns:
        Sentences.
    """
    found = _idle_model(args, outline) if resumes else []
    held = stored_languages(outline)
    init = getattr(outline.model_args, "lora_init", None)
    if held and config and init in INITS and config.init != init and set(config.languages.names) <= set(held.names):
        found.append(f"--lora-init {config.init}: no effect, since checkpoint {outline.path} holds all adapters")
    return found


def idle_base(base_checkpoint: str | None, paths: Iterable[str]) -> list[str]:
    """Says whether ``--base-checkpoint`` is given though every checkpoint holds its base.

    Args:
        base_checkpoint: the flag's value.
        paths: the checkpoints.
    """
    if not base_checkpoint or any(BASE in read_outline(path).shapes for path in paths):
        return []
    return [f"--base-checkpoint {base_checkpoint}: not read, since {', '.join(paths)} holds its base"]


def _idle_model(args: Namespace, outline: Outline) -> list[str]:
    given, stored = args.finetune_from_model, getattr(outline.model_args, "finetune_from_model", None)
    if not given or str(outline.path) == given:
        return []
    if isinstance(stored, str) and stored:
        if os.path.realpath(given) == os.path.realpath(stored):
            return []
        if BASE in outline.shapes and not os.path.isfile(stored):  # noqa: PTH113  moved; its fingerprint is compared
            return []
        origin = f"was started from {stored}"
    else:
        origin = "was not started from a model"
    return [
        f"--finetune-from-model {given}: not read, since training goes on from {outline.path}, which {origin}; give "
        "another --save-dir for a new run"
    ]
