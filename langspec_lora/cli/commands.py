"""The commands of ``langspec-lora``: one table of them, and the parser of each."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import NoReturn

from langspec_lora import __version__
from langspec_lora.cli.parser import CommandParser
from langspec_lora.naming import did_you_mean
from langspec_lora.values import read_strictly

GROUPS = {
    "Translate and evaluate": {
        "translate": "translate lines of text",
        "evaluate": "translate and score all directions of a test set",
        "report": "tables, significance and heat maps of evaluations",
    },
    "Data": {
        "make-example": "make the built-in example in twelve invented languages",
        "prepare": "turn any parallel text into data to train on",
        "prepare-flores": "download and binarise FLORES-101 for a set of languages",
        "defaults": "print the settings that scripts/*.sh derive from the data",
    },
    "Studies": {
        "study": "train, choose, evaluate and compare all that a recipe names",
    },
    "Adapters": {
        "ranks": "find ranks that fit a budget of parameters",
        "ablate": "measure what is lost without some adapters",
        "inspect": "count the parameters of a checkpoint and what pruning left",
        "subspaces": "estimate the rank that each language needs",
        "add-language": "add new languages to trained adapters",
        "remove-language": "remove languages from a checkpoint's adapters",
        "join": "join the adapters of two trainings on one base",
        "fix-directions": "keep in each layer the side that a training has learned",
        "average": "average the adapters of several checkpoints of a training",
    },
    "Formats": {
        "export": "write the adapters, or the model of a direction, in a format",
        "import": "make a checkpoint from another format",
    },
    "Environment": {
        "doctor": "check this installation",
        "bench": "measure speed and memory",
        "completion": "print the script that completes commands in your shell",
    },
}
"""The commands by topic, with what each does; ``prepare-flores`` is in ``prepare_flores.py``."""

COMMANDS = {name: summary for group in GROUPS.values() for name, summary in group.items()}


def module_of(command: str) -> ModuleType:
    """Imports a command's module: ``EXAMPLE`` (its arguments), ``add_arguments(parser)`` and ``run(args) -> int``."""
    return importlib.import_module(f"langspec_lora.cli.{command.replace('-', '_')}")


def parser_of(command: str) -> CommandParser:
    """The parser of one command; no other command is imported."""
    module = module_of(command)
    prog, summary = f"langspec-lora {command}", COMMANDS[command]
    parser = CommandParser(
        prog=prog,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"example:\n  {prog} {module.EXAMPLE}".rstrip(),
    )
    read_strictly(parser)
    module.add_arguments(parser)
    parser.add_verbosity()
    return parser


def overview() -> CommandParser:
    """The parser of ``langspec-lora`` itself, whose help lists the commands; it imports none of them."""
    width = max(map(len, COMMANDS))
    groups = [
        "\n".join([f"{title}:", *(f"  {name:<{width}}  {summary}" for name, summary in commands.items())])
        for title, commands in GROUPS.items()
    ]
    parser = CommandParser(
        prog="langspec-lora",
        usage="langspec-lora [-h] [--version] COMMAND ...",
        description="Language-specific LoRA for multilingual translation with fairseq.",
        epilog="\n\n".join([*groups, "langspec-lora COMMAND --help shows a command's flags and an example."]),
    )
    parser.add_argument("--version", action="version", version=f"langspec-lora {__version__}")
    return parser


def refuse(word: str | None) -> NoReturn:
    """Ends the program where a command was expected.

    Args:
        word: what was found instead, None for nothing.

    Raises:
        SystemExit: with exit code 2.
    """
    hint = "langspec-lora --help lists the commands"
    if word is None:
        overview().error(f"no command given; {hint}")
    if word.startswith("-"):
        overview().error(f"{word} given before the command; give the command first")
    overview().error(f"unknown command {word!r}; {did_you_mean(word, COMMANDS)}{hint}")
