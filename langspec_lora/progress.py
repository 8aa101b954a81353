"""How far a command is: progress bars, and a status line; ``--quiet`` hides them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

from langspec_lora.notes import is_quiet


class Progress(tqdm):
    """A progress bar on a terminal; in a log file, a line every twenty seconds.

    Args:
        iterable: the items to iterate over; None for a bar that is updated by hand.
        disable: hides the bar; None hides it everywhere but on a terminal. ``--quiet`` always hides it.
        **settings: see tqdm.
    """

    def __init__(self, iterable: Iterable[Any] | None = None, *, disable: bool | None = False, **settings: Any) -> None:
        interval = 0.5 if sys.stderr.isatty() else 20.0
        pace = {"mininterval": interval, "maxinterval": interval}
        super().__init__(iterable, disable=True if is_quiet() else disable, **{**pace, **settings})


class StatusLine:
    """What is going on now: a line that is rewritten on a terminal; elsewhere a new line every fifteen seconds.

    Args:
        stream: where it is shown.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._shown = time.monotonic()

    def show(self, text: str) -> None:
        """Shows another text, cut to the width of the terminal."""
        if is_quiet():
            return
        if self._terminal:
            columns = os.get_terminal_size(self._stream.fileno()).columns or 80
            print(f"\r\033[K{text[: columns - 1]}", end="", file=self._stream, flush=True)
        elif time.monotonic() - self._shown > 15:
            print(text, file=self._stream, flush=True)
            self._shown = time.monotonic()

    def clear(self) -> None:
        """Empties the line before something else is printed."""
        if self._terminal and not is_quiet():
            print("\r\033[K", end="", file=self._stream, flush=True)
