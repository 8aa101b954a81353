"""A step of a study: a command that runs once, and the files that tell its state.

::

    OUT/study.json            the recipe's name, and the recipe as it was read last
    OUT/choices.json          for each variant the scores of its learning rates on development text, and the chosen one
    OUT/steps/NAME.json       the command and the content of the input of a step, when it began, how long it took
    OUT/logs/NAME.log         its output
    OUT/models/VARIANT-seedN.pt    links to the checkpoints with the chosen learning rates, and models/base.pt
    OUT/old/N/NAME            what was moved there, because it was made from something else
    OUT/data, base, train, development, test, report…    what the steps make
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

STEPS, LOGS, OLD, MODELS, STUDY, CHOICES = "steps", "logs", "old", "models", "study.json", "choices.json"

_WIDTH = 110


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: its name, also in file names.
        kind: ``data``, ``base``, ``train``, ``development``, ``test`` or ``report``.
        command: program and arguments.
        result: what exists once it has run.
        needs: the names of the steps that must have run before.
        folder: what it makes, and continues when it runs again.
        variant: the variant that it belongs to; empty for those of all.
        rate: the learning rate of its training.
        seed: the seed of its training.
        waits: its command is not known before a learning rate is chosen for the variant.
    """

    name: str
    kind: str
    command: Sequence[str]
    result: Path
    folder: Path
    needs: tuple[str, ...] = ()
    variant: str = ""
    rate: str = ""
    seed: int | None = None
    waits: bool = False

    @property
    def trains(self) -> bool:
        """Whether its command is a training."""
        return self.kind in ("base", "train")


def command_text(command: Sequence[str], width: int = _WIDTH) -> str:
    """A command over several lines, ready to paste into a shell."""
    parts: list[str] = []  # a flag stays with its values
    for number, word in enumerate(command):
        if number and not word.startswith("--") and parts[-1].startswith("--"):
            parts[-1] += f" {shlex.quote(word)}"
        else:
            parts.append(shlex.quote(word))
    return wrapped(parts, width)


def wrapped(parts: Sequence[str], width: int = _WIDTH) -> str:
    """The parts of a command for a shell, several on a line while they fit."""
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + len(part) + 1 <= width:
            lines[-1] += f" {part}"
        else:
            lines.append(f"    {part}")
    return " \\\n".join(lines)
