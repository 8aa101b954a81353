"""Flags of stock fairseq that go wrong beside adapters, or on this machine, where fairseq itself takes them."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from importlib.util import find_spec

import torch

from langspec_lora.errors import UserError

_REASONS: Mapping[str, str] = {
    "store_ema": "averages weights only, and adapters have masks besides",
    "quant_noise_pq": "sets weights of the base to zero while it trains, for good, and the base is to stay as it is",
    "quant_noise_scalar": "quantises layers of fairseq's own kinds only, and knows no adapted one",
    "xformers_att_config": "replaces the attentions whose layers are adapted",
}
"""Why a flag cannot stand beside adapters, where it has another value than fairseq's own default."""
_SHARDED: Mapping[str, str] = {"ddp_backend": "fully_sharded", "zero_sharding": "os"}


def check_beside_adapters(args: Namespace) -> None:
    """Refuses flags of a training that would leave its adapters, or the frozen base, wrong.

    Args:
        args: the arguments of a training command whose model has adapters.

    Raises:
        UserError: such a flag is given.
    """
    for name, why in _REASONS.items():
        value = getattr(args, name, None)
        if value:
            given = _flag(name) if value is True else f"{_flag(name)} {value}"
            raise UserError(f"{given} {why}; leave it out, or train without adapters (--add-lora False)")
    for name, value in _SHARDED.items():
        if getattr(args, name, None) == value:
            raise UserError(
                f"{_flag(name)} {value} cuts parameters in pieces, in which no language's own part is known any more; "
                "leave it out: what trains is small, and a frozen base has no optimizer state to share out"
            )


def check_precision(args: Namespace) -> None:
    """Refuses the half precision of a training that this machine cannot have.

    Args:
        args: the arguments of the training command.

    Raises:
        UserError: fairseq would end in an error of torch or of torch_xla.
    """
    if args.fp16 and args.amp:
        raise UserError("--fp16 and --amp were both given; give one of them")
    tpu = [name for name in ("memory_efficient_bf16", "bf16", "tpu") if getattr(args, name, False)]
    if tpu and find_spec("torch_xla") is None:
        raise UserError(f"{_flag(tpu[0])} means a TPU in fairseq, and torch_xla is not there; on a GPU give --amp")
    flattens = args.fp16 and not args.memory_efficient_fp16 and not args.fp16_no_flatten_grads
    if flattens and (args.cpu or not torch.cuda.is_available()):
        why = "with --cpu there is none" if args.cpu else "torch finds none"
        raise UserError(f"--fp16 needs a CUDA GPU, and {why}; leave it out")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
