"""The parts of the manual that are made from the code: ``python docs/generated.py`` writes them into its pages.

A page marks such a part by ``<!-- begin NAME -->`` and ``<!-- end NAME -->``; ``tests/unit/test_docs.py`` checks that
each is up to date. mkdocs uses this file as a hook and fills the parts anew whenever it builds.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
PACKAGE = DOCS.parent / "langspec_lora"
sys.path.insert(0, str(PACKAGE.parent))  # mkdocs and a plain `python docs/generated.py` do not know the checkout

from langspec_lora import flags  # noqa: E402
from langspec_lora.cli import main  # noqa: E402


def flag_rows() -> Sequence[tuple[str, str, str, str]]:
    """Name, value, default and help text of the flags that the task and the model add to fairseq's."""
    if hasattr(flags, "flag_table"):
        return flags.flag_table()
    parser = argparse.ArgumentParser(add_help=False)
    for declare in (flags.add_adapter_flags, flags.add_pruning_flags, flags.add_base_flag, flags.add_absent_flag):
        declare(parser)
    rows = []
    for action in parser._actions:
        value = action.metavar or "|".join(map(str, action.choices or ()))
        default = "" if action.default is None else str(action.default)
        rows.append((action.option_strings[0], str(value), default, action.help or ""))
    return rows


def command_rows() -> Sequence[tuple[str, str]]:
    """Name and purpose of the commands of ``langspec-lora``."""
    if importlib.util.find_spec("langspec_lora.cli.commands"):
        return list(importlib.import_module("langspec_lora.cli.commands").COMMANDS.items())
    modules = {name: f"langspec_lora.cli.{name.replace('-', '_')}" for name in main.COMMANDS}
    return [(name, importlib.import_module(module).HELP) for name, module in modules.items()]


def table(*rows: Iterable[str]) -> str:
    """Rows of cells, the first of them the headings, as Markdown."""
    head, *body = (f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |" for cells in rows)
    return "\n".join((head, "|---" * head.count(" | ") + "|---|", *body))


def flag_table() -> str:
    """All flags."""
    rows = (
        (f"`{name} {value}`", f"`{default}`" if default else "", text) for name, value, default, text in flag_rows()
    )
    return table(("Flag", "Default", "Meaning"), *rows)


def command_table() -> str:
    """All commands."""
    return table(("Command", "What it does"), *((f"`langspec-lora {name}`", text) for name, text in command_rows()))


def module_list() -> str:
    """All modules, room by room, with the first sentences of their docstrings."""
    rooms = []
    for folder in sorted({path.parent for path in PACKAGE.rglob("*.py")}):
        summaries = {path.name: _summary(path) for path in sorted(folder.glob("*.py"))}
        rows = ((f"`{name}`", text) for name, text in summaries.items() if text or name != "__init__.py")
        name = "/".join(("langspec_lora", *folder.relative_to(PACKAGE).parts))
        rooms.append(f"### `{name}/`\n\n{table(('Module', 'What it holds'), *rows)}")
    return "\n\n".join(rooms)


def _summary(module: Path) -> str:
    docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    text = " ".join(docstring.split("\n\n")[0].split()).replace("``", "`")
    return re.sub(r":\w+:`~?([\w.]+)`", r"`\1`", text)


PARTS = {"flags": flag_table, "commands": command_table, "modules": module_list}


def fill(page: str) -> str:
    """A page with the generated parts in place."""
    for name, make in PARTS.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        if begin in page:
            head, rest = page.split(begin)
            page = f"{head}{begin}\n{make()}\n{end}{rest.split(end)[1]}"
    return page


ROLE = re.compile(r":\w+:<code>(~?)((?:[\w.]+\.)?(\w+))</code>")
"""What mkdocs leaves of the docstrings' ``:class:`~package.module.Name```."""


def on_page_content(html: str, **_: Any) -> str:
    """mkdocs calls this for the HTML of each page: references in docstrings become links, where they lead somewhere."""
    return ROLE.sub(r'<autoref identifier="\2" optional><code>\3</code></autoref>', html)


def command_help() -> str:
    """The help text of every command; only mkdocs shows it, because its line breaks depend on the Python version."""
    sections = []
    for name, _ in command_rows():
        if importlib.util.find_spec("langspec_lora.cli.commands"):
            parser = importlib.import_module("langspec_lora.cli.commands").parser_of(name)
        else:
            parser = argparse.ArgumentParser(prog=f"langspec-lora {name}")
            importlib.import_module(f"langspec_lora.cli.{name.replace('-', '_')}").add_arguments(parser)
        sections.append(f"## {name}\n\n```text\n{parser.format_help()}```")
    return "\n\n".join(sections)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """mkdocs calls this for the text of each page."""
    marker = "<!-- help of all commands -->"
    return fill(markdown.replace(marker, command_help()) if marker in markdown else markdown)


if __name__ == "__main__":
    for path in sorted(DOCS.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if (filled := fill(text)) != text:
            path.write_text(filled, encoding="utf-8")
            print(f"updated {path.relative_to(DOCS.parent)}")
