"""Several runs that are one variant with other seeds: how the command line names them, and their mean as one run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from langspec_lora.data.directions import Direction
from langspec_lora.errors import UserError
from langspec_lora.evaluation.results import Run, read_run
from langspec_lora.naming import some_of
from langspec_lora.report.significance import SEED

RunFolders = Path | tuple[Path, ...]
"""The results folder of a run, or those of its seeds."""


def folders_of(run: RunFolders) -> tuple[Path, ...]:
    """All folders of a run."""
    return (run,) if isinstance(run, Path) else run


def parse_run(text: str) -> tuple[str | None, RunFolders]:
    """What an argument such as ``results/base``, ``base=results/base`` or ``mine=results/a,results/b`` names.

    A folder whose own name has ``=`` or commas is taken as that folder.

    Returns:
        The name if one is given, and the folder, or the folders of the seeds.

    Raises:
        UserError: it is none of these, or a folder is given twice.
    """
    if Path(text).is_dir():
        return None, Path(text)
    name, equals, rest = text.partition("=")
    if not equals:
        if "," in text:
            raise UserError(
                f"{text} is not a folder; results of several seeds need a name for their mean, as in mine={text}"
            )
        return None, Path(text)
    if not name.strip() or not rest:
        raise UserError(f"{text} names no run; expected NAME=DIR, or NAME=DIR,DIR,… for the seeds of one")
    if Path(rest).is_dir():
        return name.strip(), Path(rest)
    parts = [part.strip() for part in rest.split(",")]
    if not all(parts):
        raise UserError(f"{text} has an empty folder; expected NAME=DIR,DIR,…")
    folders = tuple(Path(part) for part in parts)
    refuse_repeated(name.strip(), folders)
    return name.strip(), folders if len(folders) > 1 else folders[0]


def refuse_repeated(name: str, folders: Sequence[Path]) -> None:
    """Makes sure that the seeds of a run are different folders.

    Raises:
        UserError: one is given twice.
    """
    first: dict[Path, Path] = {}
    for folder in folders:
        if first.setdefault(folder.resolve(), folder) is not folder:
            raise UserError(
                f"{name} names the folder {folder} twice; a repeated seed would count twice and make the "
                "spread too small, so give each folder once"
            )


def read_seeds(name: str, run: RunFolders) -> tuple[Run, ...]:
    """Reads the results of a run, or of each of its seeds.

    Raises:
        UserError: a folder is not a results folder.
    """
    folders = folders_of(run)
    refuse_repeated(name, folders)
    names = [name] if len(folders) == 1 else seed_names(name, folders)
    return tuple(read_run(folder, own) for folder, own in zip(folders, names, strict=True))


def refuse_seeds(test: str, runs: Mapping[str, Sequence[object]]) -> None:
    """Makes sure that a test knows what to do with the seeds of each run, by its name.

    Raises:
        UserError: it does not.
    """
    several = [name for name, seeds in runs.items() if len(seeds) > 1]
    if several and test == "randomization":
        raise UserError(
            f"--test randomization swaps the sentences of two runs and cannot swap the seeds of {some_of(several)}; "
            "leave it out, as the bootstrap draws sentences and seeds, or give one folder for each run"
        )


def seed_names(name: str, folders: Sequence[Path]) -> list[str]:
    """Names of the seeds of a run: its own name, and as much of the folders' paths as tells them apart."""
    for depth in (1, 2):
        found = ["/".join(folder.resolve().parts[-depth:]) for folder in folders]
        if len(set(found)) == len(found):
            return [f"{name}: {part}" for part in found]
    return [f"{name}: {number}" for number in range(1, len(folders) + 1)]


def mean_run(name: str, seeds: Sequence[Run], directions: Iterable[Direction]) -> Run:
    """One run whose score of each direction is the mean of the seeds'; a single seed stays as it is."""
    if len(seeds) == 1:
        return seeds[0]
    directions = list(directions)
    shared = [
        metric for metric in seeds[0].scores if all(set(directions) <= s.scores.get(metric, {}).keys() for s in seeds)
    ]
    scores = {
        metric: {d: sum(seed.scores[metric][d] for seed in seeds) / len(seeds) for d in directions} for metric in shared
    }
    signatures = {
        metric: next((seed.signatures[metric] for seed in seeds if seed.signatures.get(metric)), "")
        for metric in shared
    }
    return replace(seeds[0], name=name, scores=scores, signatures=signatures, checkpoint="", entries={})


def seed_notes(name: str, seeds: Sequence[Run]) -> list[str]:
    """What a reader should know of the seeds of one run: the same one twice, or other settings of the search."""
    if len(seeds) == 1:
        return []
    notes = []
    first: dict[str, Run] = {}
    for seed in seeds:
        same = first.setdefault(_hypotheses(seed) or str(seed.folder), seed)
        if same is not seed:
            notes.append(
                f"{same.folder} and {seed.folder}, two seeds of {name}, have the same hypotheses in all directions: "
                "if they are one training, the spread over seeds is too small"
            )
    settings = [_search(seed) for seed in seeds]
    keys = dict.fromkeys(key for own in settings for key in own)
    differing = [key for key in keys if len({own[key] for own in settings if key in own}) > 1]
    if differing:
        notes.append(f"the seeds of {name} differ in {some_of(differing)}; their spread is not that of the seeds alone")
    return notes


def _hypotheses(run: Run) -> str:
    """The same text for runs whose hypotheses are the same; empty if they are not known."""
    hashes = [f"{direction} {entry.get('hypotheses_sha256', '')}" for direction, entry in sorted(run.entries.items())]
    return "" if not hashes or any(text.endswith(" ") for text in hashes) else "\n".join(hashes)


def _search(run: Run) -> dict[str, str]:
    """The settings of a run's search, as texts."""
    settings: dict[str, object] = {
        key: value for key, value in run.settings.items() if key in ("encoder_langtok", "decoder_langtok", "precision")
    }
    generation = run.settings.get("generation")
    settings |= generation if isinstance(generation, Mapping) else {}
    return {key: str(value) for key, value in settings.items()}


@lru_cache(maxsize=16)
def seed_weights(seeds: int, samples: int, run: int) -> NDArray:
    """How much each seed counts in each resample, ``(seeds, samples)``: one less is drawn than there are.

    With replacement, k - 1 of k draws give the mean its unbiased variance (McCarthy and Snowden, The Bootstrap and
    Finite Population Sampling, 1985); k draws would understate it by a third where there are three seeds.

    Args:
        seeds: how many there are.
        samples: resamples.
        run: the number of the run; each draws for itself, as the seeds of two runs have nothing in common.
    """
    if seeds == 1:
        return np.ones((1, samples))
    drawn = np.random.default_rng((SEED, run)).integers(seeds, size=(seeds - 1, samples))
    return (drawn[None] == np.arange(seeds)[:, None, None]).sum(axis=1) / (seeds - 1)


def combine(scores: Sequence[NDArray], run: int) -> NDArray:
    """The scores of a run's resamples, ``(samples,)``, from those of its seeds, each ``(samples,)``."""
    if len(scores) == 1:
        return scores[0]
    stacked = np.stack(scores)
    return (seed_weights(len(scores), stacked.shape[1], run) * stacked).sum(axis=0)
