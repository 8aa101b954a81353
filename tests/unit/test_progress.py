"""The status line: rewritten on a terminal, a line now and then elsewhere, nothing with --quiet."""

from __future__ import annotations

import io
import os

import pytest

from langspec_lora import progress
from langspec_lora.progress import StatusLine
from tests import ROOT


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_on_a_terminal_one_line_is_rewritten_and_cut_to_its_width(monkeypatch):
    monkeypatch.setattr(os, "get_terminal_size", lambda number: os.terminal_size((10, 5)))
    terminal = Terminal()
    line = StatusLine(terminal)
    line.show("one")
    line.show("a text that is too long")
    line.clear()
    assert terminal.getvalue().split("\r\033[K") == ["", "one", "a text th", ""]


def test_in_a_file_a_line_appears_every_fifteen_seconds(clock):
    file = io.StringIO()
    line = StatusLine(file)
    for second in range(0, 40, 2):
        clock[0] = 100.0 + second
        line.show(str(second))
    line.clear()
    assert file.getvalue() == "16\n32\n"


def test_quiet_hides_it(monkeypatch):
    monkeypatch.setattr(progress, "is_quiet", lambda: True)
    terminal = Terminal()
    line = StatusLine(terminal)
    line.show("one")
    line.clear()
    assert terminal.getvalue() == ""


def test_progress_bars_are_made_in_one_module():
    files = (ROOT / "langspec_lora").rglob("*.py")
    importing = [path.name for path in files if "from tqdm" in path.read_text() or "import tqdm" in path.read_text()]
    assert importing == ["progress.py"]
