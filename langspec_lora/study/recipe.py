"""What a recipe holds: command lines for data, base, variants and evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Words = tuple[str, ...]
"""The words of a command line; ``{NAME}`` in them stands for a folder or a variable."""

LAST, BEST = "last", "best"
LOSS = "loss"
BASE = "base"
"""The name of the row of the base in all tables."""


@dataclass(frozen=True)
class Base:
    """The model that is fine-tuned: a checkpoint that exists, or one that the study trains.

    Attributes:
        checkpoint: a word with the path of a checkpoint; empty if ``flags`` are given.
        flags: flags of ``fairseq-train``, beginning with the data.
        epoch: which checkpoint of that training is taken, ``last`` or ``best``.
        threads: threads of that training; None for as many as each step has.
    """

    checkpoint: str = ""
    flags: Words = ()
    epoch: str = LAST
    threads: int | None = None


@dataclass(frozen=True)
class Variant:
    """One way to fine-tune.

    Attributes:
        name: its name in tables and folders.
        flags: its own flags of ``fairseq-train``, after those of all variants.
        rates: the learning rates among which one is chosen, as the recipe writes them.
        epoch: which checkpoint is evaluated, ``last`` or ``best``.
    """

    name: str
    flags: Words
    rates: Words
    epoch: str


@dataclass(frozen=True)
class Recipe:
    """A recipe.

    Attributes:
        path: its file; its stem names the study.
        title: what it studies.
        variables: the values of ``{NAME}`` that are no folders of the study.
        data: for each set of data the command that makes it and its flags, without ``--out``.
        base: the model to fine-tune.
        train: flags of ``fairseq-train`` of all variants, beginning with the data.
        variants: the ways to fine-tune.
        seeds: seeds of the trainings; a learning rate is chosen with the first.
        choose_by: the score of development text that chooses it: a metric of ``langspec-lora evaluate``, or ``loss``.
        choose: flags of ``langspec-lora evaluate`` for development text, after ``evaluate``.
        evaluate: flags of ``langspec-lora evaluate``, beginning with the data.
        report: flags of ``langspec-lora report``.
        compare_with: the rows that a report compares all later rows with: one report for each.
        threads: threads of each command; None shares the cores among those that run together.
    """

    path: Path
    title: str
    data: Mapping[str, Words]
    base: Base
    train: Words
    variants: Sequence[Variant]
    seeds: Sequence[int]
    evaluate: Words
    variables: Mapping[str, str] = field(default_factory=dict)
    choose_by: str = LOSS
    choose: Words = ()
    report: Words = ()
    compare_with: Sequence[str] = (BASE,)
    threads: int | None = None

    @property
    def name(self) -> str:
        """The name of the study."""
        return self.path.stem
