"""The progress of a study as a table: a row for each learning rate of a variant, a column for each seed."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from statistics import fmean

from rich.console import Console
from rich.live import Live
from rich.table import Table

from langspec_lora.errors import UserError
from langspec_lora.evaluation.results import SCORES, read_run
from langspec_lora.naming import all_of
from langspec_lora.notes import is_quiet, show
from langspec_lora.study.recipe import BASE, Variant
from langspec_lora.study.run import Runner, Watcher
from langspec_lora.study.state import Study
from langspec_lora.study.steps import Step, command_text

_TAIL = 20_000  # bytes of a log in which its progress is found
_EPOCH = re.compile(r"(?:train_inner \| epoch |\"epoch\": )0*(\d+)")
_LOSS = re.compile(r"\bloss(?:=|\": \")(\d+\.?\d*)")
_SENTENCES = re.compile(r"(\d+)/(\d+) \[")
_OWN_COLUMNS = 2


def progress(step: Step, output: str) -> str:
    """How far a step is, from the end of its output: epoch and loss of a training, sentences of a decoding."""
    if step.trains:
        epochs, losses = _EPOCH.findall(output), _LOSS.findall(output)
        flags = list(step.command)
        last = flags[flags.index("--max-epoch") + 1] if "--max-epoch" in flags else ""
        epoch = f"epoch {epochs[-1]}{f'/{last}' if last else ''}" if epochs else "starting"
        return f"{epoch}, loss {float(losses[-1]):.2f}" if epochs and losses else epoch
    found = _SENTENCES.findall(output)
    return f"{found[-1][0]}/{found[-1][1]} sentences" if found else "running"


class Board:
    """The table.

    Args:
        study: the study.
        metric: the score to show of held-out text.
    """

    def __init__(self, study: Study, metric: str) -> None:
        self.study, self.metric = study, metric
        self._scores: dict[str, float] = {}

    def header(self) -> list[str]:
        """The names of the columns."""
        seeds = [f"seed {seed}" for seed in self.study.recipe.seeds]
        return ["variant", "learning rate", *seeds]

    def rows(self, running: Collection[str] = (), failed: Collection[str] = ()) -> list[list[str]]:
        """The cells: of the data and the base, then of each learning rate of each variant.

        Args:
            running: the names of the steps that run.
            failed: of those that failed.
        """
        recipe, steps = self.study.plan.recipe, self.study.plan.steps
        empty = [""] * (len(recipe.seeds) - 1)
        rows = []
        for name, step in steps.items():
            if step.kind == "data":
                rows.append([name.replace("-", " ", 1), "", self._state(step, running, failed), *empty])
        base = [steps[name] for name in (BASE, f"test-{BASE}") if name in steps]
        rows.append([BASE, "", self._cell(base, running, failed), *empty])
        for variant in recipe.variants:
            for number, rate in enumerate(variant.rates):
                chosen = self.study.plan.rates.get(variant.name, rate if len(variant.rates) == 1 else "")
                cells = [self._cell(self._steps(variant, rate, seed), running, failed) for seed in recipe.seeds]
                mark = f"{rate} ✓" if rate == chosen and len(variant.rates) > 1 else rate
                rows.append(["" if number else variant.name, mark, *cells])
        for name, step in steps.items():
            if step.kind == "report":
                rows.append([name.replace("-", " "), "", self._state(step, running, failed), *empty])
        return rows

    def _steps(self, variant: Variant, rate: str, seed: int) -> list[Step]:
        """The steps of a cell, in order; those whose learning rate is not chosen yet are of all rates."""
        chosen = self.study.plan.rates.get(variant.name)
        return [
            step
            for step in self.study.plan.steps.values()
            if step.variant == variant.name
            and step.seed == seed
            and (step.rate == rate or (step.waits and seed != self.study.recipe.seeds[0] and chosen is None))
        ]

    def _cell(self, steps: Sequence[Step], running: Collection[str], failed: Collection[str]) -> str:
        """What a cell says: the first step that has not run, or the scores, or nothing if there is nothing to run."""
        if not steps:
            return "-"
        words: list[str] = []
        for step in steps:
            state = self._state(step, running, failed)
            if step.name not in self.study.done:
                return all_of([*words, state])
            if state:
                words.append(state)
        return all_of(words)

    def _state(self, step: Step, running: Collection[str], failed: Collection[str]) -> str:
        if step.name in running:
            return progress(step, self.study.records.output(step, _TAIL))
        if step.name in failed or step.name in self.study.outdated:
            return "failed" if step.name in failed else "outdated"
        if step.name in self.study.done:
            return self.score(step)
        return "stopped" if step.name in self.study.begun else "waiting"

    def score(self, step: Step) -> str:
        """The score of a step that has run, or that it is done; empty for what the next steps show."""
        if step.kind not in ("development", "test"):
            return "done" if step.kind in ("data", "report") else ""
        if step.name not in self._scores:
            by = self.metric if step.kind == "test" else self.study.recipe.choose_by
            try:
                self._scores[step.name] = fmean(read_run(step.folder, step.name).metric(by).values())
            except UserError:
                return f"{SCORES} cannot be read"
        score = f"{self._scores[step.name]:.2f}"
        return score if step.kind == "test" else f"development {score}"

    def table(self, running: Collection[str] = (), failed: Collection[str] = ()) -> Table:
        """The table for a terminal; see :meth:`rows`."""
        table = Table(title=f"{self.study.recipe.title} ({self.metric})", title_justify="left")
        for number, name in enumerate(self.header()):
            table.add_column(name, justify="left" if number < _OWN_COLUMNS else "right")
        for row in self.rows(running, failed):
            table.add_row(*row)
        return table


class ScreenWatcher(Watcher):
    """Shows the table on a terminal, where it changes in place; elsewhere a line for each step."""

    def __init__(self, board: Board, console: Console) -> None:
        self.board, self.console = board, console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal and not is_quiet() else None

    def __enter__(self) -> ScreenWatcher:
        if self._live:
            self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._live.__exit__(None, None, None)

    def began(self, runner: Runner, step: Step) -> None:
        """See :class:`Watcher`."""
        if self._live is None and not is_quiet():
            show(f"{step.name}:", "\n".join(f"    {line}" for line in command_text(step.command).splitlines()))

    def ended(self, runner: Runner, step: Step, seconds: float) -> None:
        """See :class:`Watcher`."""
        if self._live is None and not is_quiet():
            score = self.board.score(step)
            show(f"{step.name}: done in {seconds:.0f} s{f' ({score})' if score not in ('', 'done') else ''}")

    def failed(self, runner: Runner, step: Step, lines: Sequence[str]) -> None:
        """See :class:`Watcher`."""
        text = [f"{step.name} failed:", *(f"    | {line}" for line in lines)]
        if self._live:
            self._live.console.print("\n".join(text), markup=False, highlight=False)
        else:
            show(*text)

    def look(self, runner: Runner) -> None:
        """See :class:`Watcher`."""
        if self._live:
            self._live.update(self.board.table(runner.running, runner.failed), refresh=True)
