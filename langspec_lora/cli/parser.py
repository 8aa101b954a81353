"""The parser that all commands share: help with defaults and an example, and mistakes told in one line."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

_NEGATIVE_NUMBER = re.compile(r"-\.?[0-9]")


class CommandParser(argparse.ArgumentParser):
    """An argument parser whose help shows defaults, and which names the nearest flag for an unknown one."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"formatter_class": _HelpFormatter, **settings})

    def add_verbosity(self) -> None:
        """Adds ``-q`` and ``-v``, which every command has."""
        group = self.add_argument_group("messages").add_mutually_exclusive_group()
        group.add_argument("-q", "--quiet", action="store_true", help="only errors: no notes, warnings and progress")
        group.add_argument(
            "-v", "--verbose", action="store_true", help="fairseq's log too, and the traceback of an unexpected error"
        )

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Parses a command line; positional arguments may follow flags.

        Raises:
            SystemExit: with exit code 2 for a mistake, 0 after the help.
        """
        # argparse complains about flags that are missing before those that it does not know.
        flag = self._unknown_flag(words)
        if flag is not None:
            guess = did_you_mean(flag, self._option_string_actions)
            self.error(f"unknown flag {flag}; {guess}{self.prog} --help lists the flags")
        return self.parse_intermixed_args(words)

    def error(self, message: str) -> NoReturn:
        """Ends the program with one line, without the usage, which can fill a screen."""
        if message.startswith("the following arguments are required"):
            message += f"; see {self.prog} --help"
        self.exit(2, f"{self.prog}: error: {message}\n")

    def _unknown_flag(self, words: Iterable[str]) -> str | None:
        known = self._option_string_actions
        for word in words:
            if word in ("--", "-h", "--help"):
                return None
            if not word.startswith("-") or word == "-" or _NEGATIVE_NUMBER.match(word):
                continue
            name = word.partition("=")[0]
            is_known = any(flag.startswith(name) for flag in known) if word.startswith("--") else word[:2] in known
            if not is_known and " " not in word:  # with a space it is text, as for argparse
                return name
        return None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``"did you mean …? "`` with the known word nearest to an unknown one; empty if none is near."""
    return "".join(f"did you mean {near}? " for near in difflib.get_close_matches(word, known, n=1))


class _HelpFormatter(argparse.HelpFormatter):
    """Adds defaults that the help does not mention, and keeps the lines of a text that has several."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        unset = action.default is None or action.default is False or action.default in ([], argparse.SUPPRESS)
        if unset or not action.option_strings or "default" in text:
            return action.help
        return f"{text} (default: %(default)s)".lstrip()

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)
