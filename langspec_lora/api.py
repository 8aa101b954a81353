"""The functions that ``import langspec_lora`` offers besides :class:`~langspec_lora.inference.translator.Translator`.

Each does the same as the command of its name.
"""

# Imports in functions: a program that only loads a checkpoint needs no model of fairseq's, one that reports no torch.

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping, Sequence
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
        base_checkpoint: base of a checkpoint that holds adapters only; by default the file that training used.

    Raises:
        UserError: the file is missing, damaged or hostile.
    """
    from langspec_lora.checkpoints.stored_model import StoredModel

    return StoredModel(path, base_checkpoint)


def evaluate(
    data_bin: str | Path, checkpoint: Paths, out: str | Path, **settings: Any
) -> Mapping[Direction, Mapping[str, Any]]:
    """Translates and scores all directions of a test set, as ``langspec-lora evaluate`` does.

    Args:
        data_bin: the binarised folder.
        checkpoint: the checkpoint, or several of an ensemble.
        out: the results folder; directions that it already holds are kept.
        **settings: fields of :class:`~langspec_lora.evaluation.options.EvaluationOptions`, such as
            ``langs=("en", "fr")``, or of the settings that it holds: of the model (``device="cpu"``), the generation
            (``beam=4``), the batches (``max_tokens=2000``) and the scores (``tokenize="13a"``).

    Returns:
        The scores of each direction, as in ``scores.json``.

    Raises:
        UserError: a file or a setting is wrong; raised before anything is decoded.
        TypeError: there is no setting of that name.
    """
    from langspec_lora.evaluation.evaluate import evaluate as evaluate_options
    from langspec_lora.evaluation.options import EvaluationOptions, ScoringSettings
    from langspec_lora.generation import BatchLimits, GenerationSettings
    from langspec_lora.inference.model_spec import ModelSpec

    def take(group: type, without: Collection[str] = ()) -> dict[str, Any]:
        names = {field.name for field in dataclasses.fields(group)} - {*without}
        return {name: settings.pop(name) for name in names & settings.keys()}

    held: dict[str, Any] = {
        "model": ModelSpec(tuple(_paths(checkpoint)), **take(ModelSpec, without=("langs",))),
        "scoring": ScoringSettings(**take(ScoringSettings)),
        "generation": GenerationSettings(**take(GenerationSettings)),
        "limits": BatchLimits(**take(BatchLimits)),
    }
    return evaluate_options(EvaluationOptions(data_bin=Path(data_bin), out=Path(out), **{**held, **settings}))


def make_report(folders: Paths | Sequence[Paths], out: str | Path, **options: Any) -> list[Path]:
    """Writes tables, significance and heat maps of evaluations, as ``langspec-lora report`` does.

    Args:
        folders: the results folder, or several; the others are compared with the first. Several in a list of their own
            are the seeds of one run, and ``names`` has to name the runs.
        out: the folder to write.
        **options: other fields of :class:`~langspec_lora.report.analysis.Request`, such as ``metric="chrf"``.

    Returns:
        The files.

    Raises:
        UserError: a folder holds no results, or the results cannot be compared.
    """
    from langspec_lora.report.analysis import Request, analyse
    from langspec_lora.report.report import CACHE, make_folder, write_files

    out = Path(out)
    make_folder(out)
    runs: list[Path | tuple[Path, ...]] = []
    for run in [folders] if isinstance(folders, (str, os.PathLike)) else folders:
        runs.append(Path(run) if isinstance(run, (str, os.PathLike)) else tuple(_paths(run)))
    request = Request(**{"folders": runs, "levels": None, "cache": out / CACHE, **options})
    return write_files(analyse(request), out)


def _paths(paths: Paths) -> list[Path]:
    return [Path(path) for path in ([paths] if isinstance(paths, (str, os.PathLike)) else paths)]
