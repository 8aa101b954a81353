"""Makes ``fairseq-train --user-dir … --task … --arch … --help`` show the flags of task, architecture and optimizer.

``fairseq.options.parse_args_and_arch`` parses twice: first to learn the task, architecture, criterion and so on, then
with their flags added. ``--help`` is answered in the first pass, which knows only fairseq's general flags. fairseq has
no hook between the two passes, so the function is wrapped; only in a process that was asked for help.
"""

from __future__ import annotations

import functools
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from typing import Any

from fairseq import options

HELP = frozenset({"-h", "--help"})


def with_help_of_all_flags(parse: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps ``parse_args_and_arch`` so that it answers ``--help`` in its second pass."""

    @functools.wraps(parse)
    def parse_args_and_arch(
        parser: ArgumentParser, input_args: Sequence[str] | None = None, *args: Any, **settings: Any
    ) -> Any:
        words = sys.argv[1:] if input_args is None else input_args
        if not HELP.isdisjoint(words):
            _skip_help_once(parser, [word for word in words if word not in HELP])
        return parse(parser, input_args, *args, **settings)

    return parse_args_and_arch


def _skip_help_once(parser: ArgumentParser, words: Sequence[str]) -> None:
    """Has a parser's next parse read ``words``, whatever it is given."""

    def parse_known_args(*_: Any, **__: Any) -> tuple[Namespace, list[str]]:
        vars(parser).pop("parse_known_args")
        args, rest = parser.parse_known_args(words)
        if getattr(args, "arch", "") is None:
            del args.arch  # without one, fairseq adds the flags of the task only; it fails on None
        return args, rest

    vars(parser)["parse_known_args"] = parse_known_args


if not HELP.isdisjoint(sys.argv):
    options.parse_args_and_arch = with_help_of_all_flags(options.parse_args_and_arch)
