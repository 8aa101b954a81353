"""What SECURITY.md promises has tests."""

from __future__ import annotations

import re

from tests import ROOT


def test_every_test_that_the_page_names_exists_and_every_row_names_one() -> None:
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(tests/[^`]+)`", page))
    assert len(named) > 10
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []
    rows = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| What ")]
    assert len(rows) == 8
    assert all("`tests/" in row for row in rows)
