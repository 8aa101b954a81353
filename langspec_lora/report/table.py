"""A table of text, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

from langspec_lora.errors import printable

MOST_ROWS = 400
"""Of a table or a picture of adapters; each direction between 21 languages has its adapter there."""

_MARKDOWN = str.maketrans({**{char: f"\\{char}" for char in "\\|`[]"}, "<": "&lt;"})
_ENTITY = re.compile(r"&(?=#?\w+;)")


def markdown_text(text: str) -> str:
    """A name as text of Markdown, in which it makes no table cell, link or code, no HTML and no new line."""
    return _ENTITY.sub("&amp;", printable(text)).translate(_MARKDOWN)


def markdown_code(text: str) -> str:
    """A text as code of Markdown, in one line."""
    return f"`{printable(text).replace('`', chr(39))}`"


@dataclass(frozen=True)
class Table:
    """A table of text: the names of its columns, and its lines."""

    header: Sequence[str]
    cells: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """As Markdown whose columns are aligned in plain text as well: the first left, the others right."""
        escaped = [list(map(markdown_text, line)) for line in [self.header, *self.cells]]
        widths = [max(3, *(len(line[i]) for line in escaped)) for i in range(len(self.header))]

        def line(texts: Sequence[str]) -> str:
            first, *others = texts
            padded = [first.ljust(widths[0]), *(t.rjust(w) for t, w in zip(others, widths[1:], strict=True))]
            return f"| {' | '.join(padded)} |"

        rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
        return "\n".join([line(escaped[0]), line(rule), *map(line, escaped[1:])])

    def csv(self) -> str:
        """As comma-separated values."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.header, *self.cells])
        return text.getvalue()


def table_of(columns: Sequence[tuple[str, Sequence[str]]]) -> Table:
    """A table of columns, each a name and its cells."""
    return Table([name for name, _ in columns], list(map(list, zip(*(cells for _, cells in columns), strict=True))))
