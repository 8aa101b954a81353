"""Warns of fairseq's flags that do nothing with this task, or because a package is not installed."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping
from importlib.util import find_spec

from langspec_lora.naming import cut
from langspec_lora.tasks.checks.language_tokens import LanguageTokens

_NEVER: Mapping[str, str] = {
    "adaptive_input": "only language models of fairseq have adaptive input embeddings",
    "char_inputs": "these models read tokens",
    "grouped_shuffling": "this task makes no groups of batches",
    "load_alignments": "no criterion for these models reads alignments",
    "upsample_primary": "this task has no primary data",
}
"""Flags that neither fairseq's task nor a Transformer for translation reads, or that it reads without an effect."""
_RECORDERS: Mapping[str, tuple[str, ...]] = {
    "tensorboard_logdir": ("tensorboard", "tensorboardX"),
    "wandb_project": ("wandb",),
    "aim_repo": ("aim",),
    "azureml_logging": ("azureml",),
}
"""Flags that record a training elsewhere, and the packages of which one is needed."""
_DEFAULTS: Mapping[str, object] = {"upsample_primary": 1}
_BUFFER = 10


def unused_fairseq_flags(args: Namespace) -> list[str]:
    """Names fairseq's flags that have no effect in a training; fairseq itself says nothing, or one line among many.

    Args:
        args: the arguments of the training command.

    Returns:
        One warning for each flag.
    """
    return list(_unused(args))


def _unused(args: Namespace) -> Iterator[str]:
    for name, why in _NEVER.items():
        value = getattr(args, name, None)
        if value and value != _DEFAULTS.get(name):
            yield f"{_given(name, value)}: no effect, since {why}"
    if getattr(args, "data_buffer_size", _BUFFER) != _BUFFER and args.sampling_method != "RoundRobin":
        yield f"--data-buffer-size {args.data_buffer_size}: no effect without --sampling-method RoundRobin"
    tokens = LanguageTokens.from_args(args)
    if getattr(args, "truncate_source", False) and tokens is not None and tokens.source and not tokens.replacing:
        yield (
            "--truncate-source: cut sentences are left out of the training, since their language token makes them one "
            f"token longer than --max-source-positions {args.max_source_positions}"
        )
    if getattr(args, "no_cross_attention", False) and not getattr(args, "cross_self_attention", False):
        yield (
            "--no-cross-attention without --cross-self-attention: the decoder never reads the source, so adapters of "
            "the encoder will not train"
        )
    for name, packages in _RECORDERS.items():
        value = getattr(args, name, None)
        if value and not any(map(find_spec, packages)):
            yield (
                f"{_given(name, value)}: no effect, since {' or '.join(packages)} is not installed; "
                f"pip install {packages[0]}"
            )


def _given(name: str, value: object) -> str:
    flag = f"--{name.replace('_', '-')}"
    return flag if value is True else f"{flag} {cut(value)}"
