"""The steps of a study as jobs for Slurm: a script for each, and one that submits them in order."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from langspec_lora.files import write_whole
from langspec_lora.study.run import program
from langspec_lora.study.state import Study
from langspec_lora.study.steps import LOGS, Step

FOLDER = "slurm"
_LIGHT = ("data", "report")


def write_jobs(study: Study, command: Sequence[str], flags: str, light_flags: str) -> tuple[Path, int]:
    """Writes the jobs of all steps that have not run.

    Args:
        study: the study.
        command: the arguments of ``langspec-lora`` that run the study, to which ``--step NAME`` is added.
        flags: flags of ``sbatch`` for trainings and translations.
        light_flags: for the preparation of data and reports, which need no GPU.

    Returns:
        The script that submits the jobs, and how many there are.
    """
    folder = study.out / FOLDER
    steps = [step for step in study.plan.steps.values() if step.name not in study.done]
    for step in steps:
        own = light_flags if step.kind in _LIGHT else flags
        write_whole(folder / f"{step.name}.sh", _job(study, step, command, shlex.split(own)))
    submit = folder / "submit.sh"
    write_whole(submit, _submit(study, steps))
    return submit, len(steps)


def _job(study: Study, step: Step, command: Sequence[str], flags: Sequence[str]) -> str:
    log = (study.out / LOGS).absolute() / f"slurm-{step.name}.%j.log"
    lines = ["#!/usr/bin/env bash"]
    lines += [f"#SBATCH --job-name={study.recipe.name}-{step.name}", f"#SBATCH --output={log}"]
    lines += [f"#SBATCH {shlex.quote(flag)}" for flag in _joined(flags)]
    lines += [f"cd {shlex.quote(str(Path.cwd()))}"]
    lines += [f"exec {shlex.join([program('langspec-lora'), *command, '--step', step.name])}"]
    return "\n".join(lines) + "\n"


def _joined(flags: Sequence[str]) -> list[str]:
    """Flags with their values, one a line: ``-p gpu`` stays together."""
    found: list[str] = []
    for flag in flags:
        if flag.startswith("-") or not found or "=" in found[-1]:
            found.append(flag)
        else:
            found[-1] = f"{found[-1]}={flag}" if found[-1].startswith("--") else f"{found[-1]}{flag}"
    return found


def _submit(study: Study, steps: Sequence[Step]) -> str:
    names = {step.name for step in steps}
    lines = [
        "#!/usr/bin/env bash",
        "# Submits what is missing of the study; each job waits for those that it needs.",
        "set -euo pipefail",
        f"cd {shlex.quote(str(Path.cwd()))}",
        f"mkdir -p {shlex.quote(str(study.out / LOGS))}",
        "declare -A job",
    ]
    for step in steps:
        needs = [name for name in step.needs if name in names]
        after = ":".join(f"${{job[{name}]}}" for name in needs)
        wait = f' --kill-on-invalid-dep=yes --dependency="afterok:{after}"' if needs else ""
        script = shlex.quote(str(study.out / FOLDER / f"{step.name}.sh"))
        lines.append(f"job[{step.name}]=$(sbatch --parsable{wait} {script})")
        lines.append(f"job[{step.name}]=${{job[{step.name}]%%;*}}")
    lines.append(f'echo "{len(steps)} jobs submitted"')
    return "\n".join(lines) + "\n"
