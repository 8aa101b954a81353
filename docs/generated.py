"""The parts of the manual that are made from the code: ``python docs/generated.py`` writes them into its pages.

A page marks such a part by ``<!-- begin NAME -->`` and ``<!-- end NAME -->``; ``tests/unit/test_docs.py`` checks that
each is up to date. mkdocs uses this file as a hook and fills the parts anew whenever it builds.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
PACKAGE = DOCS.parent / "langspec_lora"
sys.path.insert(0, str(PACKAGE.parent))  # mkdocs and a plain `python docs/generated.py` do not know the checkout

from langspec_lora import flags  # noqa: E402
from langspec_lora.cli.main import COMMANDS  # noqa: E402


def plugin_flags() -> list[argparse.Action]:
    """The flags that the task and the model add to fairseq's."""
    parser = argparse.ArgumentParser(add_help=False)
    for declare in (flags.add_adapter_flags, flags.add_pruning_flags, flags.add_base_flag, flags.add_absent_flag):
        declare(parser)
    return parser._actions


def flag_table() -> str:
    """A row for each flag: its name and value, its default, and its help text."""
    rows = ["| Flag | Default | Meaning |", "|---|---|---|"]
    for action in plugin_flags():
        value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
        default = "" if action.default is None else f"`{action.default}`"
        cells = (f"`{action.option_strings[0]} {value}`", default, action.help or "")
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows)


def command_table() -> str:
    """A row for each command of ``langspec-lora``, with what it does."""
    rows = ["| Command | What it does |", "|---|---|"]
    for name in COMMANDS:
        module = importlib.import_module(f"langspec_lora.cli.{name.replace('-', '_')}")
        rows.append(f"| `langspec-lora {name}` | {module.HELP} |")
    return "\n".join(rows)


def module_list() -> str:
    """All modules, room by room, with the first line of their docstrings."""
    lines: list[str] = []
    for folder in sorted({path.parent for path in PACKAGE.rglob("*.py")}):
        name = "/".join(("langspec_lora", *folder.relative_to(PACKAGE).parts))
        lines += ["", f"### `{name}/`", "", "| Module | What it holds |", "|---|---|"]
        for path in sorted(folder.glob("*.py")):
            docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            if docstring or path.name != "__init__.py":
                summary = " ".join(docstring.split("\n\n")[0].split()).replace("``", "`").replace("|", "\\|")
                summary = re.sub(r":\w+:`~?([\w.]+)`", r"`\1`", summary)
                lines.append(f"| `{path.name}` | {summary} |")
        if lines[-1] == "|---|---|":
            del lines[-5:]
    return "\n".join(lines[1:])


PARTS = {"flags": flag_table, "commands": command_table, "modules": module_list}


def fill(page: str) -> str:
    """A page with the generated parts in place."""
    for name, make in PARTS.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        if begin in page:
            head, rest = page.split(begin)
            page = f"{head}{begin}\n{make()}\n{end}{rest.split(end)[1]}"
    return page


def on_page_markdown(markdown: str, **_: Any) -> str:
    """mkdocs calls this for the text of each page."""
    return fill(markdown)


if __name__ == "__main__":
    for path in sorted(DOCS.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if (filled := fill(text)) != text:
            path.write_text(filled, encoding="utf-8")
            print(f"updated {path.relative_to(DOCS.parent)}")
