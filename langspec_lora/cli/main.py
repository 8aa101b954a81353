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
from langspec_lora.values import read_strictly

COMMANDS = (
    "doctor",
    "defaults",
    "prepare-flores",
    "make-example",
    "translate",
    "evaluate",
    "report",
    "inspect",
    "export",
    "import",
    "add-language",
    "remove-language",
    "join",
    "average",
    "bench",
)
"""The commands in the order of use; ``prepare-flores`` lives in ``prepare_flores.py``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the command line without the program's name; by default that of the process.

    Returns:
        The exit code.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in COMMANDS:
        parser = _overview()
        parser.parse_args(arguments)
        parser.error("give the command first")
    command = _module(arguments[0])
    parser = argparse.ArgumentParser(prog=f"langspec-lora {arguments[0]}", description=command.HELP)
    read_strictly(parser)
    command.add_arguments(parser)
    # Intermixed: before Python 3.13 the text or folders of a command could not follow its flags otherwise.
    args = parser.parse_intermixed_args(arguments[1:])
    with command_line():
        return command.run(args)


def _overview() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="langspec-lora", description="Language-specific LoRA for multilingual translation with fairseq."
    )
    parser.add_argument("--version", action="version", version=f"langspec-lora {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        commands.add_parser(name, help=_module(name).HELP)
    return parser


def _module(command: str) -> ModuleType:
    return importlib.import_module(f"langspec_lora.cli.{command.replace('-', '_')}")


if __name__ == "__main__":
    sys.exit(main())
