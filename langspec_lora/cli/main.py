"""``langspec-lora COMMAND …``: finds the command's module and runs it.

A command is a module of this package with ``HELP`` (one line), ``add_arguments(parser)`` and ``run(args) -> int``. Only
the module of the command given is imported, so that ``langspec-lora doctor`` works where another's imports do not.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

from langspec_lora import __version__
from langspec_lora.errors import command_line

COMMANDS = ("doctor", "prepare-flores", "make-example", "evaluate", "report", "bench")
"""The commands in the order of use; ``prepare-flores`` lives in ``prepare_flores.py``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the command line without the program's name; by default that of the process.

    Returns:
        The exit code.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    chosen = arguments[0] if arguments and arguments[0] in COMMANDS else None
    parser = argparse.ArgumentParser(
        prog="langspec-lora", description="Language-specific LoRA for multilingual translation with fairseq."
    )
    parser.add_argument("--version", action="version", version=f"langspec-lora {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in [chosen] if chosen else COMMANDS:
        command = _module(name)
        subparser = subparsers.add_parser(name, help=command.HELP, description=command.HELP)
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    args = parser.parse_args(arguments)
    with command_line():
        return args.run(args)


def _module(command: str) -> ModuleType:
    return importlib.import_module(f"langspec_lora.cli.{command.replace('-', '_')}")


if __name__ == "__main__":
    sys.exit(main())
