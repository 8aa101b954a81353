"""The fingerprint of a base model: a hash of all weights, which shows on which base adapters were trained."""

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
    """The SHA-256 of a base model: of the names, shapes, dtypes and bytes of its entries, in any order.

    A checkpoint that was trained with a frozen base has the fingerprint of the file that training started from, unless
    it was saved in half precision with the base in it, which rounds the base. So the hash ignores what fairseq adds,
    drops or widens in between: copies of weights, uninitialised entries, an output projection that repeats the
    embedding, and half-precision numbers stored in single precision.

    Args:
        state: entries of a model by fairseq's names; those of adapters are ignored.
        rounded: a half-precision dtype to round the numbers to first, as training with ``--fp16`` does.

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
    """Refuses a base model other than the one that adapters were trained on.

    Args:
        held: fingerprint of the base model that is present.
        wanted: fingerprint of the base model that the adapters need.
        held_by: the file with the first, for messages.
        wanted_by: the file with the adapters, for messages.

    Raises:
        UserError: the fingerprints differ.
    """
    if held != wanted:
        raise UserError(
            f"{held_by} is not the base model of {wanted_by} (fingerprint {held[7:19]}, expected {wanted[7:19]}); "
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
