"""What a command tells the user: results, and notes on standard error, which ``--quiet`` hides."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any, TextIO

from langspec_lora.errors import brief, printable


def is_quiet() -> bool:
    """Whether only errors are logged."""
    return not logging.getLogger("langspec_lora").isEnabledFor(logging.WARNING)


class PrintableFormatter(logging.Formatter):
    """Formats log records with what a terminal would obey escaped, as :func:`show` does; warnings are brief."""

    def format(self, record: logging.LogRecord) -> str:
        """See :class:`logging.Formatter`."""
        text = _lines(super().format(record))
        return text if record.levelno < logging.WARNING or record.exc_info else brief(text)


def note(text: str) -> None:
    """Prints a line for the user."""
    if not is_quiet():
        print(f"langspec-lora: {brief(printable(text))}", file=sys.stderr, flush=True)


def show(*lines: str, file: TextIO | None = None) -> None:
    """Prints lines, with what a terminal would obey escaped: names in them can come from somebody else's file.

    Args:
        *lines: each a line, or several.
        file: where; by default standard output.
    """
    for text in lines:
        print(_lines(text), file=file, flush=True)


def show_json(content: Any) -> None:
    """Prints JSON with all scripts as they are, but what a terminal would obey escaped, as JSON can.

    Args:
        content: lists, mappings and values.
    """
    text = json.dumps(content, indent=1, ensure_ascii=False)
    print("".join(char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text), flush=True)


def _lines(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))
