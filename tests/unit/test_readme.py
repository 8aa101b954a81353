"""The README names every flag, architecture and subcommand."""

from __future__ import annotations

import re

from fairseq.models import ARCH_MODEL_INV_REGISTRY

from langspec_lora.flags import flag_table
from langspec_lora.tasks import translation  # noqa: F401  (registers task, model and architectures)
from tests import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_flag_stands_in_the_table() -> None:
    rows = "\n".join(
        line.split("|")[1] for line in README.splitlines() if line.startswith("| `--") and "--arch" not in line
    )
    assert {row.flag for row in flag_table()} == set(re.findall(r"`(--[a-z0-9-]+)`", rows))


def test_every_architecture_stands_in_the_table() -> None:
    rows = [
        line.split("|")[1].strip(" `") for line in README.splitlines() if line.startswith("| `") and "`--" not in line
    ]
    assert set(rows) == set(ARCH_MODEL_INV_REGISTRY["langspec_m2m100_lora"])
