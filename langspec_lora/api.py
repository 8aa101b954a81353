"""The functions that ``import langspec_lora`` offers beside :class:`~langspec_lora.inference.translator.Translator`.

Each does what the command of its name does, for other programs. The imports inside functions let a program that only
loads a checkpoint do without fairseq's models, and one that only reports without torch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langspec_lora.checkpoints.stored_model import StoredModel
    from langspec_lora.data.directions import Direction

Paths = str | Path | Sequence[str | Path]


def load(path: str | Path, base_checkpoint: str | Path | None = None) -> StoredModel:
    """Reads a checkpoint or an adapter folder; no model is built.

    Args:
        path: a fairseq checkpoint, or an ``adapter.safetensors`` or its folder.
        base_checkpoint: base of a checkpoint that holds adapters only; by default where it was in training.

    Raises:
        UserError: the file is missing, damaged or hostile.
    """
    from langspec_lora.checkpoints.stored_model import StoredModel

    return StoredModel(path, base_checkpoint)


def evaluate(
    data_bin: str | Path, checkpoint: Paths, out: str | Path, **options: Any
) -> Mapping[Direction, Mapping[str, Any]]:
    """Translates and scores all directions of a test set, as ``langspec-lora evaluate`` does.

    Args:
        data_bin: the binarised folder.
        checkpoint: the checkpoint, or several of an ensemble.
        out: the results folder; directions that it already holds are kept.
        **options: other fields of :class:`~langspec_lora.evaluation.evaluate.Options`, such as ``langs=("en", "fr")``.

    Returns:
        The scores of each direction, as in ``scores.json``.

    Raises:
        UserError: a file or an option is wrong; before anything is decoded.
    """
    from langspec_lora.evaluation.evaluate import Options
    from langspec_lora.evaluation.evaluate import evaluate as evaluate_options

    return evaluate_options(Options(Path(data_bin), tuple(_paths(checkpoint)), Path(out), **options))


def make_report(folders: Paths, out: str | Path, **options: Any) -> list[Path]:
    """Writes tables, significance and heat maps of evaluations, as ``langspec-lora report`` does.

    Args:
        folders: the results folder, or several, of which the first is what the others are compared with.
        out: the folder to write.
        **options: other fields of :class:`~langspec_lora.report.analysis.Request`, such as ``metric="chrf"``.

    Returns:
        The files.

    Raises:
        UserError: a folder holds no results, or the results do not compare.
    """
    from langspec_lora.report.analysis import Request, analyse
    from langspec_lora.report.report import CACHE, make_folder, write_files

    out = Path(out)
    make_folder(out)
    request = Request(**{"folders": _paths(folders), "levels": None, "cache": out / CACHE, **options})
    return write_files(analyse(request), out)


def _paths(paths: Paths) -> list[Path]:
    return [Path(path) for path in ([paths] if isinstance(paths, (str, os.PathLike)) else paths)]
