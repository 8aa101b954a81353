"""The error type for mistakes of the user, and how it ends a program."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_SIGPIPE = 13  # the signal module lacks it on some systems


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
    """Wraps a whole program: :func:`exit_on_user_error`, and one line on Ctrl-C or a full disk too.

    Args:
        stopped: what to print on Ctrl-C.

    Raises:
        SystemExit: in place of a :class:`UserError`, of an OSError, of a KeyboardInterrupt (exit code 130, as in a
            shell), or, without a message, when the reader of the output has closed it (141).
    """
    try:
        with exit_on_user_error(), _output():
            yield
    except KeyboardInterrupt:
        print(f"\nlangspec-lora: {stopped}", file=sys.stderr)
        raise SystemExit(130) from None


@contextmanager
def _output() -> Iterator[None]:
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has closed it
        _drop_output()
        raise SystemExit(128 + _SIGPIPE) from None
    except OSError as error:
        _drop_output()
        reason = error.strerror or error
        if error.filename is not None:
            raise UserError(f"{error.filename}: {reason}; check the path and its permissions") from error
        raise UserError(f"cannot write the output: {reason}; check the disk") from error


def _drop_output() -> None:
    """Discards buffered output: Python would try to write it again on exit, and print an error."""
    with suppress(OSError, ValueError):  # the output is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _in_one_line(text: str) -> str:
    """Escapes line breaks and terminal codes, which names read from a file can contain."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
