"""How a mistake of the user ends a program."""

from __future__ import annotations

import ast
import pickle
import subprocess
import sys
from collections.abc import Iterable, Iterator

import pytest

from langspec_lora.errors import (
    SeveralErrors,
    UserError,
    collect_errors,
    command_line,
    exit_on_user_error,
    printable,
)
from tests import ROOT


def test_mistake_ends_a_program_with_one_line_and_exit_code_one() -> None:
    code = "from langspec_lora.errors import *\nwith exit_on_user_error(): raise UserError('--dim 0: a wrong word')"
    root = ROOT
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode() == "langspec-lora: error: --dim 0: a wrong word\n"


def test_line_breaks_and_terminal_codes_of_a_name_are_shown_not_sent() -> None:
    with pytest.raises(SystemExit) as ended, exit_on_user_error():
        raise UserError("file a\nb\x1b[31m\u2028c\udc80 is missing")
    assert ended.value.code == "langspec-lora: error: file a\\nb\\x1b[31m\\u2028c\\udc80 is missing"


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(KeyError), exit_on_user_error():
        raise KeyError("a fault of the program")


def test_ctrl_c_ends_a_program_with_one_line_and_the_shell_s_exit_code(capsys) -> None:
    with pytest.raises(SystemExit) as ended, command_line("stopped; run it again"):
        raise KeyboardInterrupt
    assert ended.value.code == 130
    assert capsys.readouterr().err == "\nlangspec-lora: stopped; run it again\n"


def check_all(*messages: str) -> None:
    """A command that finds each of these mistakes."""
    with collect_errors() as errors:
        for message in messages:
            with errors.check():
                raise UserError(message)
        errors.raise_found()
        if messages:
            pytest.fail("what depends on the checks was done")


def command_of_commands() -> None:
    with exit_on_user_error(), collect_errors() as errors:
        with errors.check():
            check_all("--dim 0: wrong", "file a\nb is missing", "--dim 0: wrong")
        raise UserError("file c is missing")


def test_several_mistakes_are_listed_together_each_once_and_each_in_a_line() -> None:
    with pytest.raises(SystemExit) as ended:
        command_of_commands()
    lines = ["3 mistakes", "  1. --dim 0: wrong", "  2. file a\\nb is missing", "  3. file c is missing"]
    assert ended.value.code == "langspec-lora: error: " + "\n".join(lines)


def test_one_mistake_is_raised_as_it_is_and_none_lets_the_command_go_on() -> None:
    check_all()
    with pytest.raises(UserError, match=r"^--dim 0: wrong$") as raised:
        check_all("--dim 0: wrong", "--dim 0: wrong")
    assert type(raised.value) is UserError


@pytest.mark.parametrize("unit", ["x", "a b ", "\u202e", "三", "\n", "'x', "])
def test_message_with_a_long_value_is_a_few_lines_and_keeps_its_ends(unit) -> None:
    value = f"start{unit * 5000}end"
    with pytest.raises(SystemExit) as ended, exit_on_user_error():
        raise UserError(f"a.json: rank is {value}; give a number")
    text = str(ended.value.code)
    assert len(text) <= 1030
    assert text.startswith(f"langspec-lora: error: a.json: rank is start{printable(unit.strip())}")
    assert text.endswith("end; give a number")
    assert len(str(UserError(value))) <= 1000
    if not any(char.isspace() for char in unit):
        assert f"({len(value) + 1:,} characters)" in str(UserError(f"rank is {value}; give a number"))
    again = pickle.loads(pickle.dumps(UserError(value)))
    assert str(again) == str(UserError(value))


def test_message_without_a_long_value_is_whole() -> None:
    path = "/".join(["folder"] * 42)
    text = f"--out {path}: " + "a sentence of several words, " * 24
    assert str(UserError(text)) == text


def test_list_of_many_mistakes_says_how_many_there_are() -> None:
    with pytest.raises(SystemExit) as ended, exit_on_user_error():
        check_all(*(f"{number}.pt: {'long ' * 300}" for number in range(1, 1501)))
    lines = str(ended.value.code).splitlines()
    assert lines[0] == "langspec-lora: error: 1,500 mistakes"
    assert [line.split(".pt")[0].strip() for line in lines[1:21]] == [f"{number}. {number}" for number in range(1, 21)]
    assert lines[21:] == ["  … and 1,480 more; correct these first"]
    assert max(map(len, lines)) < 450
    joined = str(SeveralErrors(*(UserError(f"{number}: {'y' * 9000}") for number in range(1, 1501))))
    assert len(joined) < 9000
    assert joined.endswith("; and 1,480 more; correct these first")


def test_several_mistakes_can_be_sent_to_another_process() -> None:
    sent = pickle.loads(pickle.dumps(SeveralErrors(UserError("one"), UserError("two"))))
    assert str(sent) == "one; two"
    assert [str(error) for error in sent.errors] == ["one", "two"]


def names(nodes: Iterable[ast.AST], context: type) -> list[ast.Name]:
    """The variables below some nodes that are stored or loaded."""
    return [
        name
        for node in nodes
        for name in ast.walk(node)
        if isinstance(name, ast.Name) and isinstance(name.ctx, context)
    ]


def enters(statement: ast.AST, ending: str) -> bool:
    """Whether a statement is a ``with`` of a call whose name ends so."""
    calls = [item.context_expr for item in statement.items] if isinstance(statement, ast.With) else []
    return any(isinstance(call, ast.Call) and ast.unparse(call.func).endswith(ending) for call in calls)


def uses_after_a_failed_check(function: ast.FunctionDef) -> Iterator[str]:
    """What a check assigns and a later statement uses, although the check may have failed."""
    withs = [node for node in ast.walk(function) if isinstance(node, ast.With)]
    for check in (node for node in withs if enters(node, ".check")):
        known = {name.id for name in names([function], ast.Store) if name.lineno < check.lineno}
        known |= {argument.arg for argument in function.args.args}
        assigned = {name.id for name in names(check.body, ast.Store)} - known
        ends = [node.end_lineno for node in withs if enters(node, "collect_errors") and node.lineno < check.lineno]
        ends += [node.lineno for node in ast.walk(function) if getattr(node, "attr", "") == "raise_found"]
        until = min((end for end in ends if end and end >= check.end_lineno), default=function.end_lineno)
        for name in names([function], ast.Load):
            if name.id in assigned and check.end_lineno < name.lineno <= until:
                yield f"{function.name}, line {name.lineno}: {name.id}"


def test_what_a_check_finds_is_used_only_once_no_check_has_failed() -> None:
    found = [
        f"{path}: {use}"
        for path in sorted((ROOT / "langspec_lora").rglob("*.py"))
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(function, ast.FunctionDef)
        for use in uses_after_a_failed_check(function)
    ]
    assert not found
    lines = ["with collect_errors() as errors:", " with errors.check():", "  x = 1", " use(x)"]
    wrong, right = (
        ast.parse("\n".join(["def f():", *(f" {line}" for line in text)])).body[0]
        for text in (lines, [*lines[:3], " errors.raise_found()", lines[3]])
    )
    assert list(uses_after_a_failed_check(wrong)) == ["f, line 5: x"]
    assert not list(uses_after_a_failed_check(right))
