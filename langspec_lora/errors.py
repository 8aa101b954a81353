"""The one error type for mistakes of the person at the keyboard, and how it ends a command line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """A wrong flag, file or setting; its message says what was given, what was expected and what to change."""


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Ends the program with one line and exit code 1 on a :class:`UserError`, in place of a traceback.

    It stands where fairseq or our command line calls into the package. ``SystemExit`` is raised because fairseq's
    trainer replaces every ``Exception`` met while loading a checkpoint by its own.

    Raises:
        SystemExit: in place of a :class:`UserError`.
    """
    try:
        yield
    except UserError as error:
        raise SystemExit(f"langspec-lora: error: {_in_one_line(str(error))}") from error


@contextmanager
def command_line(stopped: str = "stopped") -> Iterator[None]:
    """What a program of ours runs in: :func:`exit_on_user_error`, and one line on Ctrl-C as well.

    Args:
        stopped: that line.

    Raises:
        SystemExit: in place of a :class:`UserError`, or of a KeyboardInterrupt (exit code 130, as the shell has it).
    """
    try:
        with exit_on_user_error():
            yield
    except KeyboardInterrupt:
        print(f"\nlangspec-lora: {stopped}", file=sys.stderr)
        raise SystemExit(130) from None


def _in_one_line(text: str) -> str:
    """Escapes line breaks and terminal codes, which names taken from a file can hold."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
