"""``langspec-lora COMMAND …``: runs a command; a failure or an interruption ends it with one line."""

# Imports in functions: Ctrl-C while they run ends in one line too.

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from langspec_lora.errors import UserError, brief, command_line, printable
from langspec_lora.notes import PrintableFormatter

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence
    from types import ModuleType


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the command line without the program's name; by default that of the process.

    Returns:
        The exit code.
    """
    with command_line():
        try:
            return _main(list(sys.argv[1:] if argv is None else argv))
        except Exception as error:
            if interruption := _interruption(error):
                raise type(interruption) from error
            raise


def _main(words: list[str]) -> int:
    from langspec_lora.cli.commands import COMMANDS, module_of, overview, parser_of, refuse

    if words and words[0] in ("-h", "--help", "--version"):
        overview().parse(words)
    if not words or words[0] not in COMMANDS:
        refuse(words[0] if words else None)
    args = parser_of(words[0]).parse(words[1:])
    _set_up_logging(args)
    return _run(module_of(words[0]), args)


def _run(command: ModuleType, args: Namespace) -> int:
    try:
        return command.run(args)
    except (UserError, OSError):
        raise
    except Exception as error:
        if args.verbose or _interruption(error):
            raise
        raise SystemExit(_unexpected(error)) from error


def _set_up_logging(args: Namespace) -> None:
    import logging

    level = logging.ERROR if args.quiet else logging.INFO if args.verbose else logging.WARNING
    form = "%(asctime)s | %(levelname)s | %(name)s | %(message)s" if args.verbose else "langspec-lora: %(message)s"
    # Now, because fairseq sets up logging of its own when imported: everything from INFO on.
    logging.basicConfig(level=level, format=form, stream=sys.stderr)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(PrintableFormatter(form))
    logging.getLogger("fairseq").setLevel(level)


def _interruption(error: BaseException | None) -> KeyboardInterrupt | None:
    """The Ctrl-C or SIGTERM that led to an error: libraries can fail when interrupted while they are imported."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error


def _unexpected(error: Exception) -> str:
    import traceback
    from pathlib import Path

    last = traceback.extract_tb(error.__traceback__)[-1]
    what = brief(printable(" ".join(f"{type(error).__name__}: {error}".split())))
    place = f"{Path(last.filename).name}, line {last.lineno}"
    return f"langspec-lora: unexpected error: {what} ({place}); run it again with -v for the traceback"


if __name__ == "__main__":
    sys.exit(main())
