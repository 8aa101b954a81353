"""``langspec-lora completion``: the script by which a shell completes commands, flags, choices and files."""

# Imports in functions: no other command needs shtab, nor works without it.

from __future__ import annotations

import argparse
from pathlib import Path

from langspec_lora.cli.commands import COMMANDS, module_of, overview
from langspec_lora.errors import UserError

EXAMPLE = "bash > ~/.local/share/bash-completion/completions/langspec-lora"

_SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("shell", choices=_SHELLS, help="the shell")


def run(args: argparse.Namespace) -> int:
    """Prints the script."""
    try:
        import shtab
    except ModuleNotFoundError:
        raise UserError("shell completion needs shtab; pip install shtab") from None
    if args.shell not in shtab.SUPPORTED_SHELLS:
        raise UserError(f"this shtab does not know {args.shell}; pip install --upgrade shtab")
    parser = overview()
    commands = parser.add_subparsers()
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary)
        module_of(name).add_arguments(command)
        command.add_verbosity()
        for action in command._actions:
            if action.type is Path or action.metavar == "FILE":
                action.complete = shtab.DIRECTORY if action.metavar == "DIR" else shtab.FILE  # type: ignore[attr-defined]  # shtab reads this attribute, which argparse does not declare
    print(shtab.complete(parser, args.shell))
    return 0
