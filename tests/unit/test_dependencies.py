"""Which rooms of the package may import which: one way only, and torch where it is needed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ROOT

PACKAGE = ROOT / "langspec_lora"
ROOMS = (
    "errors",
    "naming",
    "values",
    "settings",
    "partial_files",
    "files",
    "locks",
    "curve_file",
    "notes",
    "progress",
    "scaling",
    "sites",
    "sizes",
    "hooks",
    "tokenizers",
    "tensor_files",
    "compat",
    "languages",
    "yaml_files",
    "resources",
    "keys",
    "lora",
    "pruning",
    "flags",
    "key_flags",
    "pruning_flags",
    "generation",
    "config",
    "parts",
    "data",
    "adapters",
    "checkpoints",
    "convert",
    "models",
    "criterion",
    "tasks",
    "inference",
    "evaluation",
    "report",
    "ablation",
    "example",
    "benchmark",
    "api",
    "api",
    "study",
    "cli",
)
"""From the ground up: a room imports those before it, and never one after it."""


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path, within_functions: bool = True) -> Iterator[str]:
    """The modules that a file imports, by their whole names; those of type checkers too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if within_functions else tree.body:
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: {ast.unparse(node)}"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def test_every_room_has_its_floor() -> None:
    assert {room_of(path) for path in modules()} - {"__init__"} == set(ROOMS)


def test_no_module_imports_upward() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules()
        if room_of(path) != "__init__"
        for name in imported(path)
        if name.startswith("langspec_lora.") and name != "langspec_lora.__version__"
        if ROOMS.index(name.split(".")[1]) > ROOMS.index(room_of(path))
    ]
    assert wrong == []


def test_no_two_modules_import_each_other() -> None:
    names = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in modules()
    }
    wants = {}
    for name, path in names.items():
        found = {part for whole in imported(path) for part in (whole, whole.rpartition(".")[0])}
        wants[name] = {other for other in found if other in names and other != name}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " → ".join((*path[path.index(name) :], name))
        if name not in done:
            for other in sorted(wants[name]):
                if not name.startswith(f"{other}."):  # a package's own file may look at its neighbours
                    visit(other, (*path, name))
            done.add(name)

    for name in names:
        visit(name, ())


@pytest.mark.parametrize("room", ["lora", "pruning", "adapters"])
def test_the_mathematics_knows_no_fairseq(room) -> None:
    for path in (PACKAGE / room).rglob("*.py"):
        assert not any(name.split(".")[0] == "fairseq" for name in imported(path)), path


def test_the_ground_needs_no_torch() -> None:
    ground = [
        f"langspec_lora.{name}"
        for name in (
            "errors",
            "values",
            "settings",
            "files",
            "locks",
            "curve_file",
            "sites",
            "sizes",
            "languages",
            "config",
            "generation",
        )
    ]
    code = f"import sys, {', '.join(ground)}; print(*{{'torch', 'fairseq', 'numpy'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_module_says_in_one_line_why_it_imports_in_functions_if_it_does() -> None:
    for path in modules():
        text = path.read_text(encoding="utf-8")
        functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
        within = [
            node for each in functions for node in ast.walk(each) if isinstance(node, (ast.Import, ast.ImportFrom))
        ]
        reasons = re.findall(r"^# Imports in functions: .+\.$", text, flags=re.MULTILINE)
        assert len(reasons) == bool(within), path


def test_no_module_is_longer_than_350_lines() -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in modules()}
    assert {name: count for name, count in lines.items() if count > 350} == {}
