"""How a mistake of the user ends a program."""

from __future__ import annotations

import subprocess
import sys

import pytest

from langspec_lora.errors import UserError, command_line, exit_on_user_error
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
