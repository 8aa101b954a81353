"""Whether a training can prune by its criterion, and whether it leaves anything of each adapter."""

from __future__ import annotations

from argparse import Namespace

from langspec_lora.config import AdapterConfig
from langspec_lora.errors import UserError
from langspec_lora.keys import keys_of
from langspec_lora.naming import some_of
from langspec_lora.pruning.choices import FIRST_ORDER, RANK, PruningSettings


def check_criterion(args: Namespace, pruning: PruningSettings) -> None:
    """Checks that the optimizer keeps what the criterion needs.

    Args:
        args: the arguments of a training command.
        pruning: how it prunes.

    Raises:
        UserError: it keeps no mean of squared gradients.
    """
    if pruning.criterion != FIRST_ORDER:
        return
    given = f"--pruning-criterion {FIRST_ORDER} reads the mean squared gradients that Adam keeps"
    if args.optimizer not in ("adam", None):  # without any, fairseq refuses the command
        raise UserError(
            f"{given}, but --optimizer {args.optimizer} was given; give --optimizer adam, or another criterion"
        )
    if getattr(args, "fp16_adam_stats", False):
        raise UserError(f"{given}, but --fp16-adam-stats scales them to half precision; leave one of the two out")


def pruning_that_leaves_nothing(pruning: PruningSettings, config: AdapterConfig | None) -> list[str]:
    """Warns of components that compete in one adapter alone, if rounding prunes all of them.

    Args:
        pruning: how the training prunes.
        config: the adapters of the model.
    """
    if config is None or pruning.unit != RANK or pruning.scope != "matrix":
        return []
    target = pruning.schedule.target
    ranks = {rank for side in config.sides for rank in keys_of(config.languages, side).ranks}
    emptied = [rank for rank in sorted(ranks) if rank and round(target * rank) == rank]
    if not emptied:
        return []
    return [
        f"--target-pruning-ratio {target:g} of the components of each matrix is all of them for adapters of rank "
        f"{some_of(map(str, emptied))}: nothing of these will be left; give a smaller share, or another --pruning-scope"
    ]
