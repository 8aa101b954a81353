"""The parts of a base model that train in a fine-tuning of the base (``--train-parts``)."""

from __future__ import annotations

from argparse import Namespace

from langspec_lora.config import freezes_base
from langspec_lora.errors import UserError
from langspec_lora.naming import cut, some_of
from langspec_lora.values import names_of

PARTS = ("encoder", "decoder", "embeddings")
"""The layers of the encoder, the layers of the decoder, and all that lies between tokens and layers: the vocabulary's
vectors, those of positions, and the projection onto the vocabulary, where it has its own."""

_EMBEDDINGS = ("embed_tokens", "embed_positions", "layernorm_embedding", "output_projection", "adaptive_softmax")


def part_of(name: str) -> str:
    """The part that a parameter of a Transformer belongs to.

    Args:
        name: its name in fairseq, such as ``decoder.layers.0.fc1.weight``.
    """
    stack, module, *_ = name.split(".")
    return "embeddings" if module in _EMBEDDINGS else stack


def trained_parts(args: Namespace) -> tuple[str, ...]:
    """The parts of the base that train.

    Args:
        args: fairseq's arguments.

    Raises:
        UserError: ``--train-parts`` names something else, or the base is frozen.
    """
    text = getattr(args, "train_parts", None)
    if freezes_base(args):
        if text is not None:
            raise UserError(
                f"--train-parts {cut(text)} trains parts of the base, but the base is frozen; give "
                "--freeze-original-parameters False too"
            )
        return ()
    if text is None:
        return PARTS
    chosen = names_of(text, "--train-parts", "decoder,embeddings")
    unknown = [name for name in chosen if name not in PARTS]
    if unknown:
        raise UserError(f"--train-parts names {unknown[0]!r}; expected some of {some_of(PARTS)}, joined by commas")
    return tuple(part for part in PARTS if part in chosen)
