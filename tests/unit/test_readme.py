"""The README names every flag, architecture and subcommand."""

from __future__ import annotations

import argparse
import re

from fairseq.models import ARCH_MODEL_INV_REGISTRY

from langspec_lora.flags import add_absent_flag, add_adapter_flags, add_base_flag, add_pruning_flags
from langspec_lora.tasks import translation  # noqa: F401  (registers task, model and architectures)
from tests import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_flag_stands_in_the_table() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    add_adapter_flags(parser)
    add_pruning_flags(parser)
    add_base_flag(parser)
    add_absent_flag(parser)
    rows = "\n".join(
        line.split("|")[1] for line in README.splitlines() if line.startswith("| `--") and "--arch" not in line
    )
    flags = {flag for action in parser._actions for flag in action.option_strings}
    assert flags == set(re.findall(r"`(--[a-z0-9-]+)`", rows))


def test_every_architecture_stands_in_the_table() -> None:
    rows = [
        line.split("|")[1].strip(" `") for line in README.splitlines() if line.startswith("| `") and "`--" not in line
    ]
    assert set(rows) == set(ARCH_MODEL_INV_REGISTRY["langspec_m2m100_lora"])
