"""Which base model adapters belong to: one short name for all its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from langspec_lora.adapters.entries import NO_WEIGHTS, base_of
from langspec_lora.errors import UserError

_TIED = ("decoder.output_projection.weight", "decoder.embed_tokens.weight")
_PART = 1 << 24  # bytes hashed at a time


def base_fingerprint(state: Mapping[str, Tensor], rounded: torch.dtype | None = None) -> str:
    """The SHA-256 of a base model: of the names, shapes, types and bytes of its entries, whatever their order.

    A checkpoint that was trained with the base frozen has the fingerprint of the file it started from, unless it was
    saved in half precision with the base in it, which is then rounded. So what fairseq adds, drops or widens on the way
    does not count: copies of weights, uninitialised entries, an output projection that repeats the embedding, and half
    precision beside the same numbers in single precision.

    Args:
        state: entries of a model by fairseq's names; those of adapters are left out.
        rounded: half precision to which its numbers are rounded first, as training with ``--fp16`` does.

    Returns:
        ``sha256:`` and 64 digits.
    """
    known: dict[tuple, str] = {}
    lines = {}
    for name, value in base_of(state).items():
        if name.endswith(NO_WEIGHTS):
            continue
        key = (value.data_ptr(), value.dtype, value.shape, value.stride())
        if key not in known:
            known[key] = _digest(value, rounded)
        lines[name] = f"{tuple(value.shape)} {known[key]}"
    projection, embedding = _TIED
    if lines.get(projection) == lines.get(embedding):
        lines.pop(projection, None)
    text = "".join(f"{name} {lines[name]}\n" for name in sorted(lines))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def check_same_base(held: str, wanted: str, held_by: str, wanted_by: str) -> None:
    """Makes sure that two base models are one.

    Raises:
        UserError: they are not.
    """
    if held != wanted:
        raise UserError(
            f"{held_by} is another base model (fingerprint {held[7:19]}) than that of {wanted_by} ({wanted[7:19]}); "
            "give the checkpoint that the training started from"
        )


def _digest(value: Tensor, rounded: torch.dtype | None) -> str:
    value = value.detach().cpu()
    if rounded is not None and value.is_floating_point():
        value = value.to(rounded)
    if value.dtype in (torch.float16, torch.bfloat16):
        value = value.float()
    digest = hashlib.sha256()
    for part in value.contiguous().view(-1).view(torch.uint8).split(_PART):
        digest.update(part.numpy())
    return f"{str(value.dtype).removeprefix('torch.')} {digest.hexdigest()}"
