"""Our own adapter folder: to it from a checkpoint, and back onto a base model."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from langspec_lora.adapters.file import AdapterFile, read_adapter_file, write_adapter_folder
from langspec_lora.checkpoints.arguments import untrained_arguments
from langspec_lora.checkpoints.assembly import adapted_checkpoint
from langspec_lora.checkpoints.fingerprint import check_same_base
from langspec_lora.checkpoints.stored_model import StoredModel
from langspec_lora.convert import HUGGINGFACE_EXPORT, HUGGINGFACE_IMPORT, check_flags
from langspec_lora.files import check_file
from langspec_lora.tensor_files import write_checkpoint

_DIRECTION = {"source_lang": "--source-lang", "target_lang": "--target-lang"}


def export(args: Namespace) -> list[Path]:
    """Writes the adapters of a checkpoint into a folder of ``adapter.safetensors`` and ``adapter_config.json``."""
    check_flags(args, "--format adapter", {}, {**_DIRECTION, **HUGGINGFACE_EXPORT})
    for name in ("adapter.safetensors", "adapter_config.json"):
        check_file(args.out / name, args.overwrite)
    source = StoredModel(args.checkpoint, args.base_checkpoint)
    content = AdapterFile(source.adapters, source.fingerprint, source.settings)
    return write_adapter_folder(content, args.out, args.overwrite)


def import_checkpoint(args: Namespace) -> list[Path]:
    """Writes a checkpoint of ours from an adapter folder and the base model that it was trained on."""
    check_flags(
        args,
        "--from adapter",
        {"base": "--base"},
        {"langs": "--langs", "lang_resources": "--lang-resources", **HUGGINGFACE_IMPORT},
    )
    check_file(args.out, args.overwrite)
    content = read_adapter_file(args.path)
    base = StoredModel(args.base, args.base_checkpoint)
    if not base.stands_on(content.base):
        check_same_base(base.fingerprint, content.base, f"--base {args.base}", str(args.path))
    whole = adapted_checkpoint(base.base, untrained_arguments(base.args), content.adapters, content.settings)
    write_checkpoint(whole, args.out)
    return [args.out]
