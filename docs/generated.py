"""The parts of the manual that are made from the code: ``python docs/generated.py`` writes them into its pages.

A page marks such a part by ``<!-- begin NAME -->`` and ``<!-- end NAME -->``; ``tests/unit/test_docs.py`` checks that
each is up to date. mkdocs uses this file as a hook and fills the parts anew whenever it builds.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
PACKAGE = DOCS.parent / "langspec_lora"
sys.path.insert(0, str(PACKAGE.parent))  # mkdocs and a plain `python docs/generated.py` do not know the checkout

from langspec_lora.cli.commands import COMMANDS, GROUPS, parser_of  # noqa: E402
from langspec_lora.flags import flag_table as flag_rows  # noqa: E402
from tests.fairseq_features import TOPICS, WORKS  # noqa: E402


def table(*rows: Iterable[str]) -> str:
    """Rows of cells, the first of them the headings, as Markdown."""
    head, *body = (f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |" for cells in rows)
    return "\n".join((head, "|---" * head.count(" | ") + "|---|", *body))


def flag_table() -> str:
    """The flags that the task and the model add to fairseq's."""
    rows = []
    for name, value, default, text in flag_rows():
        literal = default and " " not in default
        # Not rank|standard: in a table the manual would show GitHub's escape of the bar.
        value = f"{{{value.replace('|', ',')}}}" if "|" in value else value
        rows.append((f"`{name} {value}`", f"`{default}`" if literal else default, text))
    return table(("Flag", "Default", "Meaning"), *rows)


def command_table() -> str:
    """The commands of ``langspec-lora`` by topic."""
    rows = ((topic, f"`langspec-lora {name}`", text) for topic, group in GROUPS.items() for name, text in group.items())
    return table(("Topic", "Command", "What it does"), *rows)


def feature_table() -> str:
    """fairseq's features by topic, as the tests go through them."""
    rows = []
    for topic, features in TOPICS.items():
        for feature in features:
            flags = re.sub(r"(?<!{){(\w+)}", lambda name: name[1].upper(), feature.flags)
            flags = flags.replace("{{", "{").replace("}}", "}")
            says = feature.says if feature.state == WORKS else ""
            state = f"{feature.state}: {says}" if says else feature.state
            rows.append((topic, feature.name, f"`{flags}`" if flags else "", state))
    return table(("Topic", "Feature", "Flags", "State"), *rows)


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


PARTS = {"flags": flag_table, "commands": command_table, "modules": module_list, "features": feature_table}


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
    return "\n\n".join(f"## {name}\n\n```text\n{parser_of(name).format_help()}```" for name in COMMANDS)


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
