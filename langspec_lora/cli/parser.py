"""The parser that all commands share: help with defaults and an example, and all mistakes told together."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from typing import Any, NoReturn

from langspec_lora.errors import listed
from langspec_lora.naming import did_you_mean, nearest, some_of

_HELP = frozenset({"-h", "--help"})
_NEGATIVE_NUMBER = re.compile(r"-\.?[0-9]")


class CommandParser(argparse.ArgumentParser):
    """An argument parser whose help shows defaults, and which lists all mistakes of a command line together."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"formatter_class": _HelpFormatter, **settings})
        self._mistakes: list[str] = []
        self._given: set[argparse.Action] = set()

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
            SystemExit: with exit code 2 and a list of all mistakes, 0 after the help.
        """
        words, literal = _split_at_dashes(words)
        if not _HELP.isdisjoint(words):
            self.print_help()
            self.exit()
        self._mistakes, self._given = [], set()
        known, excused = self._without_wrong_flags(words)
        with self._nothing_required() as required:
            args, more = self.parse_known_intermixed_args([*known, *literal])
        if more and not excused:
            self._mistakes.append(f"unrecognized arguments: {' '.join(more)}")
        self._note_missing(required, self._given | excused)
        if self._mistakes:
            self._end()
        return args

    def error(self, message: str) -> NoReturn:
        """Ends the program with the mistakes found so far, without the usage, which can fill a screen."""
        self._mistakes.append(message)
        self._end()

    def _end(self) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {listed(self._mistakes)}\n")

    @contextmanager
    def _nothing_required(self) -> Iterator[list[argparse.Action]]:
        """Yields the arguments that are required, of which argparse would name the first, and only if all is right."""
        parts: list[Any] = [*self._actions, *self._mutually_exclusive_groups]
        parts = [part for part in parts if part.required]
        for part in parts:
            part.required = False
        try:
            yield [part for part in parts if isinstance(part, argparse.Action) and part.nargs != "*"]
        finally:
            for part in parts:
                part.required = True

    def _note_missing(self, required: Iterable[argparse.Action], there: Set[argparse.Action]) -> None:
        if missing := [_name(action) for action in required if action not in there]:
            self._mistakes.append(f"the following arguments are required: {some_of(missing)}; see {self.prog} --help")
        for group in self._mutually_exclusive_groups:
            if group.required and there.isdisjoint(group._group_actions):
                names = " ".join(map(_name, group._group_actions))
                self._mistakes.append(f"one of the arguments {names} is required; see {self.prog} --help")

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """Notes a wrong value and goes on; argparse has no public method for this."""
        if not arg_strings and action in self._given:  # noted by _match_argument
            return action.default
        if arg_strings:
            self._given.add(action)
        try:
            return super()._get_values(action, arg_strings)
        except argparse.ArgumentError as error:
            self._mistakes.append(str(error))
            return action.default

    def _match_argument(self, action: argparse.Action, arg_strings_pattern: str) -> int:
        """Notes a flag without its value and goes on, likewise."""
        try:
            return super()._match_argument(action, arg_strings_pattern)
        except argparse.ArgumentError as error:
            self._mistakes.append(str(error))
            self._given.add(action)
            return 0

    def _without_wrong_flags(self, words: Sequence[str]) -> tuple[list[str], set[argparse.Action]]:
        """Notes the flags that are unknown, or abbreviate several, and leaves them out with the words after them.

        Returns:
            The other words, and the arguments that may have been meant.
        """
        known: list[str] = []
        meant: set[argparse.Action] = set()
        follows_wrong = False
        for word in words:
            if word.startswith("-") and word != "-" and " " not in word and not _NEGATIVE_NUMBER.match(word):
                guesses = self._note_wrong_flag(word.partition("=")[0])  # with a space it is text, as for argparse
                follows_wrong = guesses is not None
                if guesses is not None:  # what follows may be its value or an argument
                    meant.update((*guesses, *self._get_positional_actions()))
            if not follows_wrong:
                known.append(word)
        return known, meant

    def _note_wrong_flag(self, flag: str) -> list[argparse.Action] | None:
        """The arguments that may have been meant by a wrong flag; None if the flag is right."""
        known = self._option_string_actions
        if flag in known or (not flag.startswith("--") and flag[:2] in known):
            return None
        names = [name for name in known if flag.startswith("--") and name.startswith(flag)]
        if len(names) == 1:
            return None
        if names:
            self._mistakes.append(f"ambiguous option: {flag} could match {some_of(names)}")
        else:
            names = nearest(flag, known)
            self._mistakes.append(f"unknown flag {flag}; {did_you_mean(flag, known)}{self.prog} --help lists the flags")
        return [known[name] for name in names]


def _split_at_dashes(words: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """The words before ``--``, and those from it on, which are no flags."""
    end = words.index("--") if "--" in words else len(words)
    return words[:end], words[end:]


def _name(action: argparse.Action) -> str:
    return "/".join(action.option_strings) or str(action.metavar or action.dest)


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
