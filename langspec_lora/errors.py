"""The error type for the user's mistakes, and how it ends a program."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TypeVar

Value = TypeVar("Value")

_SIGPIPE = 13  # the signal module lacks it on some systems

_LONGEST = 1000  # characters of a message: a dozen lines of a terminal
_LONG_WORD = re.compile(r"\S{301,}")  # longer than a path usually is
_MOST_MISTAKES = 20


class UserError(ValueError):
    """A wrong flag, file or setting; its message says what was given, what was expected and what to change.

    Whatever value the message repeats, it is a few lines: see :func:`brief`.
    """

    def __str__(self) -> str:
        return brief(super().__str__())


class Terminated(KeyboardInterrupt):
    """SIGTERM ends the program, which first removes what it has not finished writing, as after Ctrl-C."""


class SeveralErrors(UserError):
    """All mistakes of one command.

    Args:
        errors: the mistakes, at least two.
    """

    def __init__(self, *errors: UserError) -> None:
        super().__init__(*errors)
        self.errors = errors

    def __str__(self) -> str:
        return "; ".join(_at_most_some([str(error) for error in self.errors]))


class ErrorCollector:
    """The mistakes found so far; :func:`collect_errors` makes one.

    Attributes:
        errors: each mistake once, in the order in which they were found.
    """

    def __init__(self) -> None:
        self.errors: list[UserError] = []
        self._texts: set[str] = set()

    @contextmanager
    def check(self) -> Iterator[None]:
        """Records the mistake that ends a check, and continues after it."""
        try:
            yield
        except UserError as error:
            self._note(error)

    def attempt(self, compute: Callable[[], Value], otherwise: Value) -> Value:
        """What ``compute`` returns; if it raises a mistake, ``otherwise``, so that other checks can continue."""
        with self.check():
            return compute()
        return otherwise

    def raise_found(self) -> None:
        """Ends the checks here if one has failed, because the checks that follow depend on it or take long.

        Raises:
            UserError: the mistake, or all of them as one :class:`SeveralErrors`.
        """
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            raise SeveralErrors(*self.errors)

    def _note(self, error: UserError) -> None:
        for found in error.errors if isinstance(error, SeveralErrors) else [error]:
            if str(found) not in self._texts:
                self._texts.add(str(found))
                self.errors.append(found)


@contextmanager
def collect_errors() -> Iterator[ErrorCollector]:
    """Collects all mistakes of a command, so that they are reported together.

    ::

        with collect_errors() as errors:
            with errors.check():
                generation = GenerationSettings(beam=0)
            with errors.check():
                outline = read_outline(path)
            errors.raise_found()
            check_hashes(outline)

    Raises:
        UserError: at the end, the mistake, or all of them as one :class:`SeveralErrors`.
    """
    errors = ErrorCollector()
    with errors.check():
        yield errors
    errors.raise_found()


@contextmanager
def exit_on_user_error() -> Iterator[None]:
    """On a :class:`UserError`, ends the program with exit code 1 and a line for each mistake instead of a traceback.

    Use it where fairseq or our command line calls into the package. It raises ``SystemExit`` because fairseq's trainer
    replaces every ``Exception`` that is raised while a checkpoint is loaded.

    Raises:
        SystemExit: instead of a :class:`UserError`.
    """
    try:
        yield
    except UserError as error:
        messages = map(str, error.errors if isinstance(error, SeveralErrors) else [error])
        raise SystemExit(exit_message(listed(list(messages)))) from error


def exit_message(text: str) -> str:
    """The message of a SystemExit by which a program ends."""
    return f"langspec-lora: error: {text}"


@contextmanager
def command_line(stopped: str = "stopped") -> Iterator[None]:
    """Wraps a whole program: like :func:`exit_on_user_error`, and signals and a full disk also end in one line.

    Args:
        stopped: what to print on Ctrl-C or SIGTERM.

    Raises:
        SystemExit: instead of a :class:`UserError`, an OSError, or an interruption by Ctrl-C or SIGTERM (exit codes 130
            and 143, as in a shell); without a message if the reader of the output has closed it (141).
    """
    try:
        with _terminable(), exit_on_user_error(), _output():
            yield
    except KeyboardInterrupt as interruption:
        ended = isinstance(interruption, Terminated)
        print(f"\nlangspec-lora: {'SIGTERM received: ' if ended else ''}{stopped}", file=sys.stderr)
        raise SystemExit(128 + (signal.SIGTERM if ended else signal.SIGINT)) from None


@contextmanager
def _terminable() -> Iterator[None]:
    """Makes SIGTERM raise :class:`Terminated`, once, in this process; those forked from it end as usual."""
    process = os.getpid()

    def terminate(number: int, frame: FrameType | None) -> None:
        ours = os.getpid() == process
        signal.signal(number, signal.SIG_IGN if ours else signal.SIG_DFL)  # Slurm and torchrun send it twice
        if ours:
            raise Terminated
        os.kill(os.getpid(), number)

    try:
        before = signal.signal(signal.SIGTERM, terminate)
    except ValueError:  # only the main thread can handle signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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


def listed(messages: Sequence[str]) -> str:
    """One message as a line, or several as a numbered list; each is :func:`brief`, and so is the list."""
    if len(messages) == 1:
        return brief(printable(messages[0]))
    shown = _at_most_some([printable(message) for message in messages])
    lines = [f"  {number}. {line}" for number, line in enumerate(shown, start=1)]
    if len(shown) < len(messages):
        lines[-1] = f"  … {shown[-1]}"
    return "\n".join([f"{len(messages):,} mistakes", *lines])


def _at_most_some(messages: Sequence[str]) -> list[str]:
    """At most 20 of several messages, then how many more there are; the more there are, the shorter is each."""
    most = max(400, 2 * _LONGEST // len(messages))
    shown = [brief(message, most) for message in messages[:_MOST_MISTAKES]]
    more = len(messages) - len(shown)
    return [*shown, f"and {more:,} more; correct these first"] if more else shown


def brief(text: str, most: int = _LONGEST) -> str:
    """Cuts a message that repeats a long value from somebody's file or command line.

    A word of more than 300 characters keeps its beginning and its end, with its length between them. What is still too
    long keeps its beginning, which says what is wrong, and its end, which says what to do.

    Args:
        text: a message.
        most: the number of characters that it may have, at least 400.
    """
    text = _LONG_WORD.sub(lambda word: f"{word[0][:120]}…({len(word[0]):,} characters)…{word[0][-80:]}", text)
    if len(text) <= most:
        return text
    head, tail = most * 6 // 10, most * 3 // 10
    return f"{text[:head]} … ({len(text) - head - tail:,} more characters) … {text[-tail:]}"


def printable(text: str) -> str:
    """Escapes line breaks, terminal codes and marks of the writing direction, which names from a file can contain."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
