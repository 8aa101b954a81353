"""What a command tells the user: results, and notes on standard error, which ``--quiet`` hides."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

from langspec_lora.errors import printable


def is_quiet() -> bool:
    """Whether only errors are logged."""
    return not logging.getLogger("langspec_lora").isEnabledFor(logging.WARNING)


def note(text: str) -> None:
    """Prints a line for the user."""
    if not is_quiet():
        print(f"langspec-lora: {printable(text)}", file=sys.stderr, flush=True)


def show(*lines: str, file: TextIO | None = None) -> None:
    """Prints lines, with what a terminal would obey escaped: names in them can come from somebody else's file.

    Args:
        *lines: each a line, or several.
        file: where; by default standard output.
    """
    for text in lines:
        print("\n".join(map(printable, text.split("\n"))), file=file, flush=True)
