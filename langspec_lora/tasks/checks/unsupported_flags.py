"""Refuses flags that stock fairseq accepts but that would damage adapters or cannot work on this machine."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import torch

from langspec_lora.errors import UserError, collect_errors
from langspec_lora.naming import cut

_REASONS: Mapping[str, str] = {
    "store_ema": "averages weights only, but adapters also have masks",
    "quant_noise_pq": "permanently sets weights of the base to zero in training, but the base must not change",
    "quant_noise_scalar": "quantises only fairseq's layer classes, not adapted layers",
    "base_layers": "adds expert layers to the base, which would stay untrained",
    "quantization_config_path": "replaces layers by quantised ones, which lack the adapters",
    "xformers_att_config": "replaces the attention modules that are adapted",
}
"""Why a flag cannot be used with adapters if its value is not fairseq's default."""
_SHARDED = (
    "splits parameters, so the rows of a language can no longer be found; leave it out: adapters are small, and a "
    "frozen base has no optimizer state to distribute"
)
_APART = (
    "lets the weights of the processes differ between updates, so that each process would prune other entries; leave "
    "it out"
)
_VALUES: Sequence[tuple[str, Any, str]] = (
    ("ddp_backend", "fully_sharded", _SHARDED),
    ("zero_sharding", "os", _SHARDED),
    ("ddp_backend", "slowmo", _APART),
    ("use_bmuf", True, _APART),
)
"""Values of flags that cannot be used with adapters, and why."""


def check_beside_adapters(args: Namespace) -> None:
    """Refuses training flags that would damage the adapters or the frozen base.

    Args:
        args: the arguments of a training command whose model has adapters.

    Raises:
        UserError: such flags are given; all of them are listed.
    """
    with collect_errors() as errors:
        for name, why in _REASONS.items():
            value = getattr(args, name, None)
            with errors.check():
                if value:
                    given = _flag(name) if value is True else f"{_flag(name)} {cut(value)}"
                    raise UserError(f"{given} {why}; leave it out, or train without adapters (--add-lora False)")
        for name, value, why in _VALUES:
            with errors.check():
                if getattr(args, name, None) == value:
                    raise UserError(f"{_flag(name) if value is True else f'{_flag(name)} {cut(value)}'} {why}")


def check_precision(args: Namespace) -> None:
    """Refuses half precision that this machine does not support.

    Args:
        args: the arguments of the training command.

    Raises:
        UserError: fairseq would fail with an error of torch or torch_xla.
    """
    if args.fp16 and args.amp:
        raise UserError("--fp16 and --amp were both given; give one of them")
    tpu = [name for name in ("memory_efficient_bf16", "bf16", "tpu") if getattr(args, name, False)]
    if tpu and find_spec("torch_xla") is None:
        raise UserError(f"{_flag(tpu[0])} means a TPU in fairseq, but torch_xla is not installed; on a GPU give --amp")
    flattens = args.fp16 and not args.memory_efficient_fp16 and not args.fp16_no_flatten_grads
    if flattens and (args.cpu or not torch.cuda.is_available()):
        why = "--cpu was given" if args.cpu else "torch finds none"
        raise UserError(f"--fp16 needs a CUDA GPU, but {why}; leave it out")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
