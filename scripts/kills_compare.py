"""Compares what a disturbed run wrote with what an undisturbed one wrote, bit for bit; ``kills.py`` uses it."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from pathlib import Path

import torch
from safetensors import safe_open

from langspec_lora.report.analysis import RESAMPLES
from langspec_lora.report.vector_file import VectorFile

LOST_TIME = ("metrics", "previous_training_time")  # in a checkpoint's extra state


def files(folder: Path) -> dict[str, Path]:
    """All files but locks, which stay empty, a study's logs, to which each start adds, and its times of files."""
    return {
        str(path.relative_to(folder)): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".") and path.parent != folder / "logs"
        if path != folder / "steps" / "contents.json"
    }


def differences(expected: Path, actual: Path) -> list[str]:
    """What differs between two folders, in words."""
    one, two = files(expected), files(actual)
    found = [f"{name} is missing" for name in one.keys() - two.keys()]
    found += [f"{name} is left over" for name in two.keys() - one.keys()]
    ours, theirs = hashes(one), hashes(two)
    for name in one.keys() & two.keys():
        if name.endswith(".pt"):
            found += [f"{name}: {place} differs" for place in unequal(state(one[name]), state(two[name]), "")][:5]
        elif name.endswith(".safetensors"):  # which writes its metadata in any order
            found += [f"{name}: {place} differs" for place in unequal(tensors(one[name]), tensors(two[name]), "")]
        elif name.endswith(".jsonl"):
            found += [f"{name} differs"] * (curve_lines(one[name]) != curve_lines(two[name]))
        elif name.endswith(".json"):  # in a cache the order depends on which process was the first
            found += [f"{name} differs"] * (record(one[name], ours) != record(two[name], theirs))
        elif name.endswith(RESAMPLES):  # likewise
            found += [f"{name} differs"] * (vectors(one[name]) != vectors(two[name]))
        elif named(one[name].read_bytes(), ours) != named(two[name].read_bytes(), theirs):
            found.append(f"{name} differs")
    return found


def vectors(path: Path) -> dict[str, bytes]:
    """What a file of the scores of resamples holds."""
    file = VectorFile(path)
    return {key: file[key].tobytes() for key in file}


def curve_lines(path: Path) -> list[str]:
    """The lines of a training's curves, in any order, without the time that it took, part of which a kill loses."""
    lines = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return sorted(json.dumps({**line, "seconds": None}, sort_keys=True) for line in lines)


def hashes(paths: dict[str, Path]) -> dict[bytes, bytes]:
    """The names of a study's files whose hash other files record, by that hash and by its shown beginning.

    A checkpoint holds how long its training took, so its hash differs between two undisturbed runs; so does that of the
    scores, which name the hash of their checkpoint. A hash of any other file, or of an older one, is not replaced.
    """
    known = {}
    for name, path in paths.items():
        if "steps/base.json" in paths and (name.endswith(".pt") or path.name == "scores.json"):
            digest = hashlib.sha256(path.read_bytes()).hexdigest().encode()
            known[digest] = known[digest[:12]] = f"<hash of {name}>".encode()
    return known


def named(content: bytes, known: dict[bytes, bytes]) -> bytes:
    """A file's content with names in place of the hashes that may differ."""
    for digest in sorted(known, key=len, reverse=True):
        content = content.replace(digest, known[digest])
    return content


def record(path: Path, known: dict[bytes, bytes]) -> object:
    """What a JSON file holds, without what a step of a study cost and without the scores' own hash."""
    content = json.loads(named(path.read_bytes(), known))
    if path.parent.name == "steps":
        content = {key: content[key] for key in ("command", "input", "versions")} | {
            "ended": content["seconds"] is not None
        }
    if path.name == "results.json":
        for row in content["rows"]:
            row.update(dict.fromkeys(("seconds", "update", "memory", "bytes")))
    if known and path.name == "scores.json":
        del content["sha256"]  # of its content, which names the hash of the checkpoint; the report has compared it
    return content


def state(path: Path) -> dict:
    """What a checkpoint holds, without what differs between two undisturbed runs."""
    content = torch.load(path, map_location="cpu", weights_only=False)  # written by this script
    meters = [meter for name in ("train", "train_inner") for meter in content["extra_state"]["metrics"].get(name, [])]
    content["extra_state"] = {key: value for key, value in content["extra_state"].items() if key not in LOST_TIME}
    content["losses"] = [meter[1:] for meter in meters if meter[1] in ("loss", "nll_loss")]
    content["optimizer_history"] = content["optimizer_history"][-1]  # one entry for each time that it was resumed
    content["cfg"]["checkpoint"]["save_dir"] = content["cfg"]["common"]["log_file"] = None
    for part in content["cfg"].values():
        if isinstance(part, argparse.Namespace):
            part.save_dir = None
    first = content["last_optimizer_state"]["state"][0]
    if "rested" in first:  # not in a base model
        first["rested"] = first["rested"].long()  # a whole number, as what torch loads it until the next update
    # fairseq saves one element of uninitialised memory with each sinusoidal embedding.
    content["model"] = {key: value for key, value in content["model"].items() if not key.endswith("_float_tensor")}
    return content


def tensors(path: Path) -> dict:
    """What a safetensors file holds."""
    with safe_open(path, "pt") as file:
        return {"metadata": file.metadata(), **{key: file.get_tensor(key) for key in file.keys()}}  # noqa: SIM118


def unequal(one: object, two: object, place: str) -> list[str]:
    """The places at which two nested values differ."""
    if isinstance(one, argparse.Namespace) and isinstance(two, argparse.Namespace):
        one, two = vars(one), vars(two)
    if isinstance(one, dict) and isinstance(two, dict):
        found = [f"{place}/{key}" for key in one.keys() ^ two.keys()]
        return found + [
            text for key in one.keys() & two.keys() for text in unequal(one[key], two[key], f"{place}/{key}")
        ]
    if isinstance(one, (list, tuple)) and isinstance(two, (list, tuple)) and len(one) == len(two):
        return [text for n, pair in enumerate(zip(one, two, strict=True)) for text in unequal(*pair, f"{place}/{n}")]
    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        return [] if one.dtype == two.dtype and torch.equal(one, two) else [place]
    return [] if one == two else [f"{place} ({one!r:.60}, {two!r:.60})"]


def logged_losses(logs: list[Path]) -> dict[tuple, set]:
    """By kind of line and update, the losses that were logged."""
    found: dict[tuple, set] = {}
    for log in logs:
        for kind, line in re.findall(r"\| (train_inner|train|valid) \| (\{\".*\})", log.read_text(errors="replace")):
            numbers = json.loads(line)
            prefix = "" if kind == "train_inner" else f"{kind}_"
            key = (kind, numbers["epoch"], numbers[f"{prefix}num_updates"])
            found.setdefault(key, set()).add((numbers[f"{prefix}loss"], numbers[f"{prefix}nll_loss"]))
    return found


def logged_differences(expected: Path, logs: list[Path]) -> list[str]:
    """Losses that the disturbed runs have logged otherwise, or not at all.

    The line of an update may be missing if the program was killed before the line was written and after the save.
    """
    one, two = logged_losses([expected]), logged_losses(logs)
    found = [f"{key}: logged {two[key]}, expected {one.get(key)}" for key in two if two[key] != one.get(key)]
    return found + [f"{key}: not logged" for key in one.keys() - two.keys() if key[0] != "train_inner"]
