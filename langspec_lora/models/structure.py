"""Refuses flags that would build a Transformer without some of the adapted linears."""

from __future__ import annotations

from argparse import Namespace

from torch import distributed

from langspec_lora.config import AdapterConfig
from langspec_lora.errors import UserError
from langspec_lora.languages import check_ranks
from langspec_lora.naming import some_of
from langspec_lora.sites import POSITIONS


def check_structure(args: Namespace, config: AdapterConfig) -> None:
    """Checks that the model that fairseq will build has every adapted linear.

    Args:
        args: the arguments that the model is built from.
        config: its adapters.

    Raises:
        UserError: the model will not have layers or attention that should be adapted.
    """
    for stack in POSITIONS:
        if getattr(args, f"{stack}_layers_to_keep", None):
            raise UserError(
                f"--{stack}-layers-to-keep removes layers that have adapters; leave it out, or apply it to a merged "
                "model ('langspec-lora export --format merged')"
            )
    cross = [position for position in config.stacks["decoder"].positions if position.startswith("cross")]
    if getattr(args, "no_cross_attention", False) and config.stacks["decoder"].layers and cross:
        raise UserError(
            f"--no-cross-attention leaves no {some_of(cross)} to adapt; leave it out, or name other positions in "
            "--decoder-lora-position"
        )


def check_training_structure(args: Namespace, config: AdapterConfig) -> None:
    """Checks the same as :func:`check_structure`, for a model that will be trained.

    Raises:
        UserError: as there, or a rank exceeds every layer, or layer drop is used with a backend that needs all layers.
    """
    check_structure(args, config)
    widths = (getattr(args, f"{stack}_{size}") for stack in POSITIONS for size in ("embed_dim", "ffn_embed_dim"))
    check_ranks(config.languages, config.dim or max(widths))
    drops = [stack for stack in POSITIONS if getattr(args, f"{stack}_layerdrop", 0)]
    several = distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
    if drops and several and args.ddp_backend in ("pytorch_ddp", "c10d") and not args.find_unused_parameters:
        raise UserError(
            f"--{drops[0]}-layerdrop leaves adapters out of an update, which --ddp-backend {args.ddp_backend} allows "
            "only with --find-unused-parameters; give it too, or use --ddp-backend no_c10d"
        )
