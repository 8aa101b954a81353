"""Where a study stands: its plan, what has run, and what can run now; all of it read from its folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from langspec_lora.errors import UserError
from langspec_lora.files import link_file, read_json, write_json
from langspec_lora.study.choose import Choice, choose
from langspec_lora.study.plan import Plan
from langspec_lora.study.recipe import BASE, Recipe
from langspec_lora.study.records import Outdated, Records
from langspec_lora.study.steps import CHOICES, MODELS, OLD, STUDY, Step


class Study:
    """A study in its folder.

    Args:
        recipe: what to do.
        out: the folder.
        sets_aside: moves results that were made from something else into ``OUT/old``, instead of noting them.

    Attributes:
        plan: the steps, as far as learning rates are chosen.
        done: the names of the steps that have run.
        begun: the names of those that have begun.
        outdated: by name the steps whose results were made from something else.
        moved: where results were moved.
        choices: what was chosen for variants with several learning rates.

    Raises:
        UserError: the folder belongs to another recipe.
    """

    def __init__(self, recipe: Recipe, out: Path, sets_aside: bool = False) -> None:
        check_folder_of(out, recipe.name)
        self.recipe, self.out, self.records = recipe, out, Records(out)
        self._sets_aside = sets_aside
        self.plan = Plan(recipe, out, {})
        self.done: set[str] = set()
        self.begun: set[str] = set()
        self.outdated: dict[str, Outdated] = {}
        self.moved: list[Path] = []
        self.choices: dict[str, Choice] = {}
        self._examined: set[str] = set()

    def refresh(self) -> None:
        """Looks what has run, chooses the learning rates that can be chosen, and plans what follows."""
        while True:
            for step in self.plan.steps.values():
                if step.name not in self._examined and not step.waits and self.done.issuperset(step.needs):
                    self._examined.add(step.name)
                    self._examine(step)
            choices = choose(self.plan, self.done)
            if choices == self.choices:
                return
            self.choices = choices
            self.plan = Plan(self.recipe, self.out, {name: choice.rate for name, choice in choices.items()})

    def note_done(self, step: Step) -> None:
        """Notes that a step has run just now."""
        self.done.add(step.name)
        self.refresh()
        self.write()

    def _examine(self, step: Step) -> None:
        try:
            state = self.records.state(step)
        except Outdated as error:
            if self._sets_aside:
                self.moved.append(self.records.set_aside(step))
            else:
                self.outdated[step.name] = error
            return
        if state is not None:
            (self.done if state else self.begun).add(step.name)

    def ready(self) -> Iterator[Step]:
        """The steps that can run now."""
        for step in list(self.plan.steps.values()):
            known = step.name in self.done or step.name in self.outdated
            if not known and not step.waits and self.done.issuperset(step.needs):
                yield step

    def all_needs(self, step: Step) -> set[str]:
        """The names of all steps that a step depends on, directly or not."""
        found: set[str] = set()
        following = list(step.needs)
        while following:
            name = following.pop()
            if name not in found:
                found.add(name)
                following += self.plan.steps[name].needs
        return found

    def write(self) -> None:
        """Writes which recipe the folder belongs to, and what was chosen."""
        content = json.loads(json.dumps(asdict(self.recipe), default=str))
        write_json(self.out / STUDY, {"recipe": self.recipe.name, "content": content})
        write_json(self.out / CHOICES, {name: asdict(choice) for name, choice in self.choices.items()})
        self._link_models()

    def _link_models(self) -> None:
        """Links to each checkpoint that is evaluated, under a name that does not depend on what was chosen."""
        steps = self.plan.steps
        wanted = {f"{BASE}.pt": self.plan.base}
        for variant in self.recipe.variants:
            rate = self.plan.rates.get(variant.name) or (variant.rates[0] if len(variant.rates) == 1 else "")
            for seed in self.recipe.seeds if rate else ():
                wanted[f"{variant.name}-seed{seed}.pt"] = self.plan.checkpoint(variant, rate, seed)
        made = {step.result for step in steps.values() if step.trains and step.name in self.done}
        for name, checkpoint in wanted.items():
            if checkpoint in made or (name == f"{BASE}.pt" and BASE not in steps and checkpoint.exists()):
                link_file(self.out / MODELS / name, checkpoint)


def check_folder_of(out: Path, name: str) -> None:
    """Checks that a folder is new, or that of a study with this recipe.

    Raises:
        UserError: it holds something else.
    """
    path = out / STUDY
    if path.is_file():
        found = read_json(path, "'langspec-lora study'", "give another --out").get("recipe")
        if found != name:
            raise UserError(f"{out} holds the study of another recipe, {found!r}; give another --out for {name!r}")
    elif out.exists() and (not out.is_dir() or any(not one.name.startswith(".lock") for one in out.iterdir())):
        raise UserError(f"{out} exists and holds no study; give another --out")
    if any(mark in str(out) for mark in ",=:{}"):
        raise UserError(f"--out {out} has one of , = : {{ }} in it, which have a meaning in commands; rename it")


def refuse_outdated(study: Study) -> None:
    """Ends a study that would mix results of different settings.

    Raises:
        UserError: results in its folder were made from something else.
    """
    if not study.outdated:
        return
    found = "; ".join(map(str, study.outdated.values()))
    it = "it" if len(study.outdated) == 1 else "them"
    old = study.out / OLD
    raise UserError(
        f"{found}: give another --out, remove {it}, or give --set-aside, which moves {it} to {old} and makes {it} again"
    )
