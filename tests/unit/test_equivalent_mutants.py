"""The changes that no test can notice are explained for code that is there."""

from __future__ import annotations

import yaml

from tests import ROOT


def test_every_entry_names_code_that_exists() -> None:
    entries = yaml.safe_load((ROOT / "tests" / "equivalent_mutants.yaml").read_text(encoding="utf-8"))
    assert entries
    gone = []
    for entry in entries:
        module = ROOT / entry["module"]
        lines = module.read_text(encoding="utf-8").splitlines() if module.is_file() else []
        # scripts/mutants.py leaves out how far lines are indented.
        if entry["was"].strip() not in "\n".join(line.strip() for line in lines):
            gone.append(f"{entry['module']}: {entry['was']}")
    assert not gone
