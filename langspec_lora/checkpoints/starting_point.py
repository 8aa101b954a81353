"""The checkpoint that a training starts from, and whether its adapters keep their meaning in the new model."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from langspec_lora.adapters.entries import is_adapter_entry
from langspec_lora.adapters.placement import Placement, check_same_placement
from langspec_lora.checkpoints.arguments import stored_config
from langspec_lora.checkpoints.outline import read_outline
from langspec_lora.config import AdapterConfig
from langspec_lora.errors import UserError
from langspec_lora.sites import PRINCIPAL


def starting_checkpoint(args: Namespace) -> tuple[str, bool] | None:
    """The file that fairseq-train will start from, found the way fairseq finds it.

    Args:
        args: the arguments of the training command.

    Returns:
        The path, and whether training resumes from it (False: a new run is fine-tuned from it); None if training
        starts from nothing.
    """
    suffix = getattr(args, "checkpoint_suffix", "") or ""
    if args.restore_file != "checkpoint_last.pt":
        return args.restore_file.replace(".pt", f"{suffix}.pt"), not args.reset_optimizer
    last = Path(args.save_dir) / f"checkpoint_last{suffix}.pt"
    if last.exists():
        return str(last), not args.reset_optimizer
    if getattr(args, "continue_once", None):
        return args.continue_once, not args.reset_optimizer
    return (args.finetune_from_model, False) if args.finetune_from_model else None


def processes_at_start(args: Namespace) -> int | None:
    """How many processes wrote the checkpoint from which a training resumes; None if the file does not say."""
    start = starting_checkpoint(args)
    return None if start is None else read_outline(start[0]).processes


def check_start_flags(args: Namespace) -> None:
    """Refuses a training command with contradictory flags for its starting point.

    Raises:
        UserError: ``--finetune-from-model`` is combined with flags that fairseq does not accept with it, or
            ``--lora-init principal`` lacks a base.
    """
    if getattr(args, "add_lora", False) and args.lora_init == PRINCIPAL and starting_checkpoint(args) is None:
        raise UserError(
            f"--lora-init {PRINCIPAL} starts A in the principal directions of the base, but this training has none; "
            "give it as --finetune-from-model"
        )
    resets = ("reset_optimizer", "reset_lr_scheduler", "reset_meters", "reset_dataloader")
    others = [f"--{name.replace('_', '-')}" for name in resets if getattr(args, name)]
    if args.restore_file != "checkpoint_last.pt":
        others.append(f"--restore-file {args.restore_file}")
    if args.finetune_from_model and others:
        raise UserError(
            f"{others[0]} was given with --finetune-from-model, which starts a new run anyway; leave out one of them"
        )


def check_start_agrees(args: Namespace, config: AdapterConfig) -> None:
    """Checks that the adapters of the starting checkpoint keep their meaning in the model of the command.

    Names, ranks and sizes are compared by :func:`~langspec_lora.checkpoints.compatibility.check_training_checkpoint`.

    Args:
        args: the arguments of the training command.
        config: which adapters its model will have.

    Raises:
        UserError: the adapters have other sites, or another language selects them.
    """
    start = starting_checkpoint(args)
    outline = None if start is None else read_outline(start[0])
    if outline is None or not any(map(is_adapter_entry, outline.shapes)) or outline.model_args is None:
        return
    label = f"checkpoint {outline.path}"
    check_same_placement(
        Placement.of_config(stored_config(outline.model_args, label)),
        Placement.of_config(config),
        label,
        "this command",
        "give the flags of its training, or start from the base model",
    )
