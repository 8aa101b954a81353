"""Writes our adapter folder from a checkpoint, and makes a checkpoint from it and a base model."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from langspec_lora.adapters.adapter_folder import AdapterFile, read_adapter_file, write_adapter_folder
from langspec_lora.checkpoints.assembly import adapted_checkpoint, untrained_arguments
from langspec_lora.checkpoints.fingerprint import check_same_base
from langspec_lora.checkpoints.stored_model import StoredModel
from langspec_lora.convert import check_flags
from langspec_lora.errors import collect_errors
from langspec_lora.files import check_file
from langspec_lora.tensor_files import write_checkpoint


def export(args: Namespace) -> list[Path]:
    """Writes the adapters of a checkpoint into a folder of ``adapter.safetensors`` and ``adapter_config.json``."""
    with collect_errors() as errors:
        with errors.check():
            check_flags(args, "--format adapter")
        with errors.check():
            for name in ("adapter.safetensors", "adapter_config.json"):
                check_file(args.out / name, args.overwrite)
        with errors.check():
            model = StoredModel.with_adapters(args.checkpoint, args.base_checkpoint)
    content = AdapterFile(model.adapters, model.fingerprint, model.settings)
    return write_adapter_folder(content, args.out, args.overwrite)


def import_checkpoint(args: Namespace) -> list[Path]:
    """Writes a checkpoint from an adapter folder and the base model that the adapters were trained on."""
    with collect_errors() as errors:
        with errors.check():
            check_flags(args, "--from adapter", needs=("base",))
        with errors.check():
            check_file(args.out, args.overwrite)
        with errors.check():
            content = read_adapter_file(args.path)
        if args.base is not None:
            base = StoredModel(args.base, args.base_checkpoint)
            base.check_base_is_found()
    if not base.has_fingerprint(content.base):
        check_same_base(base.fingerprint, content.base, f"--base {args.base}", str(args.path))
    checkpoint = adapted_checkpoint(base.base, untrained_arguments(base.args), content.adapters, content.settings)
    write_checkpoint(checkpoint, args.out)
    return [args.out]
