"""What the hypotheses in a results folder depend on, and whether another call may add to them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from langspec_lora import files
from langspec_lora.data.directions import Direction, side_path
from langspec_lora.errors import UserError
from langspec_lora.evaluation.options import EvaluationOptions
from langspec_lora.evaluation.results import SETTINGS, decoded
from langspec_lora.files import once_per_file, read_json
from langspec_lora.flags import SOFT
from langspec_lora.generation import GenerationSettings
from langspec_lora.inference.model_files import ModelFiles
from langspec_lora.naming import some_of

_WORDS = {
    "checkpoint": "another checkpoint",
    "pairs": "the checkpoint with its adapters, or without",
    "dictionary_sha256": "another dictionary",
    "subset": "another subset",
    "generation": "other generation settings",
    "encoder_langtok": "another --encoder-langtok",
    "decoder_langtok": "another --decoder-langtok",
    "precision": "another dtype",
    "directions": "another --directions",
}
"""What the hypotheses depend on besides the data, by its key in ``settings.json``, and how an error calls a change."""


def settings_of(options: EvaluationOptions, model: ModelFiles, sides: Mapping[Direction, Path]) -> dict:
    """Everything that hypotheses depend on, as plain data for ``settings.json``.

    Args:
        options: what is evaluated, and how.
        model: its files.
        sides: the directions, each with its source as :func:`source_side` finds it.
    """
    # What was added later is left out where it is usual, so that what a hypothesis depends on keeps its hash.
    directions = {} if model.spec.directions == SOFT else {"directions": model.spec.directions}
    return {
        **directions,
        "checkpoint": [{"path": str(path), "sha256": sha256(path)} for path in model.spec.checkpoints],
        "pairs": model.spec.adapters,
        "dictionary_sha256": sha256(model.dictionary),
        "subset": options.subset,
        "generation": asdict(options.generation),
        "encoder_langtok": model.tokens.source,
        "decoder_langtok": model.tokens.target is not None,
        "precision": model.spec.dtype,
        "sources": {str(direction): sha256(Path(f"{side}.bin")) for direction, side in sides.items()},
    }


def lasting(settings: Mapping) -> dict:
    """What the hypotheses depend on besides their source texts, in one form for all versions.

    Settings that a later version adds are in it once they differ from their defaults.
    """
    usual = asdict(GenerationSettings())
    generation = _compared(settings, "generation")
    changed = {name: value for name, value in generation.items() if name not in usual or value != usual[name]}
    keys = [key for key in _WORDS if key != "directions" or key in settings]
    return {**{key: _compared(settings, key) for key in keys}, "generation": changed}


def held_sources(out: Path, settings: Mapping, at_work: bool = False) -> dict[str, str]:
    """Makes sure that the hypotheses in ``out`` were made with the same settings.

    Args:
        out: the results folder.
        settings: what the hypotheses of this evaluation depend on.
        at_work: whether another process is making hypotheses there.

    Returns:
        Hash of the source text of each direction that ``out`` has hypotheses of, or may get them from that process.

    Raises:
        UserError: they were made with other settings, or of other text.
    """
    present = decoded(out)
    if not present and not at_work:
        return {}
    keep = f"give another --out, or --overwrite to replace the results in {out}"
    if not (out / SETTINGS).is_file():
        raise UserError(f"{out} holds hypotheses but no {SETTINGS} with their settings; {keep}")
    held = read_json(out / SETTINGS)
    _check_whole(held, out / SETTINGS, keep)
    for key, words in _WORDS.items():
        then, now = _compared(held, key), _compared(settings, key)
        if then != now:
            raise UserError(f"{out} holds results of {words}; {_difference(then, now)}; {keep}")
    if unknown := sorted(present - held["sources"].keys()):
        raise UserError(f"{out} holds hypotheses of {unknown[0]}, but {SETTINGS} does not say of which text; {keep}")
    sources = {direction: digest for direction, digest in held["sources"].items() if at_work or direction in present}
    changed = [name for name, digest in settings["sources"].items() if sources.get(name, digest) != digest]
    if changed:
        raise UserError(f"{out} holds results of other data: the source text of {changed[0]} has changed; {keep}")
    return sources


def _check_whole(held: Mapping, path: Path, keep: str) -> None:
    checkpoints, sources = held.get("checkpoint"), held.get("sources")
    whole = (
        isinstance(checkpoints, list)
        and all(isinstance(entry, dict) and isinstance(entry.get("sha256"), str) for entry in checkpoints)
        and isinstance(sources, dict)
        and all(isinstance(digest, str) for digest in sources.values())
        and isinstance(held.get("generation"), dict)
    )
    if not whole:
        raise UserError(f"{path} is damaged: it lacks the settings of the hypotheses; {keep}")


def file_state(path: Path) -> object:
    """Another value whenever a file was written anew; None if there is none."""
    try:
        with path.open() as file:  # NFS asks the server when a file is opened
            status = os.fstat(file.fileno())
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def sha256(path: Path) -> str:
    """Hash of a file, which is read once in a process.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return _sha256_of(str(path))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; check the path") from error


def source_side(options: EvaluationOptions, direction: Direction) -> Path:
    """The binarised source of a direction, without ``.bin`` and ``.idx``.

    Raises:
        UserError: the data lacks the direction.
    """
    side = side_path(options.data_bin, options.subset, direction, direction.source)
    if side is None:
        raise UserError(f"no {options.subset} data of {direction} found in {options.data_bin}; binarise it first")
    return side


def _compared(settings: Mapping, key: str) -> Any:
    value = settings.get(key, True if key == "pairs" else None)
    if key == "generation":
        return {**asdict(GenerationSettings()), **value}  # folders of earlier versions lack later settings
    return [entry["sha256"] for entry in value] if key == "checkpoint" else value


def _difference(then: object, now: object) -> str:
    if isinstance(then, dict) and isinstance(now, dict):
        name = next(name for name in {**then, **now} if then.get(name) != now.get(name))
        return f"{name[:40]} was {str(then.get(name))[:40]} and is {str(now.get(name))[:40]}"
    if isinstance(then, list) and isinstance(now, list):
        then, now = (some_of(str(digest)[:12] for digest in digests) for digests in (then, now))
        return f"its sha256 was {then} and is {now}"
    return f"it was {str(then)[:64]} and is {str(now)[:64]}"


@once_per_file("")
def _sha256_of(path: str) -> str:
    return files.sha256(Path(path))
