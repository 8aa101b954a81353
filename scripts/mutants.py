"""The small changes that :mod:`mutation` makes to a module: those of cosmic-ray, and some of our own."""

from __future__ import annotations

import ast
import difflib
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import cosmic_ray.plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code

_OTHERS = {  # one replacement for each operator: the same tests notice or miss any other replacement
    "BinaryOperator": (
        "Add_Sub",
        "Sub_Add",
        "Mul_Div",
        "Div_Mul",
        "FloorDiv_Mul",
        "Mod_Mul",
        "Pow_Mul",
        "BitAnd_BitOr",
    ),
    "ComparisonOperator": ("Eq_NotEq", "NotEq_Eq", "Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt", "Is_IsNot", "IsNot_Is"),
    "UnaryOperator": ("Delete_Not", "Delete_USub", "Delete_Invert"),
}
_OPERATORS = (
    *("AddNot", "NumberReplacer", "RemoveDecorator", "ZeroIterationForLoop"),
    *("ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceBreakWithContinue", "ReplaceContinueWithBreak"),
    *(f"Replace{kind}_{change}" for kind, changes in _OTHERS.items() for change in changes),
)


@dataclass(frozen=True)
class Mutant:
    """A module with one wrong change.

    Attributes:
        line: number of the first changed line.
        was: the lines before the change.
        now: the lines after the change.
        code: the whole changed module.
        key: identifies the change as long as these lines stay the same, even if they move within the module.
    """

    line: int
    was: str
    now: str
    code: str
    key: str

    def __str__(self) -> str:
        lines = [f"    - {line}" for line in self.was.splitlines()] + [
            f"    + {line}" for line in self.now.splitlines()
        ]
        return "\n".join(lines)


def mutants_of(name: str, code: str) -> list[Mutant]:
    """All changes of a module that compile and that a test could notice.

    Args:
        name: the module's name; part of the keys.
        code: the module's text.
    """
    original = _meaning(code)
    seen, found = {original}, []
    for changed in (*_of_cosmic_ray(code), *_omissions(code)):
        try:
            meaning = _meaning(changed)
        except SyntaxError:
            continue
        if meaning not in seen:
            seen.add(meaning)
            found.append(_mutant(name, code, changed))
    return _with_distinct_keys(sorted(found, key=lambda mutant: mutant.line))


def _of_cosmic_ray(code: str) -> Iterator[str]:
    nodes = list(ast_nodes(get_ast(code)))
    for name in _OPERATORS:
        operator = cosmic_ray.plugins.get_operator(f"core/{name}")()
        for occurrence in range(sum(len(list(operator.mutation_positions(node))) for node in nodes)):
            yield mutate_code(code, operator, occurrence)


def _omissions(code: str) -> Iterator[str]:
    """Removes, one at a time, each statement, argument, item, operand, condition and caught exception."""
    text = _Text(code)
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Expr) and not isinstance(node.value, (ast.Constant, ast.Yield)):
            yield text.replaced(*text.span(node), "pass")
        elif isinstance(node, ast.Call):
            for keyword in node.keywords:
                yield text.without_item(*text.span(keyword))
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if key is not None:
                    yield text.without_item(text.span(key)[0], text.span(value)[1])
        elif isinstance(node, (ast.List, ast.Tuple, ast.Set)) and not isinstance(getattr(node, "ctx", None), ast.Store):
            for item in node.elts if len(node.elts) > 1 else ():
                yield text.without_item(*text.span(item))
        elif isinstance(node, ast.BoolOp):
            spans = [text.span(value) for value in node.values]
            yield text.replaced(spans[0][0], spans[1][0], "")
            for (_, before), (_, end) in pairwise(spans):
                yield text.replaced(before, end, "")
        elif isinstance(node, ast.ExceptHandler) and node.type is not None:
            yield text.replaced(*text.span(node.type), "NotImplementedError")
        elif isinstance(node, ast.comprehension):
            for condition in node.ifs:
                yield text.replaced(*text.span(condition), "True")


class _Text:
    """A module's text, by the positions that ``ast`` counts in bytes of lines."""

    def __init__(self, code: str) -> None:
        self._code = code.encode()
        lines = self._code.splitlines(keepends=True)
        self._starts = [sum(map(len, lines[:number])) for number in range(len(lines) + 1)]

    def span(self, node: ast.AST) -> tuple[int, int]:
        return self._starts[node.lineno - 1] + node.col_offset, self._starts[node.end_lineno - 1] + node.end_col_offset

    def replaced(self, start: int, end: int, text: str) -> str:
        return (self._code[:start] + text.encode() + self._code[end:]).decode()

    def without_item(self, start: int, end: int) -> str:
        comma = re.compile(rb"\s*,[ ]*").match(self._code, end)
        return self.replaced(start, comma.end() if comma else end, "")


class _Strip(ast.NodeTransformer):
    """Removes what no test can notice: types, parameter kinds, ``__all__``, the logger's name, strict and frozen."""

    def visit_arguments(self, node: ast.arguments) -> ast.arguments:
        self.generic_visit(node)
        names = [*node.posonlyargs, *node.args, *node.kwonlyargs]
        defaults = [*node.defaults, *node.kw_defaults]
        return ast.arguments([], names, node.vararg, [], [], node.kwarg, defaults)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.returns = None
        self.generic_visit(node)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AnnAssign:
        node.annotation = ast.Constant(None)
        self.generic_visit(node)
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.Assign | None:
        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        is_type = len(names) == 1 and isinstance(node.value, ast.Subscript) and names[0].strip("_").istitle()
        return None if is_type or names in (["__all__"], ["logger"]) else self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.Call:
        if isinstance(node.func, ast.Name) and node.func.id in ("zip", "dataclass"):
            node.keywords = [keyword for keyword in node.keywords if keyword.arg not in ("strict", "frozen")]
        return self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.If | None:
        return None if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" else self.generic_visit(node)


def _meaning(code: str) -> str:
    compile(code, "mutant", "exec")
    return ast.dump(_Strip().visit(ast.parse(code)))


def _mutant(name: str, code: str, changed: str) -> Mutant:
    before, after = code.splitlines(), changed.splitlines()
    blocks = [
        block
        for block in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
        if block[0] != "equal"
    ]
    was = "\n".join(line.strip() for _, start, end, _, _ in blocks for line in before[start:end])
    now = "\n".join(line.strip() for _, _, _, start, end in blocks for line in after[start:end])
    first = next((line for _, start, end, _, _ in blocks for line in range(start, end) if before[line].strip()), 0)
    return Mutant(first + 1, was, now, changed, _key(name, was, now))


def _key(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _with_distinct_keys(mutants: list[Mutant]) -> list[Mutant]:
    """Gives equal changes of equal lines different keys, by their order."""
    counts: dict[str, int] = {}
    distinct = []
    for mutant in mutants:
        count = counts[mutant.key] = counts.get(mutant.key, 0) + 1
        key = mutant.key if count == 1 else _key(mutant.key, count)
        distinct.append(Mutant(mutant.line, mutant.was, mutant.now, mutant.code, key))
    return distinct
