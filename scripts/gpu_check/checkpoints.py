"""What the checks read from checkpoints: logits, pruned entries, and where two of them differ."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from fairseq import checkpoint_utils
from torch import Tensor

from langspec_lora.adapters.entries import read_manifest
from langspec_lora.tasks import translation  # noqa: F401  (registers the task and the model)


def logits_of(path: Path, data: Path, device: str, dtype: torch.dtype) -> Tensor:
    """Logits of a batch of validation sentences in several directions, on the CPU, in single precision.

    Args:
        path: the checkpoint.
        data: the binarised folder.
        device: where to compute.
        dtype: of the model.
    """
    overrides = {"data": str(data), "fixed_dictionary": str(data.parent / "dict.txt"), "cpu": device == "cpu"}
    (model,), _, task = checkpoint_utils.load_model_ensemble_and_task([str(path)], arg_overrides=overrides)
    task.load_dataset("valid")
    dataset = task.dataset("valid")
    batch = dataset.collater([dataset[index] for index in range(0, len(dataset), max(1, len(dataset) // 40))][:40])
    inputs = {**batch["net_input"], "tgt_lang_id": batch["tgt_lang_id"]}
    model = model.eval().to(device, dtype)
    with torch.no_grad():
        found = model(**{name: value.to(device) for name, value in inputs.items()})[0].float().cpu()
    return found[batch["target"] != task.target_dictionary.pad()]


def pruned_entries(path: Path) -> Iterator[tuple[int, int, int]]:
    """For each language: how many entries of B are pruned, of how many, and how many of the pruned are not zero."""
    state = _read(path)["model"]
    start = 0
    for rank in read_manifest(state["adapters.manifest"]).ranks:
        rows = slice(start, start + rank)
        pruned = total = wrong = 0
        for name, mask in state.items():
            if name.endswith(".lora_mask"):
                values, kept = state[name.replace("lora_mask", "lora_B")][rows], mask[rows] != 0
                pruned, total = pruned + int((~kept).sum()), total + kept.numel()
                wrong += int((values[~kept] != 0).sum())
        yield pruned, total, wrong
        start += rank


def different_entries(one: Path, other: Path) -> list[str]:
    """Names of the tensors that differ between two checkpoints, in the model and in the optimizer's state."""
    first, second = (dict(_tensors(_read(path))) for path in (one, other))
    names = [*first, *(name for name in second if name not in first)]
    return [name for name in names if name not in first or name not in second or not _equal(first[name], second[name])]


def _equal(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, Tensor) and isinstance(other, Tensor) else one == other


def _tensors(checkpoint: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in checkpoint["model"].items():
        if not name.endswith("._float_tensor"):  # one element of uninitialised memory
            yield name, value
    for number, state in checkpoint["last_optimizer_state"]["state"].items():
        for name, value in state.items():
            yield f"optimizer {number} {name}", value


def _read(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=False)  # made by this script
