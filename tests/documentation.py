"""The pages of the documentation, and the fenced blocks in them, for the tests that check and run these."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests import ROOT

PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))

_BLOCK = re.compile(r"^(?:<!-- not run: (?P<reason>.+?) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: the file it is in.
        line: the number of its first line, counted from 1.
        language: ``bash``, ``python``, …
        text: its lines.
        reason: why the tests do not run it; None if they do.
    """

    page: Path
    line: int
    language: str
    text: str
    reason: str | None


def blocks(page: Path, *languages: str) -> list[Block]:
    """The fenced blocks of a page in these languages, in order."""
    content = page.read_text(encoding="utf-8")
    return [
        Block(page, content.count("\n", 0, found.start("text")) + 1, found["language"], found["text"], found["reason"])
        for found in _BLOCK.finditer(content)
        if found["language"] in languages
    ]


def block(page: str, beginning: str) -> str:
    """The text of the one bash block of a page that has a line beginning like this."""
    (found,) = (
        candidate.text
        for candidate in blocks(ROOT / page, "bash")
        if re.search(f"^ *{beginning}", candidate.text, re.M)
    )
    return found
