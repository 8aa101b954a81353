"""What to leave out and on which text; knows no torch, so that a command line is read at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from langspec_lora.errors import UserError
from langspec_lora.generation import BatchLimits
from langspec_lora.inference.model_spec import ModelSpec
from langspec_lora.naming import all_of
from langspec_lora.settings import check_numbers, flag
from langspec_lora.values import content_of, names_of, shortened

LANGUAGE, LAYER, POSITION, FC, SWAP = "language", "layer", "position", "fc", "swap"
BY = (LANGUAGE, LAYER, POSITION, FC, SWAP)
"""What ``--by`` may name: whose adapters are left out, or (``swap``) replaced by another's."""

CSV_FILES = ("ablation.csv", "ablation.languages.csv", "ablation.directions.csv", "swap.csv", "similarity.csv")
MAPS = ("layers", "positions", "swap.source", "swap.target", "swap.both", "swap.direction", "similarity", "cosine")
"""The tables and pictures (these without their endings) that there can be."""


def _languages(text: str) -> tuple[str, ...]:
    return tuple(names_of(text, "--langs"))


def _by(text: str) -> tuple[str, ...]:
    names = names_of(text, "--by", "layer,position")
    unknown = [name for name in names if name not in BY]
    if unknown:
        raise UserError(f"--by names {shortened(unknown[0])}; choose from {all_of(BY)}")
    return tuple(name for name in BY if name in names)


@dataclass(frozen=True)
class AblationOptions:
    """What to leave out and on which text.

    Attributes:
        data_bin: the binarised folder.
        model: which model; its dictionary is that of the data where None.
        out: the folder for tables and pictures; None for none.
        limits: how much a batch holds.
        langs: languages between which the directions are; those of the data where None.
        lang_pairs: directions joined by commas, or ``all``.
        subset: the split to measure on.
        by: some of :data:`BY`.
        sentences: sentences of each direction.
        max_hours: the time that it may take, as far as can be told.
        overwrite: replace the files of an earlier call.

    Raises:
        UserError: a number is out of range.
    """

    data_bin: Path
    model: ModelSpec
    out: Path | None = None
    limits: BatchLimits = field(default_factory=BatchLimits)
    langs: tuple[str, ...] | None = flag(
        None, "languages whose directions to use", "A,B,…", default_text="the data's", convert=_languages
    )
    lang_pairs: str = flag(
        "all",
        "directions, or a file that holds them",
        "A-B,…",
        default_text="all ordered pairs of --langs",
        convert=content_of,
    )
    subset: str = flag("valid", "split to measure the loss on", "SPLIT", names=("--subset", "--gen-subset"))
    by: tuple[str, ...] = flag(
        BY,
        "leave out the adapters by language, layer, position, or those of feed-forward and attention layers (fc); "
        "replace those of a language by another's (swap)",
        "A,B,…",
        default_text="all five",
        convert=_by,
    )
    sentences: int = flag(
        16,
        "sentences of each direction, spread evenly over the split",
        "N",
        valid=lambda value: value >= 1,
        expected="a number of sentences of at least 1",
    )
    max_hours: float = flag(
        1.0,
        "refuse what would take longer, before it starts",
        "H",
        valid=lambda value: value > 0,
        expected="a number of hours above 0",
    )
    overwrite: bool = flag(False, "replace the files of an earlier call in --out")

    def __post_init__(self) -> None:
        check_numbers(AblationOptions, self)
