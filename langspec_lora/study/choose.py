"""The learning rate of each variant, chosen on development text."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from langspec_lora.curve_file import curve_file_name, read_curves
from langspec_lora.errors import UserError
from langspec_lora.evaluation.metrics import METRICS
from langspec_lora.evaluation.results import read_run
from langspec_lora.study.plan import Plan
from langspec_lora.study.recipe import BEST, LOSS, Variant


@dataclass(frozen=True)
class Choice:
    """What was chosen for a variant.

    Attributes:
        by: the score, or ``loss``.
        scores: the score of each learning rate.
        rate: the chosen one.
    """

    by: str
    scores: Mapping[str, float]
    rate: str

    @property
    def at_an_end(self) -> str:
        """``smallest`` or ``largest`` if the chosen rate is that of those tried; else empty."""
        ordered = sorted(self.scores, key=float)
        return {ordered[0]: "smallest", ordered[-1]: "largest"}.get(self.rate, "") if len(ordered) > 1 else ""


def choose(plan: Plan, done: Collection[str]) -> dict[str, Choice]:
    """Chooses for the variants with several learning rates whose trials have all been made.

    Args:
        plan: of the study.
        done: the names of the steps that have run.

    Raises:
        UserError: a score cannot be read.
    """
    recipe, choices = plan.recipe, {}
    for variant in recipe.variants:
        if len(variant.rates) < 2:
            continue
        kind = "train" if recipe.choose_by == LOSS else "development"
        end = f"-seed{recipe.seeds[0]}" if recipe.choose_by == LOSS else ""
        if all(f"{kind}-{variant.name}-lr{rate}{end}" in done for rate in variant.rates):
            choices[variant.name] = _choice(plan, variant)
    return choices


def _choice(plan: Plan, variant: Variant) -> Choice:
    by = plan.recipe.choose_by
    if by == LOSS:
        folders = {rate: plan.training_folder(variant, rate, plan.recipe.seeds[0]) for rate in variant.rates}
        scores = {rate: loss_of(folder, variant.epoch) for rate, folder in folders.items()}
    else:
        folders = {rate: plan.development_folder(variant, rate) for rate in variant.rates}
        scores = {rate: fmean(read_run(folder, rate).metric(by).values()) for rate, folder in folders.items()}
    lower = by == LOSS or not METRICS[by].higher_is_better
    # Of equal scores the first in the recipe.
    return Choice(by, scores, (min if lower else max)(scores, key=scores.__getitem__))


def loss_of(folder: Path, epoch: str) -> float:
    """The loss on development text of a training's checkpoint, in bits per token.

    Args:
        folder: its ``--save-dir``.
        epoch: of which checkpoint, ``last`` or ``best``; the best is the one with the lowest loss.

    Raises:
        UserError: the training wrote no losses.
    """
    validations = read_curves(folder / curve_file_name()).validations
    losses = [line["loss"] for line in validations if isinstance(line.get("loss"), float)]
    if not losses:
        raise UserError(
            f"{folder} has no losses on development text; choose by a score, or train without --disable-validation"
        )
    return min(losses) if epoch == BEST else losses[-1]
