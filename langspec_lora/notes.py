"""Notes for the user on standard error, which are neither errors nor results; ``--quiet`` hides them."""

from __future__ import annotations

import logging
import sys


def is_quiet() -> bool:
    """Whether only errors are logged."""
    return not logging.getLogger("langspec_lora").isEnabledFor(logging.WARNING)


def note(text: str) -> None:
    """Prints a line for the user."""
    if not is_quiet():
        print(f"langspec-lora: {text}", file=sys.stderr, flush=True)
