"""The names and shapes of an M2M100's weights in fairseq and in Hugging Face's folders.

They differ in a prefix only: fairseq's ``encoder.layers.0.self_attn.k_proj.weight`` is Hugging Face's
``model.encoder.layers.0.self_attn.k_proj.weight``. The embedding is one matrix under several names, and fairseq has a
few entries that are not weights. Sinusoidal positions are computed on both sides, by the same formula from the same
first position (``padding_idx + 1``).
"""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from langspec_lora.errors import UserError

PREFIX = "model."
"""What Hugging Face's names add in front of fairseq's."""

EMBEDDING = "model.shared.weight"
_EMBEDDING_COPIES = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
_FAIRSEQ_EMBEDDINGS = (
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
    "decoder.output_projection.weight",
)
_POSITIONS = re.compile(r"model\.(encoder|decoder)\.embed_positions\.weights")  # stored by early transformers
_FAIRSEQ_BUFFERS = {  # with their values
    **{f"{stack}.version": 3.0 for stack in ("encoder", "decoder")},  # up to 2 there were no final norms
    **{f"{stack}.embed_positions._float_tensor": 1.0 for stack in ("encoder", "decoder")},
}


def weight_shapes(args: Namespace) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Fairseq's name and the shape of every weight except the embedding.

    Args:
        args: fairseq's arguments of a pre-norm Transformer with one width.
    """
    width = args.encoder_embed_dim
    for stack in ("encoder", "decoder"):
        ffn = getattr(args, f"{stack}_ffn_embed_dim")
        attentions = ("self_attn",) if stack == "encoder" else ("self_attn", "encoder_attn")
        for layer in range(getattr(args, f"{stack}_layers")):
            prefix = f"{stack}.layers.{layer}"
            linears = {
                f"{prefix}.{name}.{p}_proj": (width, width) for name in attentions for p in ("k", "v", "q", "out")
            }
            linears |= {f"{prefix}.fc1": (ffn, width), f"{prefix}.fc2": (width, ffn)}
            norms = [f"{prefix}.{name}_layer_norm" for name in (*attentions, "final")]
            for name, shape in linears.items():
                yield f"{name}.weight", shape
                yield f"{name}.bias", shape[:1]
            for name in norms:
                yield f"{name}.weight", (width,)
                yield f"{name}.bias", (width,)
        yield f"{stack}.layer_norm.weight", (width,)
        yield f"{stack}.layer_norm.bias", (width,)


def to_fairseq(tensors: Mapping[str, Tensor], args: Namespace, order: Sequence[int], label: str) -> dict[str, Tensor]:
    """Hugging Face's weights under fairseq's names.

    Args:
        tensors: the weights by Hugging Face's names.
        args: the arguments of the model that they belong to.
        order: for each id of the fairseq dictionary the id of the same token in Hugging Face's tokenizer.
        label: the folder, for messages.

    Raises:
        UserError: a weight is missing, unknown or of another shape, or the embeddings are not shared.
    """
    names = [name for name in (EMBEDDING, *_EMBEDDING_COPIES) if name in tensors]
    if not names:
        raise UserError(f"{label} has no {EMBEDDING}; give the weights of an M2M100 or NLLB-200")
    quantised = next((name for name, tensor in tensors.items() if not tensor.is_floating_point()), None)
    if quantised is not None:
        raise UserError(f"{label} holds {quantised} as integers; give the folder of the original model, not quantised")
    first, *copies = names
    embedding = tensors[first]
    for name in copies:
        if embedding.shape != tensors[name].shape or not torch.equal(embedding, tensors[name]):
            raise UserError(f"{label}: {name} differs from {first}; expected shared embeddings, as in M2M100")
    expected = {name: (PREFIX + name, shape) for name, shape in weight_shapes(args)}
    expected[EMBEDDING] = first, (len(order), args.encoder_embed_dim)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    _check(shapes, dict(expected.values()), label)
    known = {name for name, _ in expected.values()} | set(_EMBEDDING_COPIES)
    _refuse_unknown((name for name in tensors if name not in known and not _POSITIONS.fullmatch(name)), label)
    del expected[EMBEDDING]
    if list(order) != list(range(len(order))):
        embedding = embedding[torch.tensor(order)]
    state = dict.fromkeys(_FAIRSEQ_EMBEDDINGS, embedding)
    state |= {name: tensors[other] for name, (other, _) in expected.items()}
    return state | {name: torch.tensor([value]) for name, value in _FAIRSEQ_BUFFERS.items()}


def to_huggingface(state: Mapping[str, Tensor], args: Namespace, label: str) -> dict[str, Tensor]:
    """Fairseq's weights under Hugging Face's names, with the same token ids.

    Args:
        state: the base entries of a checkpoint.
        args: the arguments of the model that they belong to.
        label: the checkpoint, for messages.

    Returns:
        The weights, with the embedding once.

    Raises:
        UserError: a weight is missing, unknown or of another shape, or the embeddings are not shared.
    """
    embedding = state.get(_FAIRSEQ_EMBEDDINGS[0])
    for name in _FAIRSEQ_EMBEDDINGS:
        other = state.get(name, embedding)  # old checkpoints have no decoder.output_projection
        if embedding is None or other is None or embedding.shape != other.shape or not torch.equal(embedding, other):
            raise UserError(
                f"{label} has no {name} that equals its encoder's embedding, but Hugging Face's M2M100 shares it; only "
                "models with --share-all-embeddings can be exported in that format"
            )
    assert embedding is not None
    expected = dict(weight_shapes(args))
    _check({name: tuple(tensor.shape) for name, tensor in state.items()}, expected, label)
    known = {*expected, *_FAIRSEQ_EMBEDDINGS, *_FAIRSEQ_BUFFERS}
    _refuse_unknown((name for name in state if name not in known), label)
    return {EMBEDDING: embedding, **{PREFIX + name: state[name] for name in expected}}


def _check(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], label: str) -> None:
    for name, shape in expected.items():
        if name not in found:
            raise UserError(f"{name} is missing from {label}; download it again, or give the folder of a single model")
        if found[name] != shape:
            raise UserError(f"{label} has {name} of shape {found[name]}, but its settings say {shape}")


def _refuse_unknown(names: Iterator[str], label: str) -> None:
    name = next(names, None)
    if name is not None:
        raise UserError(f"{label} holds {name[:120]}, which M2M100 does not have; give an M2M100 or NLLB-200")
